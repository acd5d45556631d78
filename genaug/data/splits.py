"""Which images are kept: stratified parts and long-tailed subsets, as functions of labels and a seed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genaug.errors import DataError, check_count, shorten
from genaug.seeding import make_generator


def stratified_split(labels: Tensor, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices that are kept and those held out, in ascending order, with `fraction` held out of each class.

    Of a class with n images round(n * fraction) are held out, but at least one is kept.

    Args:
        labels: int64 (N,), class indices.
        fraction: share to hold out, between 0 and 1.
        seed: of the choice; each class draws on its own, so that it does not depend on the others.

    Raises:
        DataError: labels of another kind, or a fraction that is not between 0 and 1.

    >>> kept, held_out = stratified_split(torch.tensor([0, 0, 0, 1, 1, 1]), fraction=1 / 3, seed=0)
    >>> len(kept), len(held_out)
    (4, 2)
    """
    _check_labels(labels)
    if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise DataError(
            f"fraction must be between 0 and 1 (both excluded), got {shorten(fraction)}; pass for example 0.2"
        )
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = _shuffled_members(labels, label, seed, "split")
        number = min(round(len(members) * fraction), len(members) - 1)
        held_out[members[:number]] = True
    return torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()


def longtail_counts(n_max: int, num_classes: int, *, imbalance_factor: float) -> list[int]:
    """Return the class sizes n_max * IF ** (-i / (C - 1)), truncated, of the long-tailed benchmarks (at least 1).

    The profile of Cao et al. 2019, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss":
    exponential, from `n_max` for the first class to `n_max / imbalance_factor` for the last.

    Raises:
        DataError: a number below 1, or an imbalance factor that is below 1 or not finite.

    >>> longtail_counts(5000, 10, imbalance_factor=100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    for name, value in (("n_max", n_max), ("num_classes", num_classes)):
        check_count(value, name=name, error=DataError)
    valid = isinstance(imbalance_factor, (int, float)) and math.isfinite(imbalance_factor)
    if not valid or imbalance_factor < 1:
        raise DataError(
            f"imbalance_factor (largest class / smallest class) must be a finite number of at least 1, "
            f"got {shorten(imbalance_factor)}; pass for example 100"
        )
    last = max(num_classes - 1, 1)
    # A product that is whole in exact arithmetic, such as the last class's, must not lose 1 to rounding.
    return [max(1, int(n_max * imbalance_factor ** (-i / last) + 1e-6)) for i in range(num_classes)]


def longtail_indices(labels: Tensor, *, imbalance_factor: float, seed: int, num_classes: int | None = None) -> Tensor:
    """Return the indices, in ascending order, of a long-tailed subset: class 0 is the largest, the last the smallest.

    Class i keeps the first n_i images of a shuffle of its own, or all where it has fewer; n_i are `longtail_counts`
    from the largest class's size on. A larger imbalance factor keeps a subset of what a smaller one keeps.

    Args:
        labels: int64 (N,), class indices.
        imbalance_factor: size of the first class over that of the last, at least 1.
        seed: of the choice.
        num_classes: how many classes there are, where the last ones may have no labels here; None goes by the labels.

    Raises:
        DataError: labels of another kind, or an imbalance factor that is below 1 or not finite.

    >>> labels = torch.tensor([0] * 10 + [1] * 10)
    >>> labels[longtail_indices(labels, imbalance_factor=5, seed=0)].bincount().tolist()
    [10, 2]
    """
    _check_labels(labels)
    available = labels.bincount(minlength=num_classes or 0).tolist()
    counts = longtail_counts(max(available), len(available), imbalance_factor=imbalance_factor)
    kept = [_shuffled_members(labels, label, seed, "longtail")[:count] for label, count in enumerate(counts)]
    return torch.cat(kept).sort().values


def limit_indices(labels: Tensor, *, limit: int, seed: int) -> Tensor:
    """Return the indices, in ascending order, of at most `limit` images of each class: the first of a shuffle.

    A larger limit keeps what a smaller one keeps, and each class draws on its own.

    Args:
        labels: int64 (N,), class indices.
        limit: images of each class, at least 1.
        seed: of the choice.

    Raises:
        DataError: labels of another kind, or a limit below 1.

    >>> labels = torch.tensor([0] * 10 + [1] * 2)
    >>> labels[limit_indices(labels, limit=3, seed=0)].bincount().tolist()
    [3, 2]
    """
    _check_labels(labels)
    limit = check_count(limit, name="limit", error=DataError)
    kept = [_shuffled_members(labels, label, seed, "limit")[:limit] for label in labels.unique().tolist()]
    return torch.cat(kept).sort().values


def count_indices(labels: Tensor, counts: Sequence[int], *, seed: int) -> Tensor:
    """Return the indices, in ascending order, of so many images of each class: the first of a shuffle.

    Args:
        labels: int64 (N,), class indices.
        counts: images of each class, of at least one.
        seed: of the choice; each class draws on its own.

    Raises:
        DataError: labels of another kind, another number of counts than of classes, or fewer images than are asked for.

    >>> labels = torch.tensor([0] * 10 + [1] * 10)
    >>> labels[count_indices(labels, [4, 2], seed=0)].bincount().tolist()
    [4, 2]
    """
    _check_labels(labels)
    available = labels.bincount().tolist()
    if len(counts) != len(available) or any(type(count) is not int for count in counts) or not sum(counts):
        raise DataError(
            f"counts must be an integer for each of {len(available)} classes, not all 0, got {shorten(counts)}"
        )
    short = {label: count for label, count in enumerate(counts) if not 0 <= count <= available[label]}
    if short:
        raise DataError(f"counts must be from 0 to the images of each class {shorten(available)}, got {shorten(short)}")
    kept = [_shuffled_members(labels, label, seed, "counts")[:count] for label, count in enumerate(counts)]
    return torch.cat(kept).sort().values


def _shuffled_members(labels: Tensor, label: int, seed: int, purpose: str) -> Tensor:
    members = torch.nonzero(labels == label).flatten()
    return members[torch.randperm(len(members), generator=make_generator(seed, purpose, label))]


def _check_labels(labels: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"labels must be an int64 tensor of shape (N,), got {got}; convert with torch.as_tensor")
    if not len(labels) or int(labels.min()) < 0:
        got = f"a smallest value of {int(labels.min())}" if len(labels) else "none"
        raise DataError(f"labels must be at least one class index of at least 0, got {got}")
