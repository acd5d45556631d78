"""How sure a share is that was counted: intervals for proportions and for their differences."""

from collections.abc import Sequence
from math import sqrt

from genaug.errors import GenaugError, shorten

Z = 1.959963984540054  # of 95 %

Count = tuple[int, int]  # found, of how many


def score_interval(found: int, count: int, *, z: float = Z) -> tuple[float, float]:
    """Return the interval of Wilson 1927 for the share behind `found` out of `count`; of 95 % with the default `z`.

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = found / count, n = count

    Other than p -+ z sqrt(p (1 - p) / n) it says something where nothing was found: of 500 without a find, the share
    is below 0.8 %.

    Raises:
        GenaugError: a count below 1, or a number found that is not from 0 to the count.

    >>> low, high = score_interval(0, 500)
    >>> low, round(high, 4)
    (0.0, 0.0076)
    """
    if not (type(count) is int and type(found) is int and 0 <= found <= count and count > 0):
        raise GenaugError(
            f"found must be from 0 to count, and count at least 1, got {shorten(found)}, {shorten(count)}"
        )
    share = found / count
    center = share + z * z / (2 * count)
    reach = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((center + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return (0.0 if found == 0 else low), (1.0 if found == count else high)  # which rounding misses


def excess_interval(
    found: Sequence[Count], expected: Sequence[Count], *, weights: Sequence[float] = (1.0,), z: float = Z
) -> tuple[float, float, float]:
    """Return by how much shares exceed those they are held against, as a weighted sum, with its interval.

    Of one pair of shares p and q, with the intervals (p-, p+) and (q-, q+) of `score_interval`, it is that of method 10
    of Newcombe 1998, "Interval estimation for the difference between independent proportions":

        p - q - sqrt((p - p-)^2 + (q+ - q)^2)   to   p - q + sqrt((p+ - p)^2 + (q - q-)^2)

    Of several pairs the squares are added with the squares of their weights, as Zou & Donner 2008 do.

    Args:
        found: (how many, of how many) of each part.
        expected: the same of what it is held against.
        weights: of the parts.

    Raises:
        GenaugError: other numbers of parts and weights, or as in `score_interval`.

    >>> [round(value, 4) for value in excess_interval([(56, 70)], [(48, 80)])]  # Newcombe 1998, table II, example (a)
    [0.2, 0.0524, 0.3339]
    """
    if not len(found) == len(expected) == len(weights):
        raise GenaugError(
            f"found, expected and weights must be as many, got {len(found)}, {len(expected)} and {len(weights)}"
        )
    difference = below = above = 0.0
    for one, other, weight in zip(found, expected, weights, strict=True):
        (low, high), (other_low, other_high) = (score_interval(*counted, z=z) for counted in (one, other))
        share, control = one[0] / one[1], other[0] / other[1]
        difference += weight * (share - control)
        below += weight**2 * ((share - low) ** 2 + (other_high - control) ** 2)
        above += weight**2 * ((high - share) ** 2 + (control - other_low) ** 2)
    return difference, difference - sqrt(below), difference + sqrt(above)
