"""Endless faces of the published generator: codes on the fly and, where affordable, the 1024 px network's images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.bundle import open_bundle
from engine.bundle_build import DEFAULT, bundle_path
from engine.directions import edit_offset
from engine.openvino_core import openvino_core
from models.checkpoints.published import load_light_generator, published_generator, published_mapping
from models.compiled import compile_network
from models.mobile_stylegan import LATENT_DIM, TEACHER_1024, MappingNetwork
from models.training.log import checkpoint_dir

if TYPE_CHECKING:
    import openvino as ov

MEAN_CODE_SAMPLES = 20_000


@dataclass(frozen=True)
class CodeSampler:
    """Draws W+ codes as users' faces need them: truncated, mixed and jittered."""

    mapping: MappingNetwork
    mean: Tensor

    @classmethod
    def open(cls) -> "CodeSampler":
        """Read the mapping network and its mean code. Raises AssetMissing."""
        mapping = published_mapping()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            mean = mapping(torch.randn(MEAN_CODE_SAMPLES, LATENT_DIM, generator=generator)).mean(0)
        return cls(mapping, mean)

    @torch.no_grad()
    def draw(self, count: int, rng: torch.Generator, psi: tuple[float, float] = (0.5, 1.0)) -> Tensor:
        """`count` codes [N, 512] of W, truncated by a factor drawn from `psi`."""
        ws = self.mapping(torch.randn(count, LATENT_DIM, generator=rng))
        strength = psi[0] + (psi[1] - psi[0]) * torch.rand(count, 1, generator=rng)
        return self.mean + strength * (ws - self.mean)

    @torch.no_grad()
    def draw_plus(self, count: int, rows: int, rng: torch.Generator, mixed: float = 0.3) -> Tensor:
        """`count` codes [N, rows, 512] of W+: a share `mixed` crosses over at a row, as many are jittered."""
        ws = self.draw(count, rng)[:, None].repeat(1, rows, 1)
        others = self.draw(count, rng)
        for code, other in zip(ws, others, strict=True):
            if torch.rand((), generator=rng) < mixed:
                code[int(torch.randint(1, rows, (), generator=rng)) :] = other
            if torch.rand((), generator=rng) < mixed:
                code += 0.05 * torch.randn(code.shape, generator=rng)
        return ws


@dataclass(frozen=True)
class EditSampler:
    """Draws edits n (Eq. 5), so that the encoder learns to live with any: half are sliders, half ways between faces.

    sliders: every attribute's offset at +1 and at -1, [S, L, 512].
    """

    codes: CodeSampler
    sliders: Tensor

    @classmethod
    def open(cls) -> "EditSampler":
        """With the default bundle's directions. Raises AssetMissing, BundleError."""
        bundle = open_bundle(bundle_path(DEFAULT))
        shape = (bundle.manifest.latent_rows, LATENT_DIM)
        ends = [{name: end} for name in bundle.directions for end in (1.0, -1.0)]
        sliders = np.stack([edit_offset(bundle.directions, values, shape) for values in ends])
        return cls(CodeSampler.open(), torch.from_numpy(sliders))

    def draw(self, rng: np.random.Generator) -> Tensor:
        """An offset [L, 512]: a slider at a quarter of its range or more, or half the way to another face."""
        if rng.random() < 0.5:
            return self.sliders[int(rng.integers(len(self.sliders)))] * float(rng.uniform(0.25, 1.0))
        a, b = self.codes.draw(2, torch.Generator().manual_seed(int(rng.integers(2**62))))
        return (0.5 * (a - b)).expand_as(self.sliders[0])


def openvino_teacher(precision: str) -> "ov.CompiledModel":
    """The 1024 px network on OpenVINO, batch 1, `precision` f32 or bf16."""
    import openvino

    network = published_generator(TEACHER_1024)
    example = torch.zeros(1, TEACHER_1024.latent_rows, LATENT_DIM)
    model = openvino.convert_model(network, example_input=example)
    model.reshape({0: tuple(example.shape)})
    return openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def teacher_targets(count: int, exact: int, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Codes [N, 16, 512] and the 1024 px images scaled down by area, uint8 RGB [N, 256, 256, 3].

    The first `exact` are made in f32 and are for validation, the others in bf16 where the processor has it. Made once
    (0.2 to 0.8 s each on two cores) and kept in the cache folder.
    """
    path = checkpoint_dir("generator") / f"targets-{count}-{seed}.npz"
    if path.exists():
        pack = np.load(path)
        return pack["ws"], pack["images"]
    rng = torch.Generator().manual_seed(seed)
    ws = CodeSampler.open().draw_plus(count, TEACHER_1024.latent_rows, rng).numpy()
    images = np.empty((count, 256, 256, 3), np.uint8)
    networks = {True: openvino_teacher("f32"), False: openvino_teacher("bf16")}
    for i in tqdm(range(count), desc="teacher", unit="image", disable=None):
        images[i] = teacher_image(networks[i < exact], ws[i : i + 1])
    _save_atomically(path, ws=ws, images=images)
    return ws, images


def teacher_image(teacher: "ov.CompiledModel", ws: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What `openvino_teacher` makes of a code [1, 16, 512], scaled down by area: uint8 RGB [256, 256, 3]."""
    small = cv2.resize(teacher(ws)[0][0].transpose(1, 2, 0), (256, 256), interpolation=cv2.INTER_AREA)
    levels: NDArray[np.uint8] = np.clip((small + 1.0) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    return levels


def _save_atomically(path: Path, **arrays: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def image_tensor(images_u8: NDArray[np.uint8]) -> Tensor:
    """uint8 RGB [N, H, W, 3] -> float [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images_u8)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def synthetic_pack(count: int, seed: int = 7) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Codes [N, 512] of W (psi 0.5-1) and the light generator's faces, uint8 RGB [N, 256, 256, 3]; cached."""
    path = checkpoint_dir("generator") / f"pack-{count}-{seed}.npz"
    if path.exists():
        pack = np.load(path)
        return pack["ws"], pack["images"]
    ws = CodeSampler.open().draw(count, torch.Generator().manual_seed(seed)).numpy()
    generator = load_light_generator()
    rows = generator.config.latent_rows
    network = compile_network(generator, torch.zeros(2, rows, LATENT_DIM), "bf16")
    images = np.empty((count, 256, 256, 3), np.uint8)
    for i in tqdm(range(0, count, 2), desc="pack", unit="pair", disable=None):
        made = network(np.repeat(ws[i : i + 2, None], rows, axis=1)).transpose(0, 2, 3, 1)
        images[i : i + 2] = np.clip((made + 1.0) * 127.5 + 0.5, 0, 255)
    _save_atomically(path, ws=ws, images=images)
    return ws, images
