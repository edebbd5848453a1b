"""Runs the recurrent loop over aligned crops and keeps what it draws, as 8-bit pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.bundle import Bundle
from engine.directions import Reach, edit_offset, edit_reach, taken_off
from engine.geometry import translation
from engine.imaging import CpuImaging
from engine.masks import MaskShape
from engine.recurrence import Switches, advance
from engine.runtimes.base import Networks
from engine.steadying import Steady, grey_crop, motion_between, steadied
from models.pictures import Images, Pictures, images_from, pictures_from


@dataclass(frozen=True)
class Rollout:
    """O_t^a and E_t^a of every crop; of the first one the anchor's, which follow another rule (Eqs. 1-5).

    shown: what the viewer sees of the edits: with what the inversions lost given back, and, if the variant does that,
    with the surroundings where they have less of a face, laid over the crops by the mask that goes with that.
    """

    inversions: Pictures
    edits: Pictures
    shown: Pictures


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle with its networks open."""

    label: str
    bundle: Bundle
    networks: Networks

    def offset(self, values: Mapping[str, float]) -> NDArray[np.float32]:
        """n of Eq. 5 for slider values, [1, L, D]."""
        manifest = self.bundle.manifest
        return edit_offset(self.bundle.directions, values, (manifest.latent_rows, manifest.latent_dim))[None]

    @property
    def imaging(self) -> CpuImaging:
        """The work on pixels."""
        return CpuImaging(self.bundle.manifest.parser, MaskShape())

    def reach(self, crops: Images, values: Mapping[str, float], switches: Switches) -> Reach:
        """Where in these crops the edit with slider values acts."""
        reach = edit_reach(self.bundle.directions, [values] * len(crops), crops.shape[-1])
        things = taken_off(self.bundle.directions, values) if switches.residual else {}
        if not things:
            return reach
        return reach._replace(off=self.imaging.worn(self.networks.parser, crops, [things] * len(crops)))

    def shown(self, crops: Images, inversions: Images, edits: Images, reach: Reach, switches: Switches) -> Images:
        """What the viewer sees of the edits, in the crops' place."""
        if switches.residual:
            edits = self.imaging.give_back(crops, inversions, edits, reach)
        if not switches.surrounded:
            return edits
        images, masks = self.imaging.cut_out(self.networks.parser, crops, edits, reach)
        return crops + masks[:, None] * (images - crops)


def roll_clip(
    loaded: LoadedBundle,
    crops: Pictures,
    values: Mapping[str, float],
    switches: Switches,
    likeness: NDArray[np.float32] | None = None,
) -> Rollout:
    """The loop over consecutive frames of one face. likeness: the person's [L, D], from the first frame on."""
    offset, state = loaded.offset(values), None
    inversions, edits, shown = (np.empty_like(crops) for _ in range(3))
    for t in range(len(crops)):
        crop, steady = images_from(crops[t : t + 1]), None
        if switches.steadied and t:
            steady = partial(_steady_between, crops[t - 1 : t], crops[t : t + 1])
        reach = loaded.reach(crop, values, switches)
        state, inversion, edit = advance(
            loaded.networks, state, crop, offset, switches, likeness=likeness, steady=steady, reach=reach
        )
        inversions[t], edits[t] = pictures_from(inversion)[0], pictures_from(edit)[0]
        shown[t] = pictures_from(loaded.shown(crop, inversion, edit, reach, switches))[0]
    return Rollout(inversions, edits, shown)


def settle_stills(
    loaded: LoadedBundle, crops: Pictures, values: Mapping[str, float], switches: Switches, steps: int, batch: int = 8
) -> Rollout:
    """Each still shown to the loop for `steps` frames, several stills as one batch; what the last frame drew."""
    offset = loaded.offset(values)
    inversions, edits, shown = (np.empty_like(crops) for _ in range(3))
    for start in range(0, len(crops), batch):
        part, state = slice(start, start + batch), None
        images = images_from(crops[part])
        offsets = np.repeat(offset, len(images), axis=0)
        steady = partial(_steady_between, crops[part], crops[part]) if switches.steadied else None
        reach = loaded.reach(images, values, switches)
        for _ in range(steps):
            state, inversion, edit = advance(
                loaded.networks, state, images, offsets, switches, steady=steady, reach=reach
            )
        inversions[part], edits[part] = pictures_from(inversion), pictures_from(edit)
        shown[part] = pictures_from(loaded.shown(images, inversion, edit, reach, switches))
    return Rollout(inversions, edits, shown)


def _steady_between(before: Pictures, now: Pictures) -> Steady:
    """What holds pictures of so many faces steady from their crops before to those of now."""
    greys = [[grey_crop(crop[..., ::-1], translation(0.0, 0.0)) for crop in crops] for crops in (before, now)]
    return partial(steadied, motions=[motion_between(*face) for face in zip(*greys, strict=True)])


def face_masks(loaded: LoadedBundle, crops: Pictures) -> NDArray[np.float32]:
    """Where the bundle's parser sees the face: 1 on its face classes and 0 elsewhere, float32 [T, 256, 256]."""
    parts = loaded.bundle.manifest.parser
    in_face = np.array([name in parts.face_classes for name in parts.classes])
    masks = []
    for crop in crops:
        logits = loaded.networks.parser(crop=images_from(crop[None]))["logits"][0]
        repeat = crop.shape[0] // logits.shape[-1]
        masks.append(in_face[logits.argmax(axis=0)].repeat(repeat, axis=0).repeat(repeat, axis=1))
    return np.array(masks, dtype=np.float32)
