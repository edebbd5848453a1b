"""The discriminator: its shapes, what it starts with, and its gradient penalty."""

import pytest
import torch
from torch import Tensor, nn

from models.discriminator import Discriminator, EqualConv, doubling_widths, r1_penalty


@pytest.mark.parametrize(
    ("resolution", "widths"), [(96, (4, 8, 16, 32, 32)), (256, (4, 8, 16, 32, 32, 32)), (20, (4, 8))]
)
def test_any_resolution_is_halved_to_a_small_or_odd_side(resolution: int, widths: tuple[int, ...]) -> None:
    assert doubling_widths(resolution, 4) == widths
    torch.manual_seed(0)
    assert Discriminator(resolution, widths)(torch.randn(2, 3, resolution, resolution)).shape == (2, 1)


@pytest.mark.parametrize("kernel", [1, 3])
def test_equalised_weights_keep_the_variance(kernel: int) -> None:
    torch.manual_seed(0)
    found = EqualConv(32, 32, kernel)(torch.randn(4, 32, 16, 16))[..., 1:-1, 1:-1]
    assert found.var().item() == pytest.approx(1.0, rel=0.2)


def test_details_count_as_much_as_areas() -> None:
    """A checkerboard an eighth as strong as a flat colour moves the first layer as much."""
    torch.manual_seed(0)
    first = Discriminator(16, (64, 8))

    def size(image: Tensor) -> float:
        seen = []
        hook = first.from_bands.register_forward_hook(lambda module, inputs, output: seen.append(output))
        first(image)
        hook.remove()
        return seen[0].norm().item()

    flat = torch.ones(1, 3, 16, 16)
    board = flat.clone()
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1.0
    assert size(board / 8.0) == pytest.approx(size(flat), rel=0.5)


def test_every_image_is_judged_by_itself_and_wholly() -> None:
    torch.manual_seed(0)
    critic = Discriminator(16, (4, 8, 8))
    images = torch.randn(3, 3, 16, 16)
    assert torch.allclose(critic(images)[1:], critic(images[1:]), atol=1e-5)
    images.requires_grad_()
    (slope,) = torch.autograd.grad(critic(images).sum(), images)
    assert (slope != 0).all()


def test_r1_of_a_linear_critic_is_its_squared_weight() -> None:
    """In float32, also when the rest is computed in mixed precision."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    wanted = critic[1].weight.square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = r1_penalty(critic, torch.randn(5, 3, 2, 2).bfloat16())
    assert torch.allclose(found, wanted)
    found.backward()
    assert torch.allclose(critic[1].weight.grad, 2 * critic[1].weight)


def test_r1_is_the_squared_gradient_by_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Discriminator(8, (4, 8)).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def slopes(image: Tensor) -> Tensor:
        steps = 1e-6 * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape)
        with torch.no_grad():
            return (critic(image + steps) - critic(image - steps)) / 2e-6

    wanted = torch.stack([slopes(image).square().sum() for image in images]).mean()
    assert torch.allclose(r1_penalty(critic.float(), images).double(), wanted, rtol=1e-4)
