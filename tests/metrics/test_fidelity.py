"""Distances of features, against closed forms and formulas written down again."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import genaug
from genaug import GenaugError
from genaug.metrics import frechet_distance, kernel_distance

Array = NDArray[np.float64]
both = pytest.mark.parametrize("distance", [frechet_distance, lambda real, other: kernel_distance(real, other, seed=0)])


def draw(rows: int, width: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing + shift


def with_moments(rows: int, mean: Array, deviation: Array, *, seed: int) -> Tensor:
    """Rows whose sample mean and sample covariance are exactly `mean` and diag(`deviation` ** 2)."""
    noise = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    noise -= noise.mean(0)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(noise.T))).T
    return torch.from_numpy(noise @ whitening * deviation + mean)


def frechet_by_numpy(one: Array, other: Array) -> float:
    """The formula with symmetric square roots, tr((C1 C2)^(1/2)) = tr((C1^(1/2) C2 C1^(1/2))^(1/2))."""
    first, second = (np.atleast_2d(np.cov(rows.T)) for rows in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)


def kernel_by_loops(one: Array, other: Array) -> float:
    """Unbiased squared MMD (Gretton et al. 2012, eq. 3) with the cubic kernel, pair by pair."""

    def mean(left: Array, right: Array, *, same: bool) -> float:
        values = [
            (float(np.dot(x, y)) / len(x) + 1) ** 3
            for i, x in enumerate(left)
            for j, y in enumerate(right)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean(one, one, same=True) + mean(other, other, same=True) - 2 * mean(one, other, same=False)


# --- Frechet distance


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    means = np.array([0.0, 1.0, -2.0]), np.array([1.0, 1.0, 0.5])
    deviations = np.array([1.0, 0.2, 3.0]), np.array([2.0, 0.2, 0.5])
    expected = ((means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2).sum()
    one, other = (with_moments(40, *moments, seed=3) for moments in zip(means, deviations, strict=True))
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_frechet_agrees_with_numpy(rows, other_rows, width, seed):
    """Also where a covariance is singular: fewer rows than features."""
    one, other = draw(rows, width, seed=seed), draw(other_rows, width, seed=seed + 1, scale=2.0, shift=0.3)
    expected = frechet_by_numpy(one.numpy(), other.numpy())
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_frechet_of_a_set_and_itself_is_zero():
    features = draw(50, 8, seed=0)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0.0, abs=1e-6)


def test_frechet_does_not_lose_digits_to_a_large_mean():
    one, other = draw(60, 4, seed=0), draw(60, 4, seed=1)
    expected = frechet_distance(one, other)
    assert frechet_distance(one + 1e6, other + 1e6) == pytest.approx(expected, rel=1e-6)


def test_the_bias_of_frechet_falls_with_the_rows():
    small, large = (
        frechet_distance(*(torch.randn(n, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)))
        for n in (20, 2000)
    )
    assert small > 5 * large > 0


# --- kernel distance


@settings(deadline=None, max_examples=15)
@given(st.integers(4, 12), st.integers(1, 6), st.integers(0, 10**6))
def test_kernel_distance_of_all_rows_is_the_unbiased_estimate(rows, width, seed):
    one, other = draw(rows, width, seed=seed, scale=0.5), draw(rows, width, seed=seed + 1, scale=0.5, shift=0.2)
    mean, deviation = kernel_distance(one, other, seed=0, subsets=2, subset_size=rows)
    expected = kernel_by_loops(one.numpy(), other.numpy())
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert deviation == pytest.approx(0.0, abs=1e-9)  # both subsets are all rows


def test_the_mean_over_subsets_comes_near_the_estimate_of_all_rows():
    one, other = draw(60, 4, seed=0, scale=0.5), draw(80, 4, seed=1, scale=0.5, shift=0.5)
    mean, deviation = kernel_distance(one, other, seed=0, subsets=2000)
    full = kernel_by_loops(one.numpy(), other.numpy())
    assert mean == pytest.approx(full, abs=5 * deviation / math.sqrt(2000))


def test_kernel_distance_is_zero_on_average_for_one_distribution():
    values = [
        kernel_distance(*(torch.randn(12, 3, generator=torch.Generator().manual_seed(2 * s + k)) for k in (0, 1)),
                        seed=0, subsets=1, subset_size=12)[0]
        for s in range(300)
    ]  # fmt: skip
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kernel_distance_depends_on_its_seed_alone():
    one, other = draw(40, 4, seed=0), draw(40, 4, seed=1)
    first = kernel_distance(one, other, seed=7)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(123)
        assert kernel_distance(one, other, seed=7) == first
    assert kernel_distance(one, other, seed=8) != first


@pytest.mark.parametrize(("rows", "size"), [((40, 40), 20), ((40, 11), 5), ((4, 4), 2), ((2500, 2100), 1000)])
def test_the_default_subset_is_half_of_the_smaller_set_up_to_1000(rows, size):
    one, other = draw(rows[0], 2, seed=0), draw(rows[1], 2, seed=1)
    found = kernel_distance(one, other, seed=0, subsets=1)
    assert found == kernel_distance(one, other, seed=0, subsets=1, subset_size=size)


# --- both


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_in_float64_whatever_the_features_are(distance, dtype):
    one, other = draw(50, 4, seed=0).to(dtype), draw(50, 4, seed=1).to(dtype)
    assert distance(one, other) == distance(one.double(), other.double())


@both
def test_features_that_need_a_gradient(distance):
    one, other = draw(20, 4, seed=0).requires_grad_(), draw(20, 4, seed=1)
    assert distance(one, other) == distance(one.detach(), other)
    assert one.grad is None


@both
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda features: features[:1], ["synthetic must have at least", "(1, 4)"]),
        (lambda features: features[:, :0], ["synthetic must have at least", "(20, 0)"]),
        (lambda features: features[:, :3], ["as wide, got 4 and 3 features"]),
        (lambda features: features[:, :, None], ["synthetic must be a tensor of floats (N, F)", "(20, 4, 1)"]),
        (lambda features: features.long(), ["synthetic must be a tensor of floats", "int64"]),
        (lambda features: features.tolist(), ["synthetic must be a tensor of floats", "list"]),
        (lambda features: features / 0, ["synthetic must be finite"]),
        (lambda features: features * float("nan"), ["synthetic must be finite"]),
    ],
    ids=["one-row", "no-column", "narrow", "three-dimensional", "integers", "list", "infinite", "nan"],
)
def test_features_that_are_refused(distance: Callable[..., Any], change, words):
    features = draw(20, 4, seed=0)
    with pytest.raises(GenaugError) as caught:
        distance(features, change(features))
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(GenaugError):
        distance(change(features), features)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subset_size": 21}, "subset_size must be an integer from 2 to 20"),
        ({"subset_size": 1}, "subset_size must be an integer from 2 to 20"),
        ({"subset_size": 5.0}, "subset_size must be an integer from 2 to 20"),
        ({"subsets": 0}, "subsets must be an integer of at least 1, got 0"),
        ({"seed": "0"}, "seed must be an integer"),
    ],
)
def test_numbers_that_are_refused(options, words):
    with pytest.raises(GenaugError, match=words):
        kernel_distance(draw(20, 4, seed=0), draw(30, 4, seed=1), **{"seed": 0, **options})


def test_torchmetrics_is_imported_only_where_it_computes():
    code = "import sys, genaug.evaluate, genaug.features, genaug.metrics; assert 'torchmetrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(genaug.__file__).parents[1], check=True)
