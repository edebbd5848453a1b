"""The base encoder's start in closed form, from synthetic pairs whose codes are known.

Dual ridge regression from frozen features to W, then its best low-rank approximation; no gradient. Then the trunk loses
the channels that no face lights: of AlexNet's 1152 channels 501 stay 0 on faces. More pairs do not
help: from 3,700 to 16,500 of them R2 on held-out codes rose from 0.38 to 0.43, and ST-LPIPS on real faces stayed 0.39.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.compiled import compile_network
from models.encoder import MESH, POOLED, TRUNK_STAGES, BaseEncoder, BaseEncoderConfig, FaceFeatures
from models.perceptual import STAGE_WIDTHS, StLpips
from models.tracking import MeshComponents, mesh_window
from models.training.augment import draw_degradation, misalign
from models.training.landmarks import load_landmarks
from models.training.samples import image_tensor, synthetic_pack

HELD_OUT = 300
STRENGTHS = (0.1, 0.3, 1.0)
"""Of the ridge, to choose from."""

MESH_FACES = 1000
"""Whose principal components the face mesh gives."""

FAINT = 0.2
"""Of a stage's mean spread: features fainter than that stay faint."""


def pretrained_features(images: NDArray[np.uint8]) -> FaceFeatures:
    """The trunk with the published perceptual weights, and our face mesh, whose components are those of these faces.

    images: uint8 RGB [N, 256, 256, 3]. Raises AssetMissing, CheckpointError.
    """
    network = load_landmarks()
    with torch.no_grad():
        windows = (mesh_window(image_tensor(image[None])).permute(0, 2, 3, 1) for image in images[:MESH_FACES])
        points = torch.cat([network(window)[0] for window in windows])
    features = FaceFeatures.of(StLpips.load(), MeshComponents.of(network, points, MESH))
    return features.eval().requires_grad_(False)


def compute_features(images: NDArray[np.uint8], network: FaceFeatures) -> NDArray[np.float16]:
    """Features [N, F] of uint8 RGB images [N, 256, 256, 3]."""
    run = compile_network(network, torch.zeros(4, 3, 256, 256), "bf16")
    rows = []
    for start in range(0, len(images), 4):
        batch = images[start : start + 4]
        padded = np.concatenate([batch, batch[:1].repeat(4 - len(batch), axis=0)])
        rows.append(run(image_tensor(padded).numpy())[: len(batch)].astype(np.float16))
    return np.concatenate(rows)


def dual_ridge(features: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Dual coefficients [N, D]: minimises |X a - Y|^2 + strength * mean(diag K) |a|^2 for centred X and Y."""
    kernel = features @ features.T
    kernel.diagonal().add_(strength * kernel.diagonal().mean())
    return torch.linalg.solve(kernel, targets)


def r2(predicted: Tensor, true: Tensor) -> float:
    """Share of the variance explained, over all coordinates."""
    return float(1.0 - (predicted - true).square().sum() / (true - true.mean(0)).square().sum())


def fit_encoder(
    network: FaceFeatures, features: NDArray[np.float16], ws: Tensor, held: int, strengths: Sequence[float]
) -> tuple[BaseEncoder, float]:
    """The encoder whose ridge strength explains the `held` first pairs best, and its R2 on them.

    network: at AlexNet's widths, what gave the features.
    """
    x = torch.from_numpy(features)
    fit = x[held:].float()
    mean, y_mean = fit.mean(0), ws[held:].mean(0)
    # Each feature counts by its spread, the faint ones less: with all stages at the same spread R2 is 0.02 lower.
    scale = 1.0 / (fit.std(0) + 0.05 * fit.std())
    level = levels(fit)
    fit = (fit - mean) * scale
    validation = (x[:held].float() - mean) * scale
    best: tuple[float, Tensor] | None = None
    for strength in strengths:
        weights = fit.T @ dual_ridge(fit, ws[held:] - y_mean, strength)
        quality = r2(validation @ weights + y_mean, ws[:held])
        if best is None or quality > best[0]:
            best = quality, weights
    assert best is not None
    encoder = BaseEncoder(BaseEncoderConfig(widths=STAGE_WIDTHS["alex"]))
    encoder.features.load_state_dict(network.state_dict())
    _set_low_rank(encoder, best[1], fit, mean, scale, y_mean)
    _level(encoder, level)
    return encoder.eval(), r2(encoder.codes(x[:held].float())[:, 0].detach(), ws[:held])


def levels(features: Tensor) -> Tensor:
    """`BaseEncoder.level` for a spread of about 1, from features of the trunk at its full widths [N, F]."""
    parts = BaseEncoderConfig(widths=STAGE_WIDTHS["alex"]).parts
    spreads = features.std(0).split(parts)
    return torch.cat([1.0 / (spread + FAINT * spread.mean()) for spread in spreads])


@torch.no_grad()
def _level(encoder: BaseEncoder, level: Tensor) -> None:
    """Gives an encoder without levels these; its codes stay the same."""
    encoder.level.copy_(level)
    encoder.reduce.weight /= level


@torch.no_grad()
def _set_low_rank(
    encoder: BaseEncoder, weights: Tensor, fit: Tensor, mean: Tensor, scale: Tensor, y_mean: Tensor
) -> None:
    """Keep the directions of W in which the predictions vary most."""
    predictions = fit @ weights
    basis = torch.linalg.svd(predictions, full_matrices=False)[2][: encoder.config.rank].T
    spread = (predictions @ basis).std(0)
    reduce = (weights @ basis / spread) * scale[:, None]
    encoder.reduce.weight.copy_(reduce.T)
    encoder.reduce.bias.copy_(-(mean @ reduce))
    rows = encoder.config.latent_rows
    encoder.expand.weight.copy_((basis * spread).repeat(rows, 1))
    encoder.expand.bias.copy_(y_mean.repeat(rows))


def degraded(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Every image once degraded as a webcam would."""
    rng = np.random.default_rng(seed)
    return np.stack([draw_degradation(rng).apply(misalign(image, rng, 0.5), rng) for image in images])


@torch.no_grad()
def narrowed(encoder: BaseEncoder, crops: Sequence[NDArray[np.uint8]]) -> BaseEncoder:
    """The encoder with as many channels as ship, in each stage those that light most; the same codes, nearly.

    crops: uint8 RGB [256, 256, 3]. What a channel counts for is the most that it shows on any of them.
    """
    reach = [torch.zeros(width) for width in encoder.config.widths]
    for start in range(0, len(crops), 16):
        crop = image_tensor(np.stack(crops[start : start + 16]))
        found = encoder.features.seen(encoder.features.shrunk(crop))
        reach = [torch.maximum(most, stage.amax(dim=(0, 2, 3))) for most, stage in zip(reach, found, strict=True)]
    small = BaseEncoder(replace(encoder.config, widths=BaseEncoderConfig.widths))
    kept = [most.topk(width).indices.sort().values for most, width in zip(reach, small.config.widths, strict=True)]
    state = encoder.state_dict()
    for name in [name for name in state if name.startswith("features.stages.")]:
        stage = int(name.split(".")[2])
        state[name] = state[name][kept[stage]]
        if name.endswith(".weight") and stage > 0:
            state[name] = state[name][:, kept[stage - 1]]
    columns = _columns(encoder.config, kept)
    state["reduce.weight"], state["level"] = state["reduce.weight"][:, columns], state["level"][columns]
    small.load_state_dict(state)
    return small.eval()


def _columns(config: BaseEncoderConfig, kept: Sequence[Tensor]) -> Tensor:
    """Which features are left when the stages have the `kept` channels alone."""
    *stages, thumbnail, mesh = torch.arange(sum(config.parts)).split(config.parts)
    columns = [of.view(-1, POOLED**2)[kept[stage]].flatten() for stage, of in zip(TRUNK_STAGES, stages, strict=True)]
    return torch.cat((*columns, thumbnail, mesh))


def closed_form_encoder(pairs: int) -> tuple[BaseEncoder, float]:
    """The encoder fitted to `pairs` synthetic faces, the first 300 held out, and its R2 on those."""
    codes, images = synthetic_pack(pairs)
    ws = torch.from_numpy(codes)
    network = pretrained_features(images[HELD_OUT:])
    clean = compute_features(images, network)
    webcam = compute_features(degraded(images[HELD_OUT:], seed=1), network)
    features, codes_of = np.concatenate((clean, webcam)), torch.cat((ws, ws[HELD_OUT:]))
    encoder, quality = fit_encoder(network, features, codes_of, HELD_OUT, STRENGTHS)
    return narrowed(encoder, images), quality
