"""Intervals of differences of shares against the examples of Newcombe 1998."""

import math

import pytest

from genaug import GenaugError
from genaug.metrics.proportions import excess_interval


@pytest.mark.parametrize(
    ("found", "expected", "low", "high"),
    [  # table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_interval_of_a_difference_is_that_of_newcombe(found, expected, low, high):
    excess = excess_interval([found], [expected])
    assert excess == pytest.approx((found[0] / found[1] - expected[0] / expected[1], low, high), abs=5e-5)
    swapped = excess_interval([expected], [found])
    assert swapped == pytest.approx((-excess[0], -excess[2], -excess[1]))


def test_a_weighted_sum_of_equal_parts_is_surer_by_the_root_of_their_number():
    one = excess_interval([(9, 10)], [(3, 10)])
    four = excess_interval([(9, 10)] * 4, [(3, 10)] * 4, weights=[0.25] * 4)
    assert four[0] == pytest.approx(one[0])
    assert [end - four[0] for end in four[1:]] == pytest.approx([(end - one[0]) / math.sqrt(4) for end in one[1:]])


def test_parts_of_other_numbers():
    with pytest.raises(GenaugError, match="must be as many, got 2, 1 and 1"):
        excess_interval([(0, 1), (0, 1)], [(0, 1)])
