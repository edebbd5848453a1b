"""The synthetic person of the demo source: `python -m export.demo_clip` renders `app/demo.mp4`.

One code of the published 1024 px generator, moved along the bundle's own directions: the head turns, blinks, talks and
smiles. Nobody in it exists.
"""

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from engine.bundle_build import recipe_folder
from engine.openvino_core import openvino_core
from models.mobile_stylegan import TEACHER_1024
from models.training.samples import CodeSampler, openvino_teacher

FPS = 25
SECONDS = 6.0
WIDTH, HEIGHT = 1280, 720
SIZE = 660
OUT = Path(__file__).parents[1] / "app" / "demo.mp4"
IDENTITY_SEED = 86

Image = NDArray[np.uint8]


def pose_at(t_s: float) -> dict[str, float]:
    """Slider values over time: a slow turn, a blink about every two seconds, speech in two bursts, then a smile."""
    speaking = 1.0 if 0.6 < t_s < 2.6 or 3.4 < t_s < 4.6 else 0.0
    syllables = max(0.0, np.sin(2 * np.pi * 3.1 * t_s)) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * t_s))
    blink = max(np.exp(-(((t_s - b) / 0.07) ** 2)) for b in (0.5, 2.4, 4.3, 5.4))
    return {
        "yaw": 0.6 * np.sin(2 * np.pi * t_s / SECONDS),
        "mouth_open": 0.5 * speaking * syllables,
        "eyes_open": -float(blink),
        "smile": 0.5 * float(np.clip((t_s - 4.4) / 0.6, 0, 1) * np.clip((SECONDS - t_s) / 0.4, 0, 1)),
    }


def codes_over_time(identity_seed: int) -> NDArray[np.float32]:
    """W+ codes of every frame, [N, 16, 512]; a direction's last row goes to every row above the bundle's."""
    code = CodeSampler.open().draw(1, torch.Generator().manual_seed(identity_seed), psi=(0.6, 0.6))[0].numpy()
    rows = TEACHER_1024.latent_rows
    with np.load(recipe_folder("default") / "directions.npz") as pack:
        names = ("yaw", "mouth_open", "eyes_open", "smile")
        moves = {name: (pack[f"{name}.direction"], pack[f"{name}.range"]) for name in names}
    codes = np.repeat(code[None, None], rows, axis=1).repeat(round(FPS * SECONDS), axis=0)
    for frame, ws in enumerate(codes):
        for name, value in pose_at(frame / FPS).items():
            direction, (lo, hi) = moves[name]
            step = value * hi if value > 0 else -value * lo
            ws += step * np.concatenate([direction, direction[-1:].repeat(rows - len(direction), axis=0)])
    return codes


def open_parser() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Person or background, from the bundle's parser: image [1, 3, 256, 256] -> mask [0, 1] [128, 128].

    One pixel is taken off all round, and specks are left out, so that nothing of the old background comes along.
    """
    graph = openvino_core().compile_model(recipe_folder("default") / "parser.onnx", "CPU")

    def mask_of(image: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = graph(image)[0][0]
        mask = np.clip(0.5 + 0.25 * (logits[1:].max(axis=0) - logits[0]), 0, 1)
        _, parts = cv2.connectedComponents((mask > 0.1).astype(np.uint8))
        alone = mask * (parts == parts[64, 64])
        return np.asarray(cv2.erode(alone, np.ones((3, 3), np.uint8)), np.float32)

    return mask_of


def wall() -> NDArray[np.float32]:
    """A plain wall, lighter on one side."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    light = 0.55 + 0.35 * np.exp(-((x - 0.3) ** 2 + (y - 0.2) ** 2) / 0.35)
    return np.asarray(light[..., None] * np.array([188.0, 192.0, 186.0]), np.float32)


def staged(face: NDArray[np.float32], person: NDArray[np.float32], t_s: float) -> Image:
    """The person cut out of the face image [3, 1024, 1024] RGB [-1, 1] before the wall, swaying a little, in 720p."""
    picture = np.clip((face.transpose(1, 2, 0)[..., ::-1] + 1.0) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE), 2.0 * np.sin(2 * np.pi * t_s / 4.0), 1.0)
    # Swaying lifts a lower corner by up to 12 px: the picture's end stays out of sight.
    matrix[:, 2] += ((WIDTH - SIZE) / 2 + 25 * np.sin(2 * np.pi * t_s / 5.0), HEIGHT - SIZE + 14)
    edge = np.ones((SIZE, SIZE), np.float32)
    # Shoulders end where the image does: they fade out there.
    edge[:, :50] = edge[:, -50:] = 0.0
    mask = cv2.GaussianBlur(cv2.resize(person, (SIZE, SIZE)), (0, 0), 2.5) * cv2.blur(edge, (99, 1))
    # The parser sometimes takes the wall above the hair for hair.
    mask[:24] *= np.linspace(0.0, 1.0, 24, dtype=np.float32)[:, None] ** 2
    small = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    over = cv2.warpAffine(small, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    shown = cv2.warpAffine(mask, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_CONSTANT)[..., None]
    return np.asarray(shown * over + (1.0 - shown) * wall(), np.uint8)


def render(path: Path, identity_seed: int) -> None:
    """Write the clip, H.264 without sound."""
    network, parser = openvino_teacher("f32"), open_parser()
    partial = path.with_name(f".{path.name}.part")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "23", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, ws in enumerate(tqdm(codes_over_time(identity_seed), unit="frame")):
            face = network(ws[None])[0]
            person = parser(face.reshape(1, 3, 256, 4, 256, 4).mean(axis=(3, 5)))
            image = staged(face[0], person, index / FPS)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=IDENTITY_SEED, help="whose code")
    arguments = parser.parse_args()
    render(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
