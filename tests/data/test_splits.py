"""Stratified parts and long-tailed subsets."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from genaug.data import longtail_counts, longtail_indices, stratified_split
from genaug.errors import DataError

LABELS = torch.from_numpy(load_digits().target).long()


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
)
def test_split_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    tensor = torch.tensor(labels)
    kept, held_out = stratified_split(tensor, fraction=fraction, seed=seed)
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(len(labels)))
    for part in (kept, held_out):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(part.tolist())
    for label in set(labels):
        number = labels.count(label)
        expected = min(round(number * fraction), number - 1)
        assert int((tensor[held_out] == label).sum()) == expected


def test_split_depends_on_the_seed_alone() -> None:
    first = stratified_split(LABELS, fraction=0.2, seed=3)
    again = stratified_split(LABELS, fraction=0.2, seed=3)
    other = stratified_split(LABELS, fraction=0.2, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


def test_a_class_is_split_in_the_same_way_beside_other_classes() -> None:
    few = LABELS.clone()
    few[LABELS > 4] = 4
    whole, merged = (set(stratified_split(labels, fraction=0.3, seed=0)[1].tolist()) for labels in (LABELS, few))
    for label in range(4):
        members = set(torch.nonzero(LABELS == label).flatten().tolist())
        assert whole & members == merged & members


def test_split_choices_are_spread_over_the_class() -> None:
    """Each image is held out about equally often: the expected 100 of 400 seeds, within 5 standard deviations."""
    labels = torch.zeros(20, dtype=torch.int64)
    chosen = torch.stack(
        [torch.bincount(stratified_split(labels, fraction=0.25, seed=s)[1], minlength=20) for s in range(400)]
    ).sum(0)
    assert (chosen - 100).abs().max() < 5 * math.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.1, 1.5, math.nan, math.inf, "0.2", None])
def test_split_refuses_other_fractions(fraction: Any) -> None:
    with pytest.raises(DataError, match="fraction must be between 0 and 1"):
        stratified_split(LABELS, fraction=fraction, seed=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.0]), "int64 tensor"),
        (torch.tensor([[0, 1]]), "int64 tensor"),
        ([0, 1], "got list"),
        (torch.tensor([], dtype=torch.int64), "at least one class index"),
        (torch.tensor([0, -1]), "got a smallest value of -1"),
    ],
)
def test_other_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        stratified_split(labels, fraction=0.5, seed=0)
    with pytest.raises(DataError, match=message):
        longtail_indices(labels, imbalance_factor=10, seed=0)


# Sizes of CIFAR-10-LT and CIFAR-100-LT as published for these imbalance factors.
@pytest.mark.parametrize(
    ("n_max", "classes", "factor", "total"),
    [
        (5000, 10, 100, 12_406),
        (5000, 10, 50, 13_996),
        (5000, 10, 10, 20_431),
        (500, 100, 100, 10_847),
        (500, 100, 50, 12_608),
        (500, 100, 10, 19_573),
    ],
)
def test_longtail_counts_are_the_published_ones(n_max: int, classes: int, factor: int, total: int) -> None:
    counts = longtail_counts(n_max, classes, imbalance_factor=factor)
    assert sum(counts) == total
    assert counts[0] == n_max
    assert counts[-1] == n_max // factor
    assert counts == sorted(counts, reverse=True)
    # The formula as the authors' code has it, with the factor as smallest / largest.
    assert counts == [int(n_max * ((1 / factor) ** (i / (classes - 1.0)))) for i in range(classes)]


def test_longtail_counts_of_the_benchmark() -> None:
    counts = longtail_counts(5000, 10, imbalance_factor=100)
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@given(n_max=st.integers(1, 10_000), smallest=st.integers(1, 100), classes=st.integers(2, 120))
def test_the_last_class_loses_nothing_to_rounding(n_max: int, smallest: int, classes: int) -> None:
    factor = max(n_max, smallest) / smallest
    assert longtail_counts(max(n_max, smallest), classes, imbalance_factor=factor)[-1] == smallest


def test_longtail_counts_at_the_edges() -> None:
    assert longtail_counts(40, 1, imbalance_factor=100) == [40]
    assert longtail_counts(40, 3, imbalance_factor=1) == [40, 40, 40]
    assert longtail_counts(2, 3, imbalance_factor=1e6) == [2, 1, 1]


@pytest.mark.parametrize("factor", [0.99, 0, -1, math.nan, math.inf, "100", None])
def test_longtail_refuses_other_factors(factor: Any) -> None:
    with pytest.raises(DataError, match="imbalance_factor .* finite number of at least 1"):
        longtail_counts(10, 2, imbalance_factor=factor)
    with pytest.raises(DataError, match="imbalance_factor"):
        longtail_indices(LABELS, imbalance_factor=factor, seed=0)


@pytest.mark.parametrize(("n_max", "classes", "name"), [(0, 2, "n_max"), (2.5, 2, "n_max"), (3, 0, "num_classes")])
def test_longtail_refuses_other_numbers(n_max: Any, classes: Any, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} must be an integer of at least 1"):
        longtail_counts(n_max, classes, imbalance_factor=2)


def test_longtail_indices_keep_the_counts() -> None:
    available = LABELS.bincount().tolist()
    kept = longtail_indices(LABELS, imbalance_factor=20, seed=0)
    wanted = longtail_counts(max(available), 10, imbalance_factor=20)
    assert LABELS[kept].bincount().tolist() == [min(pair) for pair in zip(wanted, available, strict=True)]
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert torch.equal(kept, longtail_indices(LABELS, imbalance_factor=20, seed=0))
    assert not torch.equal(kept, longtail_indices(LABELS, imbalance_factor=20, seed=1))


def test_longer_tails_are_subsets_of_shorter_ones() -> None:
    longer, shorter = (set(longtail_indices(LABELS, imbalance_factor=f, seed=0).tolist()) for f in (50, 5))
    assert longer < shorter
    assert len(longtail_indices(LABELS, imbalance_factor=1, seed=0)) == len(LABELS)


def test_longtail_passes_over_classes_without_images() -> None:
    labels = torch.tensor([0] * 8 + [2] * 8)
    assert labels[longtail_indices(labels, imbalance_factor=4, seed=0)].bincount().tolist() == [8, 0, 2]


def test_a_long_tail_counts_classes_that_have_no_images_here() -> None:
    labels = torch.tensor([0] * 100 + [1] * 100)
    kept = labels[longtail_indices(labels, imbalance_factor=100, seed=0, num_classes=3)]
    assert kept.bincount().tolist() == longtail_counts(100, 3, imbalance_factor=100)[:2] == [100, 10]
    assert labels[longtail_indices(labels, imbalance_factor=100, seed=0)].bincount().tolist() == [100, 1]
