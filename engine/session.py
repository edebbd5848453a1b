"""One camera frame in, one edited frame out."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from engine.ahead import AheadTracker, FaceTracker
from engine.bundle import ParserSpec, open_bundle
from engine.bundle_build import bundle_path
from engine.direction_file import Direction
from engine.editing import Editing
from engine.errors import UnknownAttribute, UsageError
from engine.faces import (
    Face,
    Faces,
    Sightings,
    advance_face,
    aiming,
    assign,
    at_rest,
    exposed,
    holding,
    main_phase,
    needs_second_look,
    overtaken,
    unaccounted,
)
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase
from engine.geometry import align
from engine.imaging import CpuImaging, Imaging
from engine.kernels.load import CudaKernels
from engine.kernels.whole_step import WholeSteps, open_card
from engine.later import LaterPicture
from engine.masks import MaskShape
from engine.policies import LostFace, stand_in
from engine.recurrence import FULL, VARIANTS, Switches
from engine.runtimes.base import Device, FloatArray, Networks, Precision, Runtime
from engine.runtimes.select import open_networks, select
from engine.state import HeldFrame, TrackState
from engine.timing import StageClock
from engine.tracking import SEARCH_INTERVAL_NS, FaceTrack, Tracker

log = logging.getLogger(__name__)

Choice = TypeVar("Choice")

FACE_THRESHOLD = 0.5
"""The detector's score from which something is a face."""

SECOND_LOOK_THRESHOLD = 0.2
"""The detector's score from which a face that nobody tracks keeps the policy in force."""


Finish = Callable[[], EditedFrame]
"""Gives the frame that `Session.begin` began."""


@dataclass(frozen=True)
class Settings:
    """How a session behaves. max_faces: the largest so many are edited. switches: the variant of the method."""

    lost_face: LostFace = LostFace.HOLD
    max_faces: int = 1
    switches: Switches = FULL
    mask: MaskShape = field(default_factory=MaskShape)

    def __post_init__(self) -> None:
        if self.max_faces < 1:
            raise UsageError(f"max_faces is {self.max_faces}; a whole number from 1 was expected")


class Session:
    """Edits the frames of one source, in order. Owned by one thread.

    What a frame leaves to the next is one tuple of frozen records, swapped at the end of `begin`: what raises leaves
    the session as it was.
    """

    def __init__(
        self,
        networks: Networks,
        tracker: FaceTracker,
        directions: Mapping[str, Direction],
        parser: ParserSpec,
        settings: Settings | None = None,
        runtime: str = "",
        imaging: Imaging | None = None,
        whole: WholeSteps | None = None,
    ) -> None:
        """runtime: what the networks run on, in words. imaging, whole: on the same device, by default on the CPU."""
        self._runtime = runtime
        self._tracker = AheadTracker(tracker)
        self._settings = settings or Settings()
        imaging = imaging or CpuImaging(parser, self._settings.mask)
        self._editing = Editing(networks, imaging, directions, self._settings.switches, whole)
        self._faces = self._no_faces()
        self._likeness: FloatArray | None = None
        self._finishing = RLock()

    @classmethod
    def open(
        cls,
        bundle: str | Path = "default",
        runtime: str | Runtime = "auto",
        device: Device = "cpu",
        precision: Precision = "auto",
        lost_face: str = "hold",
        max_faces: int = 1,
        variant: str = "full",
    ) -> Self:
        """Verify a bundle, load its networks and compile them, ready for the first frame.

        bundle: a name or a folder. runtime: a name, or one that the caller brings. Raises UsageError for a policy,
        variant or number of faces that does not exist, BundleError, AssetMissing and RuntimeUnavailable.
        """
        settings = Settings(
            _named(lost_face, {policy.value: policy for policy in LostFace}, "lost-face policy"),
            max_faces,
            _named(variant, VARIANTS, "variant"),
        )
        opened = open_bundle(bundle_path(str(bundle)))
        if isinstance(runtime, str):
            chosen = select(runtime, device, precision)
        else:
            chosen = select(runtime.name, device, precision, (runtime,))
        with ThreadPoolExecutor(1) as beside:
            opening = beside.submit(Tracker.open)
            networks = open_networks(opened, chosen, device, precision)
        tracker = opening.result()
        described = chosen.describe(device, precision)
        parser = opened.manifest.parser
        imaging, whole = open_imaging(device, chosen, networks, parser, settings)
        session = cls(networks, tracker, opened.directions, parser, settings, described, imaging, whole)
        session.warm_up()
        return session

    @property
    def attributes(self) -> Mapping[str, Direction]:
        """The sliders that the bundle has, by name: each with its label and its range lo, hi."""
        return self._editing.directions

    @property
    def settings(self) -> Settings:
        """How the session was opened, with the policy that is in force now."""
        return self._settings

    @property
    def runtime(self) -> str:
        """What the networks run on, in words: the runtime with its version, device and precision."""
        return self._runtime

    def set_lost_face(self, lost_face: str) -> None:
        """Put another lost-face policy in force from the next frame on; UsageError when there is none of that name."""
        policy = _named(lost_face, {policy.value: policy for policy in LostFace}, "lost-face policy")
        self._settings = replace(self._settings, lost_face=policy)

    def set_likeness(self, likeness: FloatArray | None) -> None:
        """Add this to the refined codes of a person from the next frame on, faded in; None: nothing, faded out.

        likeness: [L, D], found by `engine.likeness`. Faces that are tracked now take it as it is; a track that begins
        later takes it where it fits (`recurrence.fitting`). Raises UsageError for another shape or numbers that are
        not finite.
        """
        imaging, shape = self._editing.imaging, self._editing.code_shape
        if likeness is not None and (likeness.shape != shape or not np.isfinite(likeness).all()):
            raise UsageError(f"the likeness is {likeness.shape}; finite numbers [{shape}] were expected")
        nobody = np.zeros(shape, np.float32)
        with imaging.at_work():
            aim = imaging.place(nobody if likeness is None else likeness.astype(np.float32))
        self._likeness = None if likeness is None else aim
        self._faces = aiming(self._faces, aim)

    def crop(self, frame: CameraFrame) -> ImageU8 | None:
        """The main face of the frame that was stepped last, aligned: uint8 RGB [S, S, 3]; None when none is followed.

        frame: that frame. Its sliders may have been at 0.
        """
        found = self._faces[0].track.face if self._faces[0].followed else None
        return None if found is None else np.ascontiguousarray(align(frame.image, found.crop_from_frame)[..., ::-1])

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """Edit the next frame; with every attribute at 0 the image of the result is the frame's own array.

        Raises UnknownAttribute for a slider that the bundle does not have. Any exception leaves the session as it was;
        `policy_frame` then gives what may be shown in the meantime.
        """
        before = self._faces
        try:
            return self.begin(frame, controls)()
        except Exception:
            self._faces = before
            raise

    def begin(self, frame: CameraFrame, controls: Controls) -> Finish:
        """Edit the next frame as far as the one after it needs: tracking and the loop of the networks.

        What is returned does the rest, from the networks' images to the frame, and may be called once, in another
        thread, while the next frame is begun. Raises what `step` raises; when finishing raises, the session goes on.
        """
        self._check(controls)
        clock = StageClock()
        faces = self._fitting(frame)
        with clock.stage("track"):
            sightings = assign(faces, self._track(faces, frame))
            clear = needs_second_look(faces, sightings) and not self._second_look(frame, sightings)
        faces = tuple(
            advance_face(
                face, sighting, controls.values, face.track.clear_frames + 1 if clear else 0, frame.captured_ns
            )
            for face, sighting in zip(faces, sightings, strict=True)
        )
        if controls.neutral:
            picture, faces = LaterPicture(lambda: frame.image, self._finishing), at_rest(faces)
        else:
            picture, faces = self._edited(frame, faces, sightings, clock)
        self._faces, phase = faces, main_phase(faces)
        return lambda: EditedFrame(frame.index, frame.captured_ns, picture(), phase, clock.read())

    def expect(self, frame: CameraFrame) -> None:
        """Follow the faces into the frame that is likely to be begun next; from any thread, while another is edited."""
        self._tracker.expect(frame)

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """What may be shown when `step` has failed on this frame: the lost-face policy's image. Changes nothing."""
        image = frame.image
        if not controls.neutral:
            image = stand_in(self._settings.lost_face, frame, self._faces[0].track.held)
        tracked = any(face.track.face is not None for face in self._faces)
        phase = Phase.HOLDING if tracked else Phase.SEARCHING
        return EditedFrame(frame.index, frame.captured_ns, image, phase, {})

    def reset(self) -> None:
        """Forget every frame so far, as for a new source."""
        self._faces = self._no_faces()

    def warm_up(self) -> None:
        """Take a few steps for every number of faces, so that no frame waits for a compiler."""
        self._editing.warm_up(self._settings.max_faces)

    def close(self) -> None:
        """Free the networks; the session must not be used afterwards."""
        self._editing.networks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _no_faces(self, frame_size: tuple[int, int] | None = None) -> Faces:
        return (Face(TrackState(frame_size=frame_size)),) * self._settings.max_faces

    def _check(self, controls: Controls) -> None:
        for name in controls.values:
            if name not in self._editing.directions:
                known = ", ".join(self._editing.directions)
                raise UnknownAttribute(f"there is no attribute {name!r} in this bundle; it has {known}")

    def _fitting(self, frame: CameraFrame) -> Faces:
        """The slots, emptied when the frame has another size than the one they were made on."""
        height, width = frame.image.shape[:2]
        if self._faces[0].track.frame_size == (height, width):
            return self._faces
        return self._no_faces((height, width))

    def _track(self, faces: Faces, frame: CameraFrame) -> tuple[FaceTrack, ...]:
        known = self._without_overtaken(faces, frame)
        return self._tracker.track(known, frame.image, frame.captured_ns, self._settings.max_faces)

    def _without_overtaken(self, faces: Faces, frame: CameraFrame) -> tuple[FaceTrack, ...]:
        """The tracks to go on with; with every slot taken, the tracker itself never looks for a larger face."""
        known = tuple(face.track.face for face in faces if face.track.face is not None)
        full = len(known) == len(faces) and all(face.followed for face in faces)
        if not full or frame.captured_ns - max(track.searched_ns for track in known) < SEARCH_INTERVAL_NS:
            return known
        dropped = overtaken(known, self._tracker.detect(frame.image, FACE_THRESHOLD))
        return tuple(replace(track, searched_ns=frame.captured_ns) for track in known if track is not dropped)

    def _second_look(self, frame: CameraFrame, sightings: Sightings) -> bool:
        """Whether a sensitive detector sees a face that nobody tracks."""
        return unaccounted(self._tracker.detect(frame.image, SECOND_LOOK_THRESHOLD), sightings)

    def _edited(
        self, frame: CameraFrame, faces: Faces, sightings: Sightings, clock: StageClock
    ) -> tuple[LaterPicture, Faces]:
        """The picture that goes out, and the slots with their new state and the frame to fall back on."""
        seen = {slot: sighting.crop_from_frame for slot, sighting in enumerate(sightings) if sighting is not None}
        hidden = exposed(faces) and self._settings.lost_face is not LostFace.PASSTHROUGH
        with self._editing.imaging.at_work():
            make, faces = self._editing.edited(frame.image, faces, seen, clock, self._likeness, at_once=not hidden)
            if hidden:
                make = partial(stand_in, self._settings.lost_face, frame, faces[0].track.held)
            picture = LaterPicture(make, self._finishing)
            if self._editing.whole is not None:
                picture()  # a card has room for one frame
        return picture, faces if hidden else holding(faces, HeldFrame(frame.captured_ns, picture.if_any))


def open_imaging(
    device: Device, runtime: Runtime, networks: Networks, parser: ParserSpec, settings: Settings
) -> tuple[Imaging, WholeSteps | None]:
    """The work on pixels on the device that the networks run on, and on a card whole steps.

    Raises RuntimeUnavailable without CuPy's compiler.
    """
    if device == "cpu":
        return CpuImaging(parser, settings.mask), None
    kernels = CudaKernels.open(stream=runtime.stream)
    return open_card(kernels, networks, parser, settings.mask, settings.switches, settings.max_faces, runtime.capture)


def _named(name: str, known: Mapping[str, Choice], what: str) -> Choice:
    """The thing of that name; raises UsageError with the names there are."""
    if name not in known:
        raise UsageError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return known[name]
