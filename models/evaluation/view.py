"""The part of a clip's frames around the face, in which WE_frame is measured.

One fixed rectangle holds the face of every frame, so that motion in it is the video's own; what the loop drew is pasted
into it as the program would, O_t = B(UA(O_t^a), I_t, M) (Eq. 6), with the tracker's crop of each frame. So, unlike the
warp error on crops, this one sees a tracker that jitters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.compositing import Patch, blend
from engine.geometry import CROP_SIZE, Affine, Rectangle, compose, face_rectangle_px, invert_affine, warp
from engine.masks import MaskShape, face_mask, parse_faces
from models.evaluation.clips import AlignedClip, read_frames
from models.evaluation.rollout import LoadedBundle
from models.pictures import Pictures, images_from

LONGEST_SIDE_PX = 320
"""A larger rectangle is scaled down to it: the flow's time grows with its area."""


@dataclass(frozen=True)
class FaceView:
    """Frames around the face.

    frames: uint8 BGR [T, h, w, 3], as the blend takes them. crop_from_view: the crop of each. faces: the rectangle of
    each that its crop touches, 1 inside, float32 [T, h, w]. masks: M of Eq. 6 in crop pixels, float32 [T, 256, 256].
    """

    frames: Pictures
    crop_from_view: tuple[Affine, ...]
    faces: NDArray[np.float32]
    masks: Sequence[NDArray[np.float32]]

    @property
    def rgb(self) -> Pictures:
        """The frames as RGB pictures."""
        return self.frames[..., ::-1]

    def with_crops(self, crops: Pictures) -> Pictures:
        """RGB frames with a picture pasted over the face of each; crops: uint8 RGB [T, 256, 256, 3]."""
        pasted = [
            blend(frame, [Patch(images_from(crop[None])[0], mask, crop_from_view)])
            for frame, crop, mask, crop_from_view in zip(
                self.frames, crops, self.masks, self.crop_from_view, strict=True
            )
        ]
        return np.stack(pasted)[..., ::-1]

    def without_first(self) -> "FaceView":
        """The view from its second frame on."""
        return FaceView(self.frames[1:], self.crop_from_view[1:], self.faces[1:], self.masks[1:])


def take_view(path: Path, clip: AlignedClip, loaded: LoadedBundle) -> FaceView:
    """The face rectangle of every frame of an aligned clip, which lies at `path`; the masks are the bundle's parser's.

    The file is read a second time, because only the last frame tells how far the face went.
    """
    frames = (frame.image for frame in read_frames(path, clip.first_frame + len(clip.crops)))
    images = islice(frames, clip.first_frame, None)
    seen: list[NDArray[np.uint8]] = []
    view_from_frame: Affine | None = None
    for image in images:
        if view_from_frame is None:
            view_from_frame, size = _view_of(clip.crop_from_frame, (image.shape[1], image.shape[0]))
        seen.append(np.asarray(warp(image, view_from_frame, size), dtype=np.uint8))
    assert view_from_frame is not None
    frame_from_view = invert_affine(view_from_frame)
    crop_from_view = tuple(compose(crop_from_frame, frame_from_view) for crop_from_frame in clip.crop_from_frame)
    faces = np.zeros((len(seen), size[1], size[0]), np.float32)
    for face, transform in zip(faces, crop_from_view, strict=True):
        x0, y0, x1, y1 = face_rectangle_px(transform, size)
        face[y0:y1, x0:x1] = 1.0
    parser, parts = loaded.networks.parser, loaded.bundle.manifest.parser
    images_of = (images_from(crop[None]) for crop in clip.crops)
    parses = (parse_faces(parser, parts, image, image)[0] for image in images_of)
    masks = [face_mask(parse, CROP_SIZE, MaskShape()) for parse in parses]
    return FaceView(np.stack(seen), crop_from_view, faces, masks)


def _view_of(crops: Sequence[Affine], frame_size: tuple[int, int]) -> tuple[Affine, tuple[int, int]]:
    """`view_from_frame` and the view's size for the rectangle that holds the face of every frame."""
    x0, y0, x1, y1 = _union([face_rectangle_px(crop_from_frame, frame_size) for crop_from_frame in crops])
    scale = min(1.0, LONGEST_SIDE_PX / max(x1 - x0, y1 - y0))
    # The rectangle's area begins half a pixel before its first pixel's centre, and so does the view's.
    offset_x, offset_y = scale * (0.5 - x0) - 0.5, scale * (0.5 - y0) - 0.5
    size = (max(round(scale * (x1 - x0)), 1), max(round(scale * (y1 - y0)), 1))
    return np.array([[scale, 0.0, offset_x], [0.0, scale, offset_y]]), size


def _union(rectangles: Sequence[Rectangle]) -> Rectangle:
    sides = np.array(rectangles)
    (x0, y0), (x1, y1) = sides[:, :2].min(axis=0), sides[:, 2:].max(axis=0)
    return int(x0), int(y0), int(x1), int(y1)
