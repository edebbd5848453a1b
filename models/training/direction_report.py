"""Pictures of what the sliders do: the response and leakage matrix, and a sheet of synthetic faces."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.training.direction_measure import Bench, Effect, laid_over, render_crops

_TILE_PX = 112
_LABEL_PX = 92
_JPEG_QUALITY = 88


def draw_response(path: Path, effects: Mapping[str, tuple[Effect, Effect]], scores: Sequence[str]) -> None:
    """A heat map: a row for each slider at -1 and at +1, a column a score, in standard deviations."""
    values = np.array([effect.change for pair in effects.values() for effect in pair])
    figure = Figure(figsize=(0.55 * len(scores) + 2.5, 0.3 * len(values) + 2.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap=matplotlib.colormaps["RdBu_r"], vmin=-3, vmax=3, aspect="auto")
    axes.set_xticks(range(len(scores)), scores, rotation=60, ha="right")
    axes.set_yticks(range(len(values)), [f"{name} {end}" for name in effects for end in ("-1", "+1")])
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        colour = "white" if abs(value) > 1.8 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_title("Mean change of each score (standard deviations) on unseen synthetic faces")
    figure.colorbar(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_sheet(
    path: Path,
    bench: Bench,
    ws: NDArray[np.float32],
    sliders: Mapping[str, tuple[Callable[[float], NDArray[np.float64]], NDArray[np.float32]]],
) -> None:
    """Each slider at -1, 0 and +1 on every code of `ws` [N, L, D], one slider a line.

    sliders: the offset for a value, and how much of what it does is seen, [0, 1] [256, 256].
    """
    lines, still = [], render_crops(bench.render, ws)
    for name, (offset, seen) in sliders.items():
        back, forth = (
            laid_over(still, render_crops(bench.render, ws + offset(value).astype(np.float32)), seen)
            for value in (-1.0, 1.0)
        )
        crops = np.stack([back, still, forth], axis=1).reshape(-1, *still.shape[1:])
        small = [cv2.resize(crop, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_AREA) for crop in crops]
        lines.append(np.hstack([_label(name), *small]))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def _label(name: str) -> NDArray[np.uint8]:
    tile = np.full((_TILE_PX, _LABEL_PX, 3), 255, dtype=np.uint8)
    cv2.putText(tile, name, (3, _TILE_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
