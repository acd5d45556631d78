"""Densities of latents against numpy and scikit-learn, and what small classes borrow."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from genaug.models.density import LatentDensity

DIM = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(density: LatentDensity, row: int, component: int = 0) -> torch.Tensor:
    scale = density.scales[row, component]
    return scale @ scale.T


def test_before_fitting_it_is_the_prior():
    density = LatentDensity(2, DIM, components=2)
    draws = density.sample(torch.zeros(20_000, dtype=torch.int64), generator=seeded())
    # Standard errors at 20,000 draws: 0.007 for means, 0.01 for variances; five of them.
    torch.testing.assert_close(draws.mean(0), torch.zeros(DIM), atol=0.035, rtol=0)
    torch.testing.assert_close(torch.cov(draws.T), torch.eye(DIM), atol=0.05, rtol=0)


def test_large_class_gets_the_moments_of_its_aggregated_posterior():
    mean = torch.randn(500, DIM, generator=seeded()) @ torch.randn(DIM, DIM, generator=seeded(1)) + 2
    variance = torch.rand(500, DIM, generator=seeded(2))
    density = LatentDensity(1, DIM, components=1)
    density.fit(mean, variance, torch.zeros(500, dtype=torch.int64), shrinkage=0.0)
    expected = np.cov(mean.numpy().T, bias=True) + np.diag(variance.mean(0).numpy())
    torch.testing.assert_close(covariance(density, 0).double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(density.means[1, 0], mean.mean(0), atol=1e-5, rtol=1e-5)  # the null class: pooled
    # The mean of a class is shrunk by one image's weight toward the pooled mean, which here is the same.
    torch.testing.assert_close(density.means[0, 0], mean.mean(0), atol=1e-5, rtol=1e-5)


def test_shrinkage_is_a_weighted_mean_with_the_pooled_within_class_covariance():
    mean = torch.cat([torch.randn(90, DIM, generator=seeded()), 5 + 3 * torch.randn(10, DIM, generator=seeded(1))])
    labels = torch.tensor([0] * 90 + [1] * 10)
    zero = torch.zeros(100, DIM)
    density = LatentDensity(2, DIM, components=1)
    density.fit(mean, zero, labels, shrinkage=20.0)
    own = [np.cov(mean[labels == c].numpy().T, bias=True) for c in (0, 1)]
    within = 0.9 * own[0] + 0.1 * own[1]
    expected = (10 * own[1] + 20 * within) / 30
    torch.testing.assert_close(covariance(density, 1).double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-3)
    expected_mean = (10 * mean[90:].mean(0) + 1 * mean.mean(0)) / 11
    torch.testing.assert_close(density.means[1, 0], expected_mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_class_of_few_images_has_a_proper_density(count):
    mean = torch.randn(60 + count, DIM, generator=seeded())
    labels = torch.tensor([0] * 60 + [1] * count)
    density = LatentDensity(2, DIM, components=1)
    density.fit(mean, torch.zeros_like(mean), labels, shrinkage=20.0)
    assert (torch.linalg.eigvalsh(covariance(density, 1)) > 0.05).all()


def test_class_without_images_gets_the_pooled_density():
    mean = torch.randn(50, DIM, generator=seeded())
    density = LatentDensity(2, DIM, components=1)
    density.fit(mean, torch.ones_like(mean), torch.zeros(50, dtype=torch.int64), shrinkage=20.0)
    torch.testing.assert_close(density.means[1], density.means[2])
    torch.testing.assert_close(density.scales[1], density.scales[2])


def test_mixture_finds_the_groups_that_scikit_learn_finds():
    centers = torch.tensor([[4.0, 0, 0], [-4.0, 0, 0]])
    mean = centers.repeat_interleave(200, 0) + 0.5 * torch.randn(400, DIM, generator=seeded())
    density = LatentDensity(1, DIM, components=2)
    density.fit(mean, torch.zeros_like(mean), torch.zeros(400, dtype=torch.int64), shrinkage=0.0)
    oracle = GaussianMixture(2, random_state=1).fit(mean.numpy())
    found, expected = sorted(density.means[0, :, 0].tolist()), sorted(oracle.means_[:, 0].tolist())
    assert found == pytest.approx(expected, abs=0.1)
    torch.testing.assert_close(density.weights[0], torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    draws = density.sample(torch.zeros(2000, dtype=torch.int64), generator=seeded(1))
    assert (draws[:, 0].abs() > 2).float().mean() > 0.99  # nothing between the groups


def test_components_are_no_more_than_the_images_carry():
    mean = torch.randn(30, DIM, generator=seeded())
    density = LatentDensity(1, DIM, components=8)
    density.fit(mean, torch.ones_like(mean), torch.zeros(30, dtype=torch.int64), shrinkage=5.0)
    assert density.weights[0].tolist() == [1.0] + [0.0] * 7
    assert density.sample(torch.zeros(64, dtype=torch.int64), generator=seeded()).isfinite().all()


def test_four_components_of_many_dimensions_with_few_images():
    counts, dim = [0, 1, 3, 39, 45, 85], 130
    labels = torch.repeat_interleave(torch.arange(6), torch.tensor(counts))
    mean = torch.randn(len(labels), dim, generator=seeded()) * torch.linspace(0.01, 2, dim)
    variance = torch.rand(len(labels), dim, generator=seeded(1)) * torch.linspace(1, 0, dim)
    density = LatentDensity(6, dim, components=4)
    density.fit(mean, variance, labels, shrinkage=20.0)
    # a component for every twenty images, at least one; the class without images and the null class have the pool's 173
    assert (density.weights > 0).sum(1).tolist() == [4, 1, 1, 1, 2, 4, 4]
    torch.testing.assert_close(density.weights.sum(1), torch.ones(7))
    used = density.weights > 0
    assert (density.scales[used].diagonal(dim1=-2, dim2=-1) > 0).all()
    wanted = torch.arange(7).repeat(200)
    draws = density.sample(wanted, generator=seeded(2))
    for row in range(7):
        # the spread of a class: that of the aggregated posterior, about sqrt(mean^2 + variance), within a factor of two
        spread = draws[wanted == row].std(0).square().sum()
        assert 0.5 < spread / (mean.var(0) + variance.mean(0)).sum() < 2
    noise = torch.randn(len(labels), dim, generator=seeded(3))
    torch.testing.assert_close(density.perturb(mean, labels, strength=0.0, noise=noise), mean)
    assert density.perturb(mean, labels, strength=1.0, noise=noise).isfinite().all()


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_perturbing_leaves_the_class_density_unchanged(strength):
    mean = torch.randn(300, DIM, generator=seeded()) @ torch.randn(DIM, DIM, generator=seeded(1))
    density = LatentDensity(1, DIM, components=1)
    density.fit(mean, torch.zeros_like(mean), torch.zeros(300, dtype=torch.int64), shrinkage=0.0)
    labels = torch.zeros(40_000, dtype=torch.int64)
    latents = density.sample(labels, generator=seeded(2))
    noise = torch.randn(40_000, DIM, generator=seeded(3))
    moved = density.perturb(latents, labels, strength=strength, noise=noise)
    torch.testing.assert_close(torch.cov(moved.T), covariance(density, 0), atol=0.15, rtol=0.05)  # Monte Carlo error
    assert not torch.equal(moved, latents)


def test_perturbing_stays_near_its_own_component():
    density = LatentDensity(1, 1, components=2)
    density.means[0, :, 0] = torch.tensor([-10.0, 10.0])
    latents = torch.tensor([[-9.0], [11.0]])
    noise = torch.zeros(2, 1)
    moved = density.perturb(latents, torch.tensor([0, 0]), strength=1.0, noise=noise)
    assert moved.flatten().tolist() == [-10.0, 10.0]


def test_identical_images_do_not_break_the_fit():
    density = LatentDensity(1, DIM, components=2)
    density.fit(torch.ones(50, DIM), torch.zeros(50, DIM), torch.zeros(50, dtype=torch.int64), shrinkage=1.0)
    assert density.sample(torch.tensor([0, 1]), generator=seeded()).isfinite().all()


# --- the density's value


def as_mixture(density: LatentDensity, row: int) -> torch.distributions.MixtureSameFamily:
    used = density.weights[row] > 0
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(density.weights[row, used]),
        torch.distributions.MultivariateNormal(density.means[row, used], scale_tril=density.scales[row, used]),
    )


def fit_three_classes(components: int) -> LatentDensity:
    """A large class, one of too few images for several components, one without images, and the null class."""
    labels = torch.tensor([0] * 150 + [1] * 5)
    mean = torch.randn(155, DIM, generator=seeded()) @ torch.randn(DIM, DIM, generator=seeded(1)) + labels[:, None]
    density = LatentDensity(3, DIM, components=components)
    density.fit(mean, torch.rand(155, DIM, generator=seeded(2)), labels, shrinkage=5.0)
    return density


@pytest.mark.parametrize("components", [1, 4])
def test_log_density_is_that_of_torch_distributions(components):
    density = fit_three_classes(components)
    assert (density.weights > 0).sum(1).tolist() == [components, 1, components, components]
    latents, labels = 3 * torch.randn(40, DIM, generator=seeded(4)), torch.arange(40) % 4
    found = density.log_density(latents, labels)
    assert found.shape == (40,)
    for row in range(4):
        expected = as_mixture(density, row).log_prob(latents[labels == row])
        torch.testing.assert_close(found[labels == row], expected, atol=1e-4, rtol=1e-4)


def test_log_density_before_fitting_is_that_of_the_prior():
    latents = torch.randn(10, DIM, generator=seeded())
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(latents).sum(1)
    found = LatentDensity(1, DIM, components=3).log_density(latents, torch.arange(10) % 2)
    torch.testing.assert_close(found, expected)


def test_density_has_an_integral_of_one():
    density = fit_three_classes(4)
    mixture = as_mixture(density, 0)
    # importance sampling from a wider normal; five standard errors of the mean
    wide = torch.distributions.MultivariateNormal(mixture.mean, 3 * torch.diag(mixture.variance) + torch.eye(DIM))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = wide.sample((20_000,))
    ratio = (density.log_density(draws, torch.zeros(20_000, dtype=torch.int64)) - wide.log_prob(draws)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 20_000**0.5
    assert ratio.std() < 5


def test_log_density_has_gradients_and_takes_no_rows():
    density = fit_three_classes(4)
    latents = torch.randn(6, DIM, generator=seeded()).requires_grad_()
    labels = torch.zeros(6, dtype=torch.int64)
    (found,) = torch.autograd.grad(density.log_density(latents, labels).sum(), latents)
    (expected,) = torch.autograd.grad(as_mixture(density, 0).log_prob(latents).sum(), latents)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert density.log_density(latents[:0], labels[:0]).shape == (0,)
