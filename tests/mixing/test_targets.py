"""How many samples each class gets, against a closed form and at the edges."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from genaug.errors import DataError
from genaug.mixing import balance

CASES = [[100, 40, 4, 0], [1, 1, 1], [7], [0, 0], [9, 10, 11, 12], [5000, 3, 20, 800, 800], []]


@pytest.mark.parametrize("counts", CASES, ids=str)
@pytest.mark.parametrize("target", ["median", "mean", "max"])
@pytest.mark.parametrize("cap", [0, 0.29, 0.7, 1, 5.0, math.inf])
def test_against_numpy(counts: list[int], target: str, cap: float) -> None:
    present = [count for count in counts if count]
    total = int(getattr(np, target)(present)) if present else 0
    expected = []
    for count in counts:
        missing = max(total - count, 0) if count else 0
        limit = missing if math.isinf(cap) else math.floor(Fraction(str(cap)) * count)
        expected.append(min(missing, limit))
    assert balance(counts, target=target, cap=cap) == expected


def test_numbers_and_lists_as_target() -> None:
    assert balance([10, 4, 0], target=12) == [2, 8, 0]
    assert balance([10, 4, 0], target=[0, 5, 9]) == [0, 1, 0]
    assert balance([10, 4], target=np.int64(12)) == [2, 8]
    assert balance(np.array([10, 4]), target=torch.tensor([11, 4])) == [1, 0]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([1, -1], {}, "counts must be at least 0"),
        ([1.5], {}, "counts must be whole numbers"),
        ([True], {}, "counts must be whole numbers"),
        ("12", {}, "counts must be whole numbers"),
        (5, {}, "counts must be whole numbers"),
        ([1], {"cap": -1}, "cap must be"),
        ([1], {"cap": math.nan}, "cap must be"),
        ([1], {"cap": "5"}, "cap must be"),
        ([1], {"cap": True}, "cap must be"),
        ([1], {"target": "mode"}, "target must be one of median, mean, max"),
        ([1], {"target": -3}, "target must be at least 0"),
        ([1], {"target": 1.5}, "target must be whole numbers"),
        ([1], {"target": None}, "target must be whole numbers"),
        ([1, 2], {"target": [1]}, "one number for each of 2 classes, got 1"),
    ],
)
def test_wrong_values(counts: Any, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        balance(counts, **options)
