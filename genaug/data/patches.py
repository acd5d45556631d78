"""Where patches of one size lie in an image of any size: a regular grid that covers all of it."""

from genaug.errors import DataError

Size = tuple[int, int]  # height, width


def place_patches(size: Size, patch: Size) -> list[tuple[int, int]]:
    """Return (top, left) of the patches of an image, row by row; none where a side is shorter than that of a patch.

    Along each side they are the least number of patches that covers it, evenly spread: they overlap a little where the
    side is no multiple of theirs.

    Args:
        size: (height, width) of the image.
        patch: (height, width) of a patch.

    >>> place_patches((5, 8), (4, 4))
    [(0, 0), (0, 4), (1, 0), (1, 4)]
    """
    tops, lefts = (_starts(side, part) for side, part in zip(size, patch, strict=True))
    return [(top, left) for top in tops for left in lefts]


def _starts(side: int, part: int) -> list[int]:
    """
    >>> _starts(10, 4), _starts(4, 4), _starts(3, 4)
    ([0, 3, 6], [0], [])
    """
    if side < part:
        return []
    last = -(-side // part) - 1
    return [index * (side - part) // max(last, 1) for index in range(last + 1)]


def check_unchanged(size: Size, measured: Size, name: str) -> None:
    """Raise a `DataError` where an image has another size than when the room for its patches was counted."""
    if size != measured:
        raise DataError(
            f"{name}: must have one size whenever it is read, since patches are counted first, got "
            f"{in_words(measured)} and then {in_words(size)} (height x width); leave random transforms out"
        )


def in_words(size: Size) -> str:
    """
    >>> in_words((321, 481))
    '321x481'
    """
    return f"{size[0]}x{size[1]}"
