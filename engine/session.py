"""One camera frame in, one edited frame out."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from engine.directions import Reach, edit_offset, edit_reach, taken_off
from engine.errors import NotFinite, UnknownAttribute, UsageError
from engine.faces import (
    Face,
    Faces,
    Sightings,
    advance_face,
    aiming,
    assign,
    at_rest,
    exposed,
    forgetting,
    holding,
    looking,
    main_phase,
    needs_second_look,
    overtaken,
    unaccounted,
    with_states,
)
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase
from engine.geometry import CROP_SIZE, Affine, align, translation
from engine.imaging import CpuImaging, Imaging, Kept, PlacedFrame
from engine.kernels.load import CudaKernels
from engine.kernels.whole_step import WholeSteps, open_card
from engine.later import LaterPicture
from engine.masks import MaskShape
from engine.policies import LostFace, stand_in
from engine.recurrence import FULL, VARIANTS, Switches, advance
from engine.runtimes.base import Device, FloatArray, Networks, Precision, Runtime, shape_for
from engine.runtimes.select import open_networks, select
from engine.state import HeldFrame, TrackState, shown_values, stack, unstack
from engine.steadying import Motion, Steady, grey_crop, motion_between, still
from engine.timing import StageClock
from engine.tracking import SEARCH_INTERVAL_NS, FaceTrack, Tracker

log = logging.getLogger(__name__)

Choice = TypeVar("Choice")

FACE_THRESHOLD = 0.5
"""The detector's score from which something is a face."""

SECOND_LOOK_THRESHOLD = 0.2
"""The detector's score from which a face that nobody tracks keeps the policy in force."""


Stepped = tuple[Faces, FloatArray, FloatArray]
"""The slots with their new state; of the faces seen, inversions and edits, both [F, 3, S, S]."""

Motions = Mapping[int, Callable[[], Motion]]
"""By slot, what tells how each face seen has moved since the slot's last edited frame; empty where nothing is held
steady."""

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
        self._networks = networks
        self._tracker = AheadTracker(tracker)
        self._directions = directions
        self._settings = settings or Settings()
        self._imaging = imaging or CpuImaging(parser, self._settings.mask)
        self._whole = whole
        _, *code = shape_for(networks.generator.spec, "ws", 1)
        self._code_shape = (code[0], code[1])
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

    def set_likeness(self, likeness: FloatArray | None) -> None:
        """Add this to the refined codes of a person from the next frame on, faded in; None: nothing, faded out.

        likeness: [L, D], found by `engine.likeness`. Faces that are tracked now take it as it is; a track that begins
        later takes it where it fits (`recurrence.fitting`). Raises UsageError for another shape or numbers that are
        not finite.
        """
        if likeness is not None and (likeness.shape != self._code_shape or not np.isfinite(likeness).all()):
            raise UsageError(f"the likeness is {likeness.shape}; finite numbers [{self._code_shape}] were expected")
        nobody = np.zeros(self._code_shape, np.float32)
        with self._imaging.at_work():
            aim = self._imaging.place(nobody if likeness is None else likeness.astype(np.float32))
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
            with self._imaging.at_work():
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
        """Take two steps for every number of faces, so that no frame waits for a compiler."""
        clock = StageClock()
        blank = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        for batch in range(1, self._settings.max_faces + 1):
            faces, crops_from_frame = (Face(),) * batch, (translation(0.0, 0.0),) * batch
            motions = dict.fromkeys(range(batch), still) if self._settings.switches.steadied else {}
            with self._imaging.at_work():
                for _ in range(2):
                    placed = self._imaging.place_frame(blank)
                    crops = self._imaging.align(placed, crops_from_frame)
                    reach = self._imaging.place_reach(self._reach(faces, range(batch)))
                    faces, inversions, edits = self._stepped(faces, range(batch), crops, motions, clock, reach)
                    self._blended(placed, crops, inversions, edits, reach, crops_from_frame, clock)
                faces = self._adopted(faces, ())
                for _ in range(2):
                    seen = dict(enumerate(crops_from_frame))
                    _, faces = self._at_once(blank, faces, seen, motions, clock) or (blank, faces)

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

    def _edited(
        self, frame: CameraFrame, faces: Faces, sightings: Sightings, clock: StageClock
    ) -> tuple[LaterPicture, Faces]:
        """The picture that goes out, and the slots with their new state and the frame to fall back on."""
        image, before = frame.image, faces
        seen = {slot: sighting.crop_from_frame for slot, sighting in enumerate(sightings) if sighting is not None}
        motions, faces = self._moved(image, faces, seen, clock)
        hidden = exposed(faces) and self._settings.lost_face is not LostFace.PASSTHROUGH
        done = None if hidden else self._at_once(image, faces, seen, motions, clock)
        make = partial(_as_it_is, image if done is None else done[0])
        if done is not None:
            faces = done[1]
        elif seen:
            crops_from_frame = tuple(seen.values())
            with clock.stage("align"):
                placed = self._imaging.place_frame(image)
                crops = self._imaging.align(placed, crops_from_frame)
            reach = self._with_off(self._imaging.place_reach(self._reach(faces, seen)), faces, seen, crops, clock)
            step = partial(self._stepped, seen=tuple(seen), crops=crops, motions=motions, clock=clock, reach=reach)
            faces, inversions, edits = self._sound(faces, tuple(seen), step)
            faces = self._adopted(faces, before)
            make = partial(self._blended, placed, crops, inversions, edits, reach, crops_from_frame, clock)
        if hidden:
            make = partial(stand_in, self._settings.lost_face, frame, faces[0].track.held)
        picture = LaterPicture(make, self._finishing)
        if self._whole is not None:
            picture()  # a card has room for one frame
        return picture, faces if hidden else holding(faces, HeldFrame(frame.captured_ns, picture.if_any))

    def _moved(
        self, image: ImageU8, faces: Faces, seen: Mapping[int, Affine], clock: StageClock
    ) -> tuple[Motions, Faces]:
        """What tells how the faces seen have moved, and the slots with them as the next frame's motion needs them."""
        if not self._settings.switches.steadied:
            return {}, faces
        with clock.stage("motion"):
            greys = {slot: grey_crop(image, crop_from_frame) for slot, crop_from_frame in seen.items()}
        motions = {slot: partial(motion_between, faces[slot].grey, grey) for slot, grey in greys.items()}
        return motions, looking(faces, greys)

    def _at_once(
        self, image: ImageU8, faces: Faces, seen: Mapping[int, Affine], motions: Motions, clock: StageClock
    ) -> tuple[ImageU8, Faces] | None:
        """What `_edited` gives of a frame on which all faces that have a state, and no others, are seen.

        None where the step must be taken piece by piece: on other frames, on the CPU, where something is taken off a
        face, and when the numbers that came are not finite.
        """
        states = {slot: face.recurrent for slot, face in enumerate(faces) if face.recurrent is not None}
        if self._whole is None or not seen or states.keys() != seen.keys() or any(self._taken_off(faces, seen)):
            return None
        with clock.stage("card"):
            offsets = np.stack([self._offset(faces[slot]) for slot in seen])
            moved = [motions[slot]() for slot in seen] if motions else []
            reach = self._reach(faces, seen)
            done = self._whole.step(image, tuple(seen.values()), tuple(states.values()), offsets, reach, moved)
        return done and (done[0], with_states(faces, seen, done[1]))

    def _adopted(self, faces: Faces, before: Faces) -> Faces:
        """The slots so that the next frame can be taken at once; as they are while a lost face keeps its state.

        before: the slots that the session goes back to should this step still fail.
        """
        states = {slot: face.recurrent for slot, face in enumerate(faces) if face.recurrent is not None}
        if self._whole is None or not all(faces[slot].followed for slot in states):
            return faces
        kept = [face.recurrent for face in before]
        return with_states(faces, states, self._whole.adopt(tuple(states.values()), kept))

    def _sound(self, faces: Faces, seen: Sequence[int], step: Callable[[Faces], Stepped]) -> Stepped:
        """What `step` gives; a face whose new state is not finite takes a new anchor on this very frame.

        Half precision can overflow in a frame that is like none in training; without this, every later frame would
        inherit it.
        """
        stepped = step(faces)
        broken = [slot for slot in seen if not _finite(stepped[0][slot])]
        if broken:
            log.warning("the networks gave numbers that are not finite; %d of the faces start anew", len(broken))
            stepped = step(forgetting(faces, broken))
            if not all(_finite(stepped[0][slot]) for slot in seen):
                raise NotFinite("the networks give numbers that are not finite for this face; try --precision fp32")
        return stepped

    def _stepped(
        self,
        faces: Faces,
        seen: Sequence[int],
        crops: FloatArray,
        motions: Motions,
        clock: StageClock,
        reach: Reach,
    ) -> Stepped:
        """Step the loop for the slots `seen`, whose crops these are. reach: `_reach`, placed.

        Faces that take an anchor and faces that have one go through the networks as one batch each.
        """
        stepped, images = list(faces), {}
        for anchoring in (True, False):
            rows = [row for row, slot in enumerate(seen) if (faces[slot].recurrent is None) == anchoring]
            if not rows:
                continue
            before = [state for row in rows if (state := faces[seen[row]].recurrent) is not None]
            offset = self._imaging.place(np.stack([self._offset(faces[seen[row]]) for row in rows]))
            crop = _batch([crops[row : row + 1] for row in rows]) if len(rows) < len(seen) else crops
            state, switches = stack(before) if before else None, self._settings.switches
            moved = [motions[seen[row]] for row in rows] if motions and not anchoring else []
            steady = partial(self._steady_along, moved) if moved else None
            after, inversion, edit = advance(
                self._networks, state, crop, offset, switches, clock.stage, self._likeness, steady, reach.of(rows)
            )
            for place, (row, state) in enumerate(zip(rows, unstack(after), strict=True)):
                stepped[seen[row]] = replace(faces[seen[row]], recurrent=state)
                images[row] = inversion[place : place + 1], edit[place : place + 1]
        inversions, edits = (_batch(kind) for kind in zip(*(images[row] for row in range(len(seen))), strict=True))
        return tuple(stepped), inversions, edits

    def _blended(
        self,
        placed: PlacedFrame,
        crops: FloatArray,
        inversions: FloatArray,
        edits: FloatArray,
        reach: Reach,
        crops_from_frame: Sequence[Affine],
        clock: StageClock,
    ) -> ImageU8:
        """From the networks' images of the faces to the frame that is shown. reach: `_reach`, placed."""
        if self._settings.switches.residual:
            with clock.stage("restore"):
                edits = self._imaging.give_back(crops, inversions, edits, reach)
        with clock.stage("parse"):
            parser = self._networks.parser
            if self._settings.switches.surrounded:
                edits, masks = self._imaging.cut_out(parser, crops, edits, reach)
            else:
                masks = self._imaging.masks(parser, crops, edits)
        with clock.stage("blend"):
            kept = Kept(crops, reach.reshaped) if self._settings.switches.residual else None
            return self._imaging.blend(placed, edits, masks, crops_from_frame, kept)

    def _steady_along(self, motions: Sequence[Callable[[], Motion]]) -> Steady:
        return self._imaging.steady([motion() for motion in motions])

    def _reach(self, faces: Faces, seen: Iterable[int]) -> Reach:
        """Where the edit of each face seen acts."""
        return edit_reach(self._directions, (shown_values(faces[slot].track.ramp) for slot in seen), CROP_SIZE)

    def _taken_off(self, faces: Faces, seen: Iterable[int]) -> list[Mapping[str, float]]:
        """What each face seen is to take off."""
        if not self._settings.switches.residual:
            return []
        return [taken_off(self._directions, shown_values(faces[slot].track.ramp)) for slot in seen]

    def _with_off(self, reach: Reach, faces: Faces, seen: Iterable[int], crops: FloatArray, clock: StageClock) -> Reach:
        """The reach with where things are taken off; only then the parser looks at the crops before the networks."""
        things = self._taken_off(faces, seen)
        if not any(things):
            return reach
        with clock.stage("worn"):
            return reach._replace(off=self._imaging.worn(self._networks.parser, crops, things))

    def _offset(self, face: Face) -> FloatArray:
        return edit_offset(self._directions, shown_values(face.track.ramp), self._code_shape)


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


def _as_it_is(image: ImageU8) -> ImageU8:
    return image


def _finite(face: Face) -> bool:
    return face.recurrent is None or face.recurrent.finite


def _batch(arrays: Sequence[FloatArray]) -> FloatArray:
    """Arrays of batch one as one batch; one alone is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _named(name: str, known: Mapping[str, Choice], what: str) -> Choice:
    """The thing of that name; raises UsageError with the names there are."""
    if name not in known:
        raise UsageError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return known[name]
