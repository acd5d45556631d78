"""Parts that are missing: rectangles or single pixels, in all channels, that hold one value instead."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genaug.degradations.base import Degradation, Draws, Limits, Number, WholeNumber, say

SHARE = Limits(0.0, 1.0)
VALUE = Limits(0.0, 1.0, single=True)


@dataclass(frozen=True)
class MissingRectangles(Degradation):
    """Fill rectangles at random places, wholly within the image; they may overlap.

    Args:
        count: how many, from 0 to 100, or a range that each image draws its own from.
        size: of each side as a share, from 0 to 1, of that of the image, at least one pixel; or a range that
            each rectangle draws its height and its width from.
        value: fill, on the [0, 1] scale, from 0 to 1.

    Raises:
        GenaugError: a field out of its range.

    >>> MissingRectangles(count=(1, 3), size=0.25).words()
    '1 to 3 missing rectangles of 0.25'
    """

    count: WholeNumber
    size: Number
    value: float = 0.0
    kind: Literal["missing-rectangles"] = "missing-rectangles"

    limits: ClassVar[dict[str, Limits]] = {"count": Limits(0, 100, whole=True), "size": SHARE, "value": VALUE}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        counts = draws.whole_number(self.count)
        most = self.count[1] if isinstance(self.count, tuple) else self.count
        low, high = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        chance = draws.uniform(most, 2, 2)  # size and place of each rectangle's rows and columns
        sizes, places = low + (high - low) * chance[..., 0], chance[..., 1]
        rows, columns = (_stretch(side, sizes[..., i], places[..., i]) for i, side in enumerate(images.shape[-2:]))
        rows &= torch.arange(most, device="cpu")[:, None] < counts[:, 0]
        rows, columns = rows.to(images.device), columns.to(images.device)
        hidden = images.new_zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for k in range(most):
            hidden |= rows[:, k, :, None] & columns[:, k, None, :]
        return images.masked_fill(hidden[:, None], self.value)

    def words(self) -> str:
        noun = "rectangle" if self.count == 1 else "rectangles"
        return f"{say(self.count)} missing {noun} of {say(self.size)}{_say_fill(self.value)}"


@dataclass(frozen=True)
class MissingPixels(Degradation):
    """Fill single pixels.

    Args:
        fraction: share of the pixels, from 0 to 1, each missing with this probability, or a range that each image draws
            its own from.
        value: fill, on the [0, 1] scale, from 0 to 1.

    Raises:
        GenaugError: a field out of its range.

    >>> MissingPixels(fraction=0.5, value=1).words()
    'missing pixels 0.5 filled with 1'
    """

    fraction: Number
    value: float = 0.0
    kind: Literal["missing-pixels"] = "missing-pixels"

    limits: ClassVar[dict[str, Limits]] = {"fraction": SHARE, "value": VALUE}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        fractions = draws.number(self.fraction)
        hidden = draws.uniform(1, *images.shape[-2:]) < fractions
        return images.masked_fill(hidden.to(images.device), self.value)

    def words(self) -> str:
        return f"missing pixels {say(self.fraction)}{_say_fill(self.value)}"


def _say_fill(value: float) -> str:
    return f" filled with {value:g}" if value else ""


def _stretch(side: int, sizes: Tensor, places: Tensor) -> Tensor:
    """Return which pixels (N, K, side) of a side stretches cover that have these sizes and places (N, K) in [0, 1]."""
    lengths = (sizes * side).round().clamp(1, side)[..., None]
    starts = (places[..., None] * (side - lengths + 1)).floor()
    pixels = torch.arange(side, device="cpu")
    return (starts <= pixels) & (pixels < starts + lengths)
