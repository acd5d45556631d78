"""Regularizers of codes against torch's distributions and Jacobians, numpy, and their closed forms."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.distributions import Bernoulli, kl_divergence

from genaug.models.regularizers import contraction_estimate, contraction_of_layer, keep_largest, sparsity_kl


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def make_layer(inputs: int = 5, outputs: int = 4) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(normal(outputs, inputs, seed=1))
        layer.bias.copy_(normal(outputs, seed=2))
    return layer


# --- sparsity


@pytest.mark.parametrize("target", [0.05, 0.5, 0.9])
def test_sparsity_is_the_divergence_of_bernoulli_variables(target: float) -> None:
    codes = torch.rand(6, 4, generator=seeded())
    expected = kl_divergence(Bernoulli(torch.tensor(target)), Bernoulli(codes.mean(0))).sum()
    torch.testing.assert_close(sparsity_kl(codes, target), expected)


def test_sparsity_of_units_on_target_is_nothing() -> None:
    codes = torch.tensor([[0.1, 0.3], [0.3, 0.1]])
    torch.testing.assert_close(sparsity_kl(codes, 0.2), torch.tensor(0.0))


def test_gradient_of_the_sparsity_is_the_closed_form() -> None:
    codes, target = torch.rand(6, 4, generator=seeded()).requires_grad_(), 0.1
    sparsity_kl(codes, target).backward()
    mean = codes.detach().mean(0)
    torch.testing.assert_close(codes.grad, ((1 - target) / (1 - mean) - target / mean).expand(6, 4) / 6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_sparsity_of_units_at_the_end_of_their_range_is_finite(value: float) -> None:
    codes = torch.full((3, 2), value, requires_grad=True)
    loss = sparsity_kl(codes, 0.05)
    loss.backward()
    assert 0 < loss.item() < float("inf")
    assert codes.grad.isfinite().all()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_largest_numbers_are_those_that_numpy_sorts_last(count: int) -> None:
    codes = normal(20, 7)
    expected = np.zeros((20, 7), np.float32)
    for row, numbers in zip(expected, codes.numpy(), strict=True):
        places = np.argsort(numbers)[-count:]
        row[places] = numbers[places]
    assert torch.equal(keep_largest(codes, count), torch.from_numpy(expected))


def test_only_the_numbers_that_are_kept_have_a_gradient() -> None:
    codes = normal(5, 6).requires_grad_()
    kept = keep_largest(codes, 2)
    (3 * kept).sum().backward()
    assert torch.equal(codes.grad, 3.0 * (kept != 0))


def test_of_equal_numbers_no_more_are_kept() -> None:
    assert keep_largest(torch.ones(3, 5), 2).sum(1).tolist() == [2, 2, 2]
    assert keep_largest(torch.ones(0, 5), 2).shape == (0, 5)


# --- contraction


def mean_norm(function: object, images: Tensor, *, create_graph: bool = False) -> Tensor:
    """The mean over images of the squared norm of the Jacobian, image by image."""
    each = [jacobian(lambda x: function(x[None])[0], x, create_graph=create_graph) for x in images]
    return torch.stack([part.square().sum() for part in each]).mean()


@pytest.mark.parametrize("kind", ["linear", "sigmoid", "top-k", "top-k of sigmoid"])
def test_contraction_of_a_layer_is_that_of_its_jacobian(kind: str) -> None:
    layer, inputs = make_layer(), normal(8, 5)

    def encode(x: Tensor) -> Tensor:
        codes = torch.sigmoid(layer(x)) if "sigmoid" in kind else layer(x)
        return keep_largest(codes, 2) if "top-k" in kind else codes

    codes = encode(inputs)
    slopes = codes * (1 - codes) if "sigmoid" in kind else (codes != 0).float()
    found, expected = contraction_of_layer(layer, slopes), mean_norm(encode, inputs, create_graph=True)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(norm, layer.weight)[0] for norm in (found, expected)]
    torch.testing.assert_close(*gradients)


def make_network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), make_layer(6, 5), nn.SiLU(), make_layer(5, 4), nn.Sigmoid())


def estimate(network: nn.Module, images: Tensor, probe: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    return contraction_estimate(network(images), images, probe)


def test_estimates_of_all_unit_vectors_add_up_to_the_contraction() -> None:
    # |J|^2 = sum_j |J^T e_j|^2, so the estimate is exact for any probes v with mean of v v^T = 1
    network, images = make_network(), normal(3, 1, 2, 3)
    total = sum(estimate(network, images, unit.expand(3, 4)) for unit in torch.eye(4))
    expected = mean_norm(network, images, create_graph=True)
    torch.testing.assert_close(total, expected)
    weights = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    for found, wanted in zip(torch.autograd.grad(total, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(found, wanted)
        assert found.any()


def test_the_mean_of_estimates_of_normal_probes_is_the_contraction() -> None:
    network, image = make_network(), normal(1, 1, 2, 3)
    found = estimate(network, image.expand(20_000, 1, 2, 3), normal(20_000, 4, seed=3))
    matrix = jacobian(lambda x: network(x)[0], image).flatten(1)
    square = matrix @ matrix.T
    # v^T A v of a standard normal v has the mean tr A and the variance 2 |A|^2; five standard errors
    assert abs(found - square.trace()) < 5 * (2 * square.square().sum() / 20_000).sqrt()


def test_each_image_has_its_own_probe() -> None:
    network, images, probe = make_network(), normal(3, 1, 2, 3), normal(3, 4, seed=3)
    alone = [estimate(network, image[None], v[None]) for image, v in zip(images, probe, strict=True)]
    torch.testing.assert_close(estimate(network, images, probe), torch.stack(alone).mean())
