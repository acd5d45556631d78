"""How many synthetic samples each class should get."""

import math
import operator
import statistics
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from genaug.errors import DataError, shorten

TARGETS: dict[str, Callable[[Sequence[int]], float]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "max": max,
}

Target = str | int | Sequence[int]


def balance(counts: Sequence[int], *, target: Target = "median", cap: float = 5.0) -> list[int]:
    """Return how many synthetic samples to add to each class, given how many real ones it has.

    Classes at or above the target get none; nor do classes without real images, about which nothing is known.

    Args:
        counts: real images of each class.
        target: total to fill classes up to: "median", "mean" or "max" of the classes with real images, rounded down;
            a number for all classes; or a list with one number for each.
        cap: at most this many synthetic samples for each real one, rounded down. Filling a class of 40 up to 4,000
            is known to hurt.

    Raises:
        DataError: negative or fractional counts, an unknown target, a cap that is negative or NaN.

    >>> balance([100, 40, 4, 0])
    [0, 0, 20, 0]
    >>> balance([100, 40, 4, 0], target="max", cap=2)
    [0, 60, 8, 0]
    """
    real = _check_numbers(counts, "counts")
    given: Any = cap
    if isinstance(given, bool) or not isinstance(given, Real) or not cap >= 0:  # written so that NaN fails too
        raise DataError(f"cap must be a number of at least 0, got {shorten(cap)}")
    totals = _resolve_target(target, real)
    return [_shortfall(count, total, cap) for count, total in zip(real, totals, strict=True)]


def _shortfall(count: int, total: int, cap: float) -> int:
    if not count or total <= count:
        return 0
    if cap * count >= total - count:
        return total - count
    return math.floor(cap * count + 1e-9)  # 0.29 * 100 is 28.999999999999996


def _resolve_target(target: Target, real: list[int]) -> list[int]:
    if isinstance(target, str):
        if target not in TARGETS:
            raise DataError(f"target must be one of {', '.join(TARGETS)}, a number or a list, got {shorten(target)}")
        present = [count for count in real if count]
        return [int(TARGETS[target](present)) if present else 0] * len(real)
    totals = _check_numbers(target, "target") if _is_list(target) else _check_numbers([target], "target") * len(real)
    if len(totals) != len(real):
        raise DataError(f"target must have one number for each of {len(real)} classes, got {len(totals)}")
    return totals


def _is_list(values: object) -> bool:
    return hasattr(values, "__len__") and getattr(values, "ndim", 1) == 1  # a NumPy number has a length of its own kind


def _check_numbers(values: object, name: str) -> list[int]:
    try:
        if any(isinstance(value, bool) for value in values):  # type: ignore[attr-defined]
            raise TypeError
        numbers = [operator.index(value) for value in values]  # type: ignore[attr-defined]
    except TypeError:
        raise DataError(f"{name} must be whole numbers, got {shorten(values)}") from None
    if any(number < 0 for number in numbers):
        raise DataError(f"{name} must be at least 0, got {shorten(values)}")
    return numbers
