"""Noise against the moments of its distribution in closed form, on constant images."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genaug.degradations import (
    Clip,
    Degradation,
    GaussianNoise,
    PoissonNoise,
    SaltAndPepper,
    SpeckleNoise,
    UniformNoise,
    degrade,
)
from genaug.degradations.base import Draws

SEEDS = torch.arange(8)
LEVEL = 0.3


def noisy(degradation: Degradation, *, level: float = LEVEL) -> np.ndarray:
    """Values (8, 3 * 64 * 64), float64, of constant images that were degraded."""
    images = torch.full((len(SEEDS), 3, 64, 64), level)
    return degrade(images, [degradation], seeds=SEEDS).flatten(1).double().numpy()


def check_moments(values: np.ndarray, *, mean: float, variance: float, kurtosis: float) -> None:
    """Mean and variance (around the true mean) within five of their standard errors, and of the rounding of float32."""
    assert abs(values.mean() - mean) <= 5 * math.sqrt(variance / values.size) + 1e-6
    spread = ((values - mean) ** 2).mean()
    assert abs(spread - variance) <= 5 * variance * math.sqrt((kurtosis - 1) / values.size) + 1e-6 * variance


@pytest.mark.parametrize("noise_level", [0.01, 0.5])
def test_gaussian(noise_level: float) -> None:
    values = noisy(GaussianNoise(noise_level))
    check_moments(values, mean=LEVEL, variance=noise_level**2, kurtosis=3)
    assert stats.kstest(values.ravel(), stats.norm(LEVEL, noise_level).cdf).pvalue > 1e-4


@pytest.mark.parametrize("noise_level", [0.01, 0.5])
def test_uniform(noise_level: float) -> None:
    values = noisy(UniformNoise(noise_level))
    check_moments(values, mean=LEVEL, variance=noise_level**2 / 3, kurtosis=9 / 5)
    distribution = stats.uniform(LEVEL - noise_level, 2 * noise_level)
    assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 1e-4


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_speckle_grows_with_the_image(level: float) -> None:
    values = noisy(SpeckleNoise(0.2), level=level)
    check_moments(values, mean=level, variance=(0.2 * level) ** 2, kurtosis=3)


@pytest.mark.parametrize("peak", [0.5, 4.0, 100.0])
def test_poisson_counts_photons(peak: float) -> None:
    values, rate = noisy(PoissonNoise(peak)), LEVEL * peak
    check_moments(values, mean=LEVEL, variance=LEVEL / peak, kurtosis=3 + 1 / rate)
    counts = values * peak
    assert np.allclose(counts, counts.round(), atol=1e-4)  # float32 holds counts / peak
    observed = np.bincount(counts.round().astype(int).ravel())
    expected = stats.poisson(rate).pmf(np.arange(len(observed))) * values.size
    common = expected > 20  # for the normal approximation
    assert (np.abs(observed - expected)[common] < 5 * np.sqrt(expected[common])).all()


def test_there_are_no_photons_below_black() -> None:
    images = torch.full((1, 1, 8, 8), -1 / 600)
    assert not degrade(images, [PoissonNoise(1000)], seeds=SEEDS[:1]).any()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_salt_and_pepper(fraction: float) -> None:
    values = noisy(SaltAndPepper(fraction)).astype(np.float32)
    for value, chance in ((0, fraction / 2), (1, fraction / 2), (np.float32(LEVEL), 1 - fraction)):
        error = math.sqrt(chance * (1 - chance) / values.size)
        assert abs((values == value).mean() - chance) <= 5 * error
    assert np.isin(values, np.array([0, LEVEL, 1], dtype=np.float32)).all()


def test_clip() -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    free = degrade(images, [GaussianNoise(0.5)], seeds=SEEDS[:2])
    assert free.min() < 0
    assert free.max() > 1
    clipped = degrade(images, [GaussianNoise(0.5), Clip()], seeds=SEEDS[:2])
    assert np.array_equal(clipped.numpy(), np.clip(free.numpy(), 0, 1))


def test_no_noise_changes_nothing() -> None:
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    for degradation in (GaussianNoise(0), UniformNoise(0), SpeckleNoise(0), SaltAndPepper(0)):
        assert torch.equal(degrade(images, [degradation], seeds=SEEDS[:2]), images)


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), UniformNoise(0.1), PoissonNoise(50), SaltAndPepper(0.3)])
def test_images_and_pixels_are_independent(noise: Degradation) -> None:
    values = noisy(noise)
    bound = 5 / math.sqrt(values.shape[1])
    assert np.abs(np.corrcoef(values) - np.eye(len(values))).max() < bound
    for distance in (1, 2, 64, 64 * 64):  # beside, below, in the next channel
        assert abs(np.corrcoef(values[:, :-distance].ravel(), values[:, distance:].ravel())[0, 1]) < bound


def test_each_image_draws_its_own_level_from_a_range() -> None:
    seeds = torch.arange(500)
    levels = Draws(seeds).number((0.1, 0.3)).flatten()
    assert stats.kstest(levels.numpy(), stats.uniform(0.1, 0.2).cdf).pvalue > 1e-4
    noise = degrade(torch.zeros(500, 1, 32, 32), [GaussianNoise((0.1, 0.3))], seeds=seeds)
    ratio = noise.flatten(1).std(1) / levels
    assert (ratio - 1).abs().max() < 5 / math.sqrt(2 * 32 * 32)  # standard error of a standard deviation


def test_whole_numbers_include_both_ends() -> None:
    drawn = Draws(torch.arange(6000)).whole_number((3, 8)).flatten().long()
    counts = drawn.bincount().numpy()
    assert not counts[:3].any()
    assert stats.chisquare(counts[3:]).pvalue > 1e-4
    assert len(counts) == 9
