import math

import pytest
import torch
from torch import nn

from genaug.models.adversarial import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    interpolated_penalty,
    minibatch_std,
)

REAL, FAKE = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25, 1.5])


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_hinge_in_closed_form() -> None:
    assert float(discriminator_loss("hinge", REAL, FAKE)) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25 + 2.5) / 3)
    assert float(generator_loss("hinge", REAL, FAKE)) == pytest.approx((3 - 0.25 - 1.5) / 3)


def test_non_saturating_is_the_cross_entropy_of_logits() -> None:
    both = torch.cat([REAL, FAKE])
    truth = torch.tensor([1.0, 1, 1, 0, 0, 0])
    expected = 2 * nn.functional.binary_cross_entropy(both.sigmoid(), truth)
    assert float(discriminator_loss("non-saturating", REAL, FAKE)) == pytest.approx(float(expected), rel=1e-5)
    flipped = nn.functional.binary_cross_entropy(FAKE.sigmoid(), torch.ones(3))
    assert float(generator_loss("non-saturating", REAL, FAKE)) == pytest.approx(float(flipped), rel=1e-5)


def test_wasserstein_is_the_difference_of_means() -> None:
    assert float(discriminator_loss("wasserstein-gp", REAL, FAKE)) == pytest.approx(-1.25 / 3 - 1.5 / 3)
    assert float(generator_loss("wasserstein-gp", REAL, FAKE)) == pytest.approx(1.25 / 3)


def test_relativistic_compares_pairs() -> None:
    pairs = list(zip(REAL.tolist(), FAKE.tolist(), strict=True))
    assert float(discriminator_loss("relativistic", REAL, FAKE)) == pytest.approx(
        mean([softplus(fake - real) for real, fake in pairs])
    )
    assert float(generator_loss("relativistic", REAL, FAKE)) == pytest.approx(
        mean([softplus(real - fake) for real, fake in pairs])
    )
    moved = discriminator_loss("relativistic", REAL + 5, FAKE + 5)
    assert torch.allclose(moved, discriminator_loss("relativistic", REAL, FAKE))


@pytest.mark.parametrize("name", ["hinge", "non-saturating", "wasserstein-gp", "relativistic"])
def test_losses_pull_logits_the_right_way(name: str) -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    discriminator_loss(name, real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    fake.grad = None
    generator_loss(name, real.detach(), fake).backward()
    assert (fake.grad < 0).all()


class Quadratic(nn.Module):
    """D(x) = a/2 |x|^2 + b . x, whose gradient is a x + b."""

    def __init__(self, a: float, b: torch.Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.a * x.flatten(1).square().sum(1) + (x.flatten(1) * self.b).sum(1)


def test_gradient_penalty_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 3, 4, generator=generator)
    critic = Quadratic(0.7, torch.randn(24, generator=generator))
    penalty = gradient_penalty(critic, x)
    gradients = 0.7 * x.flatten(1) + critic.b.detach()
    assert torch.allclose(penalty, gradients.square().sum(1).mean())
    penalty.backward()  # d/db of mean |a x + b|^2 = 2 mean(a x + b), through the second derivative
    assert torch.allclose(critic.b.grad, 2 * gradients.mean(0), atol=1e-5)
    assert not x.requires_grad


@pytest.mark.global_rng
def test_gradient_penalty_against_the_jacobian_of_a_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0)).double()
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x)  # (3, 3, 1, 6, 6), diagonal over images
    expected = torch.stack([jacobian[i, i].square().sum() for i in range(3)]).mean()
    assert torch.allclose(gradient_penalty(net, x).double(), expected, rtol=1e-5)


def test_interpolated_penalty_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=generator)
    shares = torch.rand(4, generator=generator)
    critic = Quadratic(0.5, torch.randn(9, generator=generator))
    between = shares[:, None] * real.flatten(1) + (1 - shares[:, None]) * fake.flatten(1)
    expected = ((0.5 * between + critic.b.detach()).norm(dim=1) - 1).square().mean()
    assert torch.allclose(interpolated_penalty(critic, real, fake, shares), expected, atol=1e-5)


def test_minibatch_std_is_that_of_each_group() -> None:
    features = torch.randn(12, 3, 2, 5, generator=torch.Generator().manual_seed(2))
    found = minibatch_std(features, group=4)
    assert torch.equal(found[:, :3], features)
    for first in (0, 4, 8):
        spread = features[first : first + 4].numpy().std(0).mean()
        assert torch.allclose(found[first : first + 4, 3], torch.full((4, 2, 5), float(spread)), atol=1e-5)


def test_minibatch_std_without_differences_is_nearly_zero_and_differentiable() -> None:
    features = torch.ones(4, 2, 3, 3, requires_grad=True)
    minibatch_std(features, group=4)[:, 2].sum().backward()
    assert features.grad.isfinite().all()
    assert float(minibatch_std(features.detach(), group=1)[:, 2].max()) < 1e-3
