"""How sure a share is that was counted: intervals for proportions and for their differences."""

from collections.abc import Sequence
from math import sqrt

from genaug.errors import GenaugError

Count = tuple[int, int]  # found, of how many


def excess_interval(
    found: Sequence[Count], expected: Sequence[Count], *, weights: Sequence[float] = (1.0,)
) -> tuple[float, float, float]:
    """Return by how much shares exceed those they are held against, as a weighted sum, with its interval of 95 %.

    Of one pair of shares p and q, with the score intervals (p-, p+) and (q-, q+) of Wilson 1927, it is that of method
    10 of Newcombe 1998, "Interval estimation for the difference between independent proportions":

        p - q - sqrt((p - p-)^2 + (q+ - q)^2)   to   p - q + sqrt((p+ - p)^2 + (q - q-)^2)

    Of several pairs the squares are added with the squares of their weights, as Zou & Donner 2008 do.

    Args:
        found: (how many, of how many) of each part.
        expected: the same of what it is held against.
        weights: of the parts.

    Raises:
        GenaugError: other numbers of parts and weights.
        ValueError: a count below 1, or more found than there are.

    >>> [round(value, 4) for value in excess_interval([(56, 70)], [(48, 80)])]  # Newcombe 1998, table II, example (a)
    [0.2, 0.0524, 0.3339]
    """
    if not len(found) == len(expected) == len(weights):
        raise GenaugError(
            f"found, expected and weights must be as many, got {len(found)}, {len(expected)} and {len(weights)}"
        )
    difference = below = above = 0.0
    for one, other, weight in zip(found, expected, weights, strict=True):
        (low, high), (other_low, other_high) = (_score_interval(*counted) for counted in (one, other))
        share, control = one[0] / one[1], other[0] / other[1]
        difference += weight * (share - control)
        below += weight**2 * ((share - low) ** 2 + (other_high - control) ** 2)
        above += weight**2 * ((high - share) ** 2 + (control - other_low) ** 2)
    return difference, difference - sqrt(below), difference + sqrt(above)


def _score_interval(found: int, count: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(found, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
