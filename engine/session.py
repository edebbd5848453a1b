"""One camera frame in, one edited frame out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import numpy as np

from engine.assets import asset_path
from engine.bundle import Direction, ParserSpec, open_bundle
from engine.bundle_build import bundle_path
from engine.compositing import MaskShape, Patch, blend, face_masks, give_back, image_from_u8
from engine.detection import Detection
from engine.directions import edit_offset
from engine.errors import UnknownAttribute, UsageError
from engine.faces import (
    Face,
    Faces,
    Sightings,
    advance_face,
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
from engine.geometry import CROP_SIZE, align
from engine.policies import LostFace, stand_in
from engine.recurrence import FULL, VARIANTS, Switches, advance
from engine.runtimes.base import Device, FloatArray, Networks, Precision, Runtime, shape_for
from engine.runtimes.select import open_networks, select
from engine.state import HeldFrame, TrackState, shown_values, stack, unstack
from engine.timing import StageClock
from engine.tracking import SEARCH_INTERVAL_NS, FaceTrack, Tracker

Choice = TypeVar("Choice")

FACE_THRESHOLD = 0.5
"""The detector's score from which something is a face."""

SECOND_LOOK_THRESHOLD = 0.2
"""The detector's score from which a face that nobody tracks keeps the policy in force."""


class FaceTracker(Protocol):
    """What a session needs of `engine.tracking.Tracker`."""

    def detect(self, image_u8: ImageU8, threshold: float) -> Sequence[Detection]:
        """Faces with a score of at least `threshold`."""
        ...

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        """The tracks of the frame before, on this frame; up to `wanted`, new ones included."""
        ...


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

    What a frame leaves to the next is one tuple of frozen records, swapped at the end of `step`: a step that raises
    leaves the session as it was.
    """

    def __init__(
        self,
        networks: Networks,
        tracker: FaceTracker,
        directions: Mapping[str, Direction],
        parser: ParserSpec,
        settings: Settings | None = None,
        runtime: str = "",
    ) -> None:
        """runtime: what the networks run on, in words."""
        self._runtime = runtime
        self._networks = networks
        self._tracker = tracker
        self._directions = directions
        self._parser = parser
        self._settings = settings or Settings()
        _, *code = shape_for(networks.generator.spec, "ws", 1)
        self._code_shape = (code[0], code[1])
        self._faces = self._no_faces()

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
        tracker = Tracker.open(asset_path("face_detector_full"), asset_path("face_mesh"))
        networks = open_networks(opened, chosen, device, precision)
        described = chosen.describe(device, precision)
        session = cls(networks, tracker, opened.directions, opened.manifest.parser, settings, described)
        session.warm_up()
        return session

    @property
    def attributes(self) -> Mapping[str, Direction]:
        """The sliders that the bundle has, by name: each with its label and its range lo, hi."""
        return self._directions

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

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """Edit the next frame; with every attribute at 0 the image of the result is the frame's own array.

        Raises UnknownAttribute for a slider that the bundle does not have. Any exception leaves the session as it was;
        `policy_frame` then gives what may be shown in the meantime.
        """
        self._check(controls)
        clock = StageClock()
        faces = self._fitting(frame)
        with clock.stage("track"):
            sightings = assign(faces, self._track(faces, frame))
            clear = needs_second_look(faces, sightings) and not self._second_look(frame, sightings)
        crops: tuple[FloatArray | None, ...] = (None,) * len(faces)
        if not controls.neutral:
            with clock.stage("align"):
                crops = tuple(None if s is None else _aligned(frame.image, s) for s in sightings)
        faces = tuple(
            advance_face(
                face, sighting, controls.values, face.track.clear_frames + 1 if clear else 0, frame.captured_ns
            )
            for face, sighting in zip(faces, sightings, strict=True)
        )
        if controls.neutral:
            image, faces = frame.image, at_rest(faces)
        else:
            faces, edits = self._edit(faces, crops, clock)
            image, faces = self._shown(frame, faces, sightings, crops, edits, clock)
        self._faces = faces
        return EditedFrame(frame.index, frame.captured_ns, image, main_phase(faces), clock.read())

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
        """Run the networks once for every number of faces, so that no frame waits for a compiler."""
        size = CROP_SIZE
        for batch in range(1, self._settings.max_faces + 1):
            crop = np.zeros((batch, 3, size, size), np.float32)
            offset = np.zeros((batch, *self._code_shape), np.float32)
            state, _, edit = advance(self._networks, None, crop, offset, self._settings.switches)
            advance(self._networks, state, crop, offset, self._settings.switches)
            face_masks(self._networks.parser, self._parser, crop, edit, self._settings.mask)

    def close(self) -> None:
        """Free the networks; the session must not be used afterwards."""
        self._networks.close()

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
            if name not in self._directions:
                known = ", ".join(self._directions)
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

    def _edit(
        self, faces: Faces, crops: Sequence[FloatArray | None], clock: StageClock
    ) -> tuple[Faces, dict[int, FloatArray]]:
        """Step the loop for every face with a crop: the slots with their new state, and the images to show [3, S, S].

        Faces that take an anchor and faces that have one go through the networks as one batch each.
        """
        stepped, edits = list(faces), {}
        for anchoring in (True, False):
            slots = [
                slot
                for slot, (face, crop) in enumerate(zip(faces, crops, strict=True))
                if crop is not None and (face.recurrent is None) == anchoring
            ]
            if not slots:
                continue
            before = [state for slot in slots if (state := faces[slot].recurrent) is not None]
            offset = np.stack([self._offset(faces[slot]) for slot in slots])
            crop = _batch([crop for slot in slots if (crop := crops[slot]) is not None])
            after, inversion, edit = advance(
                self._networks, stack(before) if before else None, crop, offset, self._settings.switches, clock.stage
            )
            for row, (slot, state) in enumerate(zip(slots, unstack(after), strict=True)):
                stepped[slot] = replace(faces[slot], recurrent=state)
                edits[slot] = edit[row]
                if self._settings.switches.residual:
                    with clock.stage("restore"):
                        edits[slot] = give_back(crop[row], inversion[row], edit[row])
        return tuple(stepped), edits

    def _offset(self, face: Face) -> FloatArray:
        return edit_offset(self._directions, shown_values(face.track.ramp), self._code_shape)

    def _shown(
        self,
        frame: CameraFrame,
        faces: Faces,
        sightings: Sightings,
        crops: Sequence[FloatArray | None],
        edits: Mapping[int, FloatArray],
        clock: StageClock,
    ) -> tuple[ImageU8, Faces]:
        """The image that goes out, and the slots with the frame to fall back on."""
        if exposed(faces) and self._settings.lost_face is not LostFace.PASSTHROUGH:
            return stand_in(self._settings.lost_face, frame, faces[0].track.held), faces
        image = frame.image
        if edits:
            with clock.stage("parse"):
                patches = self._patches(sightings, crops, edits)
            with clock.stage("blend"):
                image = blend(image, patches)
        return image, holding(faces, HeldFrame(frame.captured_ns, image))

    def _patches(
        self, sightings: Sightings, crops: Sequence[FloatArray | None], edits: Mapping[int, FloatArray]
    ) -> list[Patch]:
        slots = list(edits)
        masks = face_masks(
            self._networks.parser,
            self._parser,
            _batch([crop for slot in slots if (crop := crops[slot]) is not None]),
            _batch([edits[slot][None] for slot in slots]),
            self._settings.mask,
        )
        tracks = [sighting for slot in slots if (sighting := sightings[slot]) is not None]
        return [
            Patch(edits[slot], mask, track.crop_from_frame)
            for slot, mask, track in zip(slots, masks, tracks, strict=True)
        ]


def _aligned(image_u8: ImageU8, sighting: FaceTrack) -> FloatArray:
    """I_t^a, RGB [-1, 1] [1, 3, S, S]."""
    return image_from_u8(align(image_u8, sighting.crop_from_frame))


def _batch(arrays: Sequence[FloatArray]) -> FloatArray:
    """Arrays of batch one as one batch; one alone is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _named(name: str, known: Mapping[str, Choice], what: str) -> Choice:
    """The thing of that name; raises UsageError with the names there are."""
    if name not in known:
        raise UsageError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return known[name]
