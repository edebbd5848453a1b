"""From the faces of a frame to the picture with their edits: the networks' loop for every face, and the way back.

What a face leaves to the next frame stands in its slot (`engine/faces.py`); nothing is kept here.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from engine.direction_file import Direction
from engine.directions import Reach, edit_offset, edit_reach, taken_off
from engine.errors import NotFinite
from engine.faces import Face, Faces, forgetting, looking, with_states
from engine.frames import ImageU8
from engine.geometry import CROP_SIZE, Affine, translation
from engine.imaging import Imaging, Kept, PlacedFrame
from engine.kernels.whole_step import WholeSteps
from engine.recurrence import Switches, advance, as_batch
from engine.runtimes.base import FloatArray, Networks, shape_for
from engine.state import shown_values, stack, unstack
from engine.steadying import Motion, Steady, grey_crop, motion_between, still
from engine.timing import StageClock

log = logging.getLogger(__name__)

Stepped = tuple[Faces, FloatArray, FloatArray]
"""The slots with their new state; of the faces seen, inversions and edits, both [F, 3, S, S]."""

Motions = Mapping[int, Callable[[], Motion]]
"""By slot, what tells how each face seen has moved since the slot's last edited frame; empty where nothing is held
steady."""


@dataclass(frozen=True)
class Editing:
    """What edits are made with. imaging, whole: on the device that the networks run on; whole is None on a CPU."""

    networks: Networks
    imaging: Imaging
    directions: Mapping[str, Direction]
    switches: Switches
    whole: WholeSteps | None = None

    @property
    def code_shape(self) -> tuple[int, int]:
        """(L, D) of a code."""
        _, rows, width = shape_for(self.networks.generator.spec, "ws", 1)
        return rows, width

    def edited(
        self,
        image: ImageU8,
        faces: Faces,
        seen: Mapping[int, Affine],
        clock: StageClock,
        likeness: FloatArray | None = None,
        *,
        at_once: bool = True,
    ) -> tuple[Callable[[], ImageU8], Faces]:
        """What makes the picture with the edits of the faces seen, and the slots with their new state.

        seen: by slot, where the crop of the face lies. likeness: for tracks that begin, as `advance` takes it. at_once:
        whether a card may take the whole step, the picture included. Raises NotFinite.
        """
        before, (motions, faces) = faces, self._moved(image, faces, seen, clock)
        done = self._at_once(image, faces, seen, motions, clock) if at_once else None
        if done is not None:
            return partial(_as_it_is, done[0]), done[1]
        if not seen:
            return partial(_as_it_is, image), faces
        crops_from_frame = tuple(seen.values())
        with clock.stage("align"):
            placed = self.imaging.place_frame(image)
            crops = self.imaging.align(placed, crops_from_frame)
        reach = self._with_off(self.imaging.place_reach(self._reach(faces, seen)), faces, seen, crops, clock)
        step = partial(
            self._stepped, seen=tuple(seen), crops=crops, motions=motions, clock=clock, reach=reach, likeness=likeness
        )
        faces, inversions, edits = self._sound(faces, tuple(seen), step)
        make = partial(self._blended, placed, crops, inversions, edits, reach, crops_from_frame, clock)
        return make, self._adopted(faces, before)

    def warm_up(self, most: int) -> None:
        """Take a few steps for every number of faces up to `most`, so that no frame waits for a compiler."""
        clock = StageClock()
        blank = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        for batch in range(1, most + 1):
            faces, crops_from_frame = (Face(),) * batch, (translation(0.0, 0.0),) * batch
            motions = dict.fromkeys(range(batch), still) if self.switches.steadied else {}
            with self.imaging.at_work():
                for _ in range(2):
                    placed = self.imaging.place_frame(blank)
                    crops = self.imaging.align(placed, crops_from_frame)
                    reach = self.imaging.place_reach(self._reach(faces, range(batch)))
                    faces, inversions, edits = self._stepped(faces, range(batch), crops, motions, clock, reach)
                    self._blended(placed, crops, inversions, edits, reach, crops_from_frame, clock)
                faces = self._adopted(faces, ())
                for _ in range(2 * self.switches.inverted_every):  # with either set of state
                    seen = dict(enumerate(crops_from_frame))
                    _, faces = self._at_once(blank, faces, seen, motions, clock) or (blank, faces)

    def _moved(
        self, image: ImageU8, faces: Faces, seen: Mapping[int, Affine], clock: StageClock
    ) -> tuple[Motions, Faces]:
        """What tells how the faces seen have moved, and the slots with them as the next frame's motion needs them."""
        if not self.switches.steadied:
            return {}, faces
        with clock.stage("motion"):
            greys = {slot: grey_crop(image, crop_from_frame) for slot, crop_from_frame in seen.items()}
        motions = {slot: partial(motion_between, faces[slot].grey, grey) for slot, grey in greys.items()}
        return motions, looking(faces, greys)

    def _at_once(
        self, image: ImageU8, faces: Faces, seen: Mapping[int, Affine], motions: Motions, clock: StageClock
    ) -> tuple[ImageU8, Faces] | None:
        """What `edited` gives of a frame on which all faces that have a state, and no others, are seen.

        None where the step must be taken piece by piece: on other frames, on the CPU, where something is taken off a
        face, and when the numbers that came are not finite.
        """
        states = {slot: face.recurrent for slot, face in enumerate(faces) if face.recurrent is not None}
        if self.whole is None or not seen or states.keys() != seen.keys() or any(self._taken_off(faces, seen)):
            return None
        with clock.stage("card"):
            offsets = np.stack([self._offset(faces[slot]) for slot in seen])
            moved = [motions[slot]() for slot in seen] if motions else []
            reach = self._reach(faces, seen)
            done = self.whole.step(image, tuple(seen.values()), tuple(states.values()), offsets, reach, moved)
        return done and (done[0], with_states(faces, seen, done[1]))

    def _adopted(self, faces: Faces, before: Faces) -> Faces:
        """The slots so that the next frame can be taken at once; as they are while a lost face keeps its state.

        before: the slots that the session goes back to should this step still fail.
        """
        states = {slot: face.recurrent for slot, face in enumerate(faces) if face.recurrent is not None}
        if self.whole is None or not all(faces[slot].followed for slot in states):
            return faces
        kept = [face.recurrent for face in before]
        return with_states(faces, states, self.whole.adopt(tuple(states.values()), kept))

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
        likeness: FloatArray | None = None,
    ) -> Stepped:
        """Step the loop for the slots `seen`, whose crops these are. reach: `_reach`, placed. likeness: as `edited`'s.

        Faces that take an anchor and faces that have one go through the networks as one batch each.
        """
        stepped, images = list(faces), {}
        for anchoring in (True, False):
            rows = [row for row, slot in enumerate(seen) if (faces[slot].recurrent is None) == anchoring]
            if not rows:
                continue
            before = [state for row in rows if (state := faces[seen[row]].recurrent) is not None]
            offset = self.imaging.place(np.stack([self._offset(faces[seen[row]]) for row in rows]))
            crop = as_batch([crops[row : row + 1] for row in rows]) if len(rows) < len(seen) else crops
            state, switches = stack(before) if before else None, self.switches
            moved = [motions[seen[row]] for row in rows] if motions and not anchoring else []
            steady = partial(self._steady_along, moved) if moved else None
            after, inversion, edit = advance(
                self.networks, state, crop, offset, switches, clock.stage, likeness, steady, reach.of(rows)
            )
            for place, (row, state) in enumerate(zip(rows, unstack(after), strict=True)):
                stepped[seen[row]] = replace(faces[seen[row]], recurrent=state)
                images[row] = inversion[place : place + 1], edit[place : place + 1]
        inversions, edits = (as_batch(kind) for kind in zip(*(images[row] for row in range(len(seen))), strict=True))
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
        if self.switches.residual:
            with clock.stage("restore"):
                edits = self.imaging.give_back(crops, inversions, edits, reach)
        with clock.stage("parse"):
            parser = self.networks.parser
            if self.switches.surrounded:
                edits, masks = self.imaging.cut_out(parser, crops, edits, reach)
            else:
                masks = self.imaging.masks(parser, crops, edits)
        with clock.stage("blend"):
            kept = Kept(crops, reach.reshaped, reach.outline) if self.switches.residual else None
            return self.imaging.blend(placed, edits, masks, crops_from_frame, kept)

    def _steady_along(self, motions: Sequence[Callable[[], Motion]]) -> Steady:
        return self.imaging.steady([motion() for motion in motions])

    def _reach(self, faces: Faces, seen: Iterable[int]) -> Reach:
        """Where the edit of each face seen acts."""
        return edit_reach(self.directions, (shown_values(faces[slot].track.ramp) for slot in seen), CROP_SIZE)

    def _taken_off(self, faces: Faces, seen: Iterable[int]) -> list[Mapping[str, float]]:
        """What each face seen is to take off."""
        if not self.switches.residual:
            return []
        return [taken_off(self.directions, shown_values(faces[slot].track.ramp)) for slot in seen]

    def _with_off(self, reach: Reach, faces: Faces, seen: Iterable[int], crops: FloatArray, clock: StageClock) -> Reach:
        """The reach with where things are taken off; only then the parser looks at the crops before the networks."""
        things = self._taken_off(faces, seen)
        if not any(things):
            return reach
        with clock.stage("worn"):
            return reach._replace(off=self.imaging.worn(self.networks.parser, crops, things))

    def _offset(self, face: Face) -> FloatArray:
        return edit_offset(self.directions, shown_values(face.track.ramp), self.code_shape)


def _as_it_is(image: ImageU8) -> ImageU8:
    return image


def _finite(face: Face) -> bool:
    return face.recurrent is None or face.recurrent.finite
