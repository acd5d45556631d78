"""Which samples of a source go into a data set: whether they fit it, and which rows of a bank, for each class."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.errors import DataError, shorten
from genaug.mixing.kinds import ImageKind
from genaug.mixing.targets import Target, balance
from genaug.seeding import derive_seed, make_generator
from genaug.spec import DataSpec


@dataclass(frozen=True)
class Choice:
    """The samples that fill up the scarce classes of a real data set.

    `real_counts` are the real images of each of its `classes`; `wanted` is, for each of them, its index in the source
    and how many samples to add; `bank` has those samples, and is None where a model need not be drawn from.
    """

    classes: list[str]
    real_counts: list[int]
    wanted: list[tuple[int, int]]
    bank: SampleBank | None

    @property
    def synthetic_counts(self) -> list[int]:
        """Samples to add to each class."""
        return [extra for _, extra in self.wanted]


def choose_samples(
    source: Any,
    image: ImageKind,
    *,
    labels: list[int],
    class_names: tuple[str, ...] | None,
    target: Target,
    cap: float,
    seed: int,
    transformed: bool,
    stacklevel: int = 4,
) -> Choice:
    """Return the samples of `source` that fill up a real data set, having checked that they fit it.

    Args:
        source: a bank, or a model, which is drawn from once, into memory.
        image: the kind of the real images.
        labels: class index of every real image.
        class_names: of the real data set, where it has any.
        target: see `balance`.
        cap: see `balance`.
        seed: of what a model draws.
        transformed: whether a transform of the real data set follows, which may resize.
        stacklevel: of the warning that samples repeat.

    Raises:
        DataError: classes, sizes or channels of `source` that differ; labels that are no class; no samples of a class
            that needs some.
    """
    check_fit(image, source.spec, transformed=transformed)
    classes = list(class_names or source.spec.class_names)
    matching = match_classes(class_names, source.spec)
    real_counts = count_labels(labels, len(classes))
    wanted = list(zip(matching, balance(real_counts, target=target, cap=cap), strict=True))
    bank = as_bank(source, [extra for _, extra in sorted(wanted)], seed=derive_seed(seed, "mixing"))
    if bank is not None:
        check_fit(image, bank.spec, transformed=transformed)
        check_supply(bank, wanted, stacklevel=stacklevel)
    return Choice(classes, real_counts, wanted, bank)


def as_bank(source: Any, counts: list[int], *, seed: int) -> SampleBank | None:
    """Return `source` as a bank; a model is drawn from, and gives None where `counts` ask for nothing."""
    if isinstance(source, SampleBank):
        return source
    return SampleBank.generate(source, counts, seed=seed, progress=False) if sum(counts) else None


def check_supply(bank: SampleBank, wanted: list[tuple[int, int]], *, stacklevel: int = 3) -> None:
    """Check that a bank has samples of each (class, count); warn where they are fewer than wanted.

    Raises:
        DataError: none at all of a class that needs some.
    """
    names, counts = bank.spec.class_names, bank.counts
    missing = [names[index] for index, count in wanted if count and not counts[index]]
    if missing:
        raise DataError(f"source must have samples of the classes that need some, it has none of {shorten(missing)}")
    short = {names[index]: (count, counts[index]) for index, count in wanted if count > counts[index]}
    if short:
        warnings.warn(
            f"the bank has fewer samples than wanted, so some repeat (class: wanted, there): {shorten(short)}",
            UserWarning,
            stacklevel=stacklevel,
        )


def choose_rows(bank: SampleBank, wanted: list[tuple[int, int]], *, seed: int, keys: Sequence[str | int]) -> Tensor:
    """Return rows of the bank for each (class, count), in order: the start of a permutation, repeated as needed.

    Args:
        bank: the bank.
        wanted: class index in the bank, and number of samples.
        seed: of the permutations.
        keys: what they depend on besides the seed and the class.
    """
    chosen = [torch.zeros(0, dtype=torch.int64)]
    for index, count in wanted:
        start, stop = bank.rows(index)
        if count:
            order = torch.randperm(stop - start, generator=make_generator(seed, *keys, index))
            chosen.append(start + order[torch.arange(count) % len(order)])
    return torch.cat(chosen)


def check_fit(image: ImageKind, spec: DataSpec, *, transformed: bool) -> None:
    """Check that images of a source can be made into real ones of a kind.

    Args:
        image: the kind of the real images.
        spec: the source's.
        transformed: whether a transform of the real data set follows, which may resize.

    Raises:
        DataError: other channels, or another size where no transform follows.
    """
    image.check_channels(spec.channels)
    fits = spec.height in (None, image.height) and spec.width in (None, image.width)
    if not transformed and not fits:
        raise DataError(
            f"source must have images of the size of real ({image.size}), got {spec.size}; "
            "give real a transform that resizes, or use a model of that size"
        )


def match_classes(names: tuple[str, ...] | None, spec: DataSpec) -> list[int]:
    """Return the index in the source of each real class: by name where real has names.

    Raises:
        DataError: other classes.

    >>> match_classes(("b", "a"), DataSpec(1, class_names=("a", "b")))
    [1, 0]
    """
    if names is None:
        return list(range(spec.num_classes))
    if sorted(names) != sorted(spec.class_names):
        raise DataError(
            f"source must have the classes of real, got {shorten(spec.class_names)} for {shorten(names)}; "
            "use a model trained on these classes, or rename them"
        )
    return [spec.class_names.index(name) for name in names]


def count_labels(labels: list[int], num_classes: int) -> list[int]:
    """Return how many of the class indices `labels`, which are not empty, are of each class.

    Raises:
        DataError: an index that is no class.

    >>> count_labels([2, 0, 2], 3)
    [1, 0, 2]
    """
    if min(labels) < 0 or max(labels) >= num_classes:
        raise DataError(
            f"labels of real must be from 0 to {num_classes - 1}, got values from {min(labels)} to {max(labels)}; "
            "use a source with all classes, and leave out items without a class"
        )
    counts: list[int] = np.bincount(labels, minlength=num_classes).tolist()
    return counts
