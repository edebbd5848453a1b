"""Faces in a whole frame: letterbox, single-shot network, anchors, weighted non-maximum suppression.

The networks are the BlazeFace family (Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile
GPUs", 2019), run by OpenVINO: ours, which ships with the program, and the published tflite file that it was trained
from. Their input is RGB in [-1, 1]; each anchor gives a logit and 16 numbers: box centre and size, then six key points,
all in input pixels relative to the anchor's centre.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.frames import ImageU8
from engine.geometry import Affine, invert_affine, transform_points
from engine.openvino_core import openvino_core

if TYPE_CHECKING:
    import openvino as ov

ANCHOR_STRIDE = 4
"""Input pixels from one anchor to the next; a detector of 192 px has one output layer, one anchor a cell."""

SAME_FACE_IOU = 0.3
"""Candidates that overlap the best one by more are the same face, and are averaged."""


@dataclass(frozen=True)
class Detection:
    """A face found in a whole frame, everything in frame pixels.

    box_px: (x0, y0, x1, y1) from brow to chin. keypoints_px: float64 [6, 2]: eye, eye, nose tip, middle of the mouth,
    ear, ear; of a pair the image's left comes first. score: in [0, 1].
    """

    box_px: tuple[float, float, float, float]
    keypoints_px: NDArray[np.float64]
    score: float


def compile_network(path: Path, threads: int) -> "ov.CompiledModel":
    """An ONNX or tflite file compiled for the CPU: float32, lowest latency, `threads` threads."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino_core()
    return core.compile_model(core.read_model(path), "CPU", settings)


class FaceDetector:
    """One detector network with its anchors; holds no state between calls."""

    def __init__(self, network: "ov.CompiledModel") -> None:
        self._request = network.create_infer_request()
        self._size = int(network.input(0).shape[1])
        self._anchors = anchor_centres(self._size)
        widths = [int(output.shape[-1]) for output in network.outputs]
        self._boxes_at, self._scores_at = widths.index(16), widths.index(1)

    @classmethod
    def open(cls, path: Path, threads: int = 2) -> "FaceDetector":
        """Read and compile a detector's file."""
        return cls(compile_network(path, threads))

    def detect(self, image_u8: ImageU8, threshold: float = 0.5) -> list[Detection]:
        """Faces with a score of at least `threshold`, best first.

        image_u8: uint8 BGR [H, W, 3] of any size and aspect.
        """
        input_from_frame = letterbox_from_frame(image_u8.shape[1], image_u8.shape[0], self._size)
        self._request.infer([network_input(image_u8, input_from_frame, self._size)])
        raw = self._request.get_output_tensor(self._boxes_at).data[0]
        logits = self._request.get_output_tensor(self._scores_at).data[0, :, 0]
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -80.0, 80.0)))
        kept = np.flatnonzero(scores >= threshold)
        candidates = decode(raw[kept], self._anchors[kept])
        faces = merge_overlapping(candidates, scores[kept])
        frame_from_input = invert_affine(input_from_frame)
        return [_detection(points, score, frame_from_input) for points, score in faces]


def letterbox_from_frame(width: int, height: int, size: int) -> Affine:
    """The transform that centres a whole frame in a `size` square at its own aspect, float64 [2, 3]."""
    scale = size / max(width, height)
    dx = (size - scale * width) / 2.0 + 0.5 * scale - 0.5
    dy = (size - scale * height) / 2.0 + 0.5 * scale - 0.5
    return np.array([[scale, 0.0, dx], [0.0, scale, dy]])


def network_input(image_u8: ImageU8, input_from_frame: Affine, size: int) -> NDArray[np.float32]:
    """The frame letterboxed to float32 RGB [1, size, size, 3] in [-1, 1]; black outside the frame."""
    height, width = image_u8.shape[:2]
    scale = input_from_frame[0, 0]
    inner = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(image_u8, inner, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    x0, y0 = (size - inner[0]) // 2, (size - inner[1]) // 2
    canvas[y0 : y0 + inner[1], x0 : x0 + inner[0]] = small
    return (canvas[None, :, :, ::-1].astype(np.float32) - 127.5) / 127.5


def anchor_centres(size: int) -> NDArray[np.float64]:
    """Anchor centres (x, y) in input pixels, in the order of the network's outputs; float64 [N, 2]."""
    y, x = np.mgrid[0 : size // ANCHOR_STRIDE, 0 : size // ANCHOR_STRIDE]
    return (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * ANCHOR_STRIDE


def decode(raw: NDArray[np.float32], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Network output [N, 16] -> points [N, 8, 2]: two box corners, then six key points, in input pixels.

    The network's coordinates have the image's area from 0 to its size; ours have it from -0.5.
    """
    numbers = raw.astype(np.float64).reshape(-1, 8, 2)
    centre = numbers[:, 0] + anchors
    half = numbers[:, 1] / 2.0
    keypoints = numbers[:, 2:] + anchors[:, None]
    return np.concatenate([(centre - half)[:, None], (centre + half)[:, None], keypoints], axis=1) - 0.5


def merge_overlapping(
    points: NDArray[np.float64], scores: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], float]]:
    """Weighted non-maximum suppression: each face is the score-weighted mean of the candidates that overlap its best.

    points: [N, 8, 2] as from `decode`. scores: [N]. Returns (points [8, 2], best score), best first.
    """
    order = np.argsort(-scores, kind="stable")
    faces = []
    while order.size:
        overlap = box_iou(points[order[0], :2].ravel(), points[order, :2].reshape(-1, 4))
        same = overlap > SAME_FACE_IOU
        same[0] = True
        group = order[same]
        weights = scores[group] / scores[group].sum()
        faces.append((np.tensordot(weights, points[group], axes=1), float(scores[order[0]])))
        order = order[~same]
    return faces


def box_iou(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of one box [4] with boxes [N, 4], each (x0, y0, x1, y1); float64 [N]."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=1)
    area = np.prod(np.clip(box[2:] - box[:2], 0.0, None))
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=1)
    return np.asarray(shared / np.maximum(area + areas - shared, 1e-9))


def _detection(points: NDArray[np.float64], score: float, frame_from_input: Affine) -> Detection:
    frame = transform_points(frame_from_input, points)
    box = (float(frame[0, 0]), float(frame[0, 1]), float(frame[1, 0]), float(frame[1, 1]))
    return Detection(box, frame[2:], score)
