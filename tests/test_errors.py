"""Checks of numbers, and errors that other processes tell."""

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from genaug import errors
from genaug.data.decoding import UnreadableImage
from genaug.errors import GenaugError, check_number, check_ranges, check_share


@dataclass(frozen=True)
class Fields:
    width: object = 4
    count: int = 2


def test_ranges_take_numbers_alone() -> None:
    limits = {"width": (1, 8), "count": (1, 8)}
    for fields in (Fields(), Fields(width=np.float64(1.5)), Fields(width=8)):
        check_ranges(fields, limits)
    for wrong in ("4", None, True, math.nan, 9, [4]):
        with pytest.raises(GenaugError, match="^width must be from 1 to 8, got"):
            check_ranges(Fields(width=wrong), limits)
    check_ranges(Fields(width=None), limits, optional=["width"])


def test_whole_numbers_are_asked_for_where_the_type_says_so() -> None:
    limits = {"count": (1, 8)}
    for wrong in (2.5, "2", np.float64(2)):
        with pytest.raises(GenaugError, match="^count must be an integer from 1 to 8, got"):
            check_ranges(Fields(count=wrong), limits)  # type: ignore[arg-type]
    with pytest.raises(GenaugError, match="^count must be from 1 to 8, got 9"):
        check_ranges(Fields(count=9), limits)


def test_numbers_of_numpy_are_taken() -> None:
    assert check_number(np.int64(10), name="n", low=0) == 10
    assert check_share(np.float32(0.5), name="p") == 0.5
    for wrong in (np.float32("inf"), "1", True, None, -1):
        with pytest.raises(GenaugError, match="^n must be a finite number of at least 0, got"):
            check_number(wrong, name="n", low=0)


def test_errors_come_through_from_other_processes() -> None:
    """As `--jobs` needs it; an error that cannot be unpickled looks like a process that died."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GenaugError)]
    assert len(kinds) > 4
    for problem in [*(kind("what is wrong") for kind in kinds), UnreadableImage("a.png", "it is damaged")]:
        told = pickle.loads(pickle.dumps(problem))
        assert (type(told), str(told), vars(told)) == (type(problem), str(problem), vars(problem))


@pytest.mark.parametrize("fields", [Fields(width=np.float32(2)), Fields(count=np.int64(2))])  # type: ignore[arg-type]
def test_fields_hold_numbers_that_files_can_hold(fields: Fields) -> None:
    with pytest.raises(GenaugError, match=r"must be from 1 to 8, got .*2.* \(take \.item\(\)"):
        check_ranges(fields, {"width": (1, 8), "count": (1, 8)})
