"""What all degradations share: checked fields, and random numbers that an image draws from its own generator."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten


class _OwnRule:
    """Makes pydantic leave a field to the class: one rule for it, and one wording of what is wrong with it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()


Number = Annotated[float | tuple[float, float], _OwnRule()]  # or the range that each image draws its own from
WholeNumber = Annotated[int | tuple[int, int], _OwnRule()]  # both ends belong to the range


class Limits(NamedTuple):
    """What a field may hold: numbers from `low` to `high`, whole ones, a single one or also a range of them."""

    low: float
    high: float
    whole: bool = False
    single: bool = False


class Degradation(ABC):
    """Base of the degradations: frozen dataclasses with a `kind`, their own `limits` and `apply`.

    Raises:
        GenaugError: a field out of its limits, or another class's kind.
    """

    kind: str
    limits: ClassVar[dict[str, Limits]] = {}

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.kind != type(self).kind:
            raise GenaugError(f"kind must be {type(self).kind!r}, got {shorten(self.kind)}; leave it out")
        for name, limits in self.limits.items():
            object.__setattr__(self, name, _check(getattr(self, name), limits, name=name))

    @abstractmethod
    def apply(self, images: Tensor, draws: "Draws") -> Tensor:
        """Return a degraded copy of images (N, C, H, W), float32 on any scale and device, with N at least 1.

        Raises:
            DataError: images that this cannot be done to.
        """

    @abstractmethod
    def words(self) -> str:
        """Return a few words for a row of a table."""


def _check(value: object, limits: Limits, *, name: str) -> float | tuple[float, float]:
    """Return a number, or a pair of them as a tuple, as plain Python numbers within `limits`."""
    convert: Callable[[Any], float] = int if limits.whole else float
    parts = tuple(value) if isinstance(value, (tuple, list)) and not limits.single else (value,)
    if all(_is_within(part, limits) for part in parts):
        numbers = tuple(convert(part) for part in parts)
        if numbers and not isinstance(value, (tuple, list)):
            return numbers[0]
        if len(numbers) == 2 and numbers[0] <= numbers[1]:
            return numbers[0], numbers[1]
    rule = f"a {'whole ' if limits.whole else ''}number from {limits.low:g} to {limits.high:g}"
    pair = "" if limits.single else " or a range [low, high] of them"
    raise GenaugError(f"{name} must be {rule}{pair}, got {shorten(value)}")


def _is_within(value: Any, limits: Limits) -> bool:
    kind: Any = Integral if limits.whole else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return bool(limits.low <= value <= limits.high)  # NaN is not; integers of any size are compared


def say(value: float | tuple[float, float]) -> str:
    """Return a number or a range in words.

    >>> say(0.1), say((0, 0.22))
    ('0.1', '0 to 0.22')
    """
    return " to ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"


class Draws:
    """Random numbers for N images on the CPU, each image's from its own generator: the same in any batch.

    Args:
        seeds: one for each image, int64 (N,).

    >>> both, second = Draws(torch.tensor([3, 7])), Draws(torch.tensor([7]))
    >>> torch.equal(both.normal(1, 4, 4)[1:], second.normal(1, 4, 4))
    True
    """

    def __init__(self, seeds: Tensor) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers (N, *shape), float32."""
        numbers = self._make(shape)
        for row, generator in zip(numbers.unbind(), self._generators, strict=True):
            row.normal_(generator=generator)
        return numbers

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers (N, *shape) uniform in [0, 1), float32."""
        numbers = self._make(shape)
        for row, generator in zip(numbers.unbind(), self._generators, strict=True):
            row.uniform_(generator=generator)
        return numbers

    def poisson(self, rates: Tensor) -> Tensor:
        """Return Poisson counts of `rates` (N, ...), float32 on the CPU.

        They come from generators seeded by those of the images: how many numbers a count takes depends on its rate, and
        what is drawn next must not.
        """
        counts, own = torch.empty_like(rates), torch.Generator()
        for count, rate, generator in zip(counts.unbind(), rates.unbind(), self._generators, strict=True):
            seed = torch.randint(2**62, (1,), generator=generator, device="cpu")
            count.copy_(torch.poisson(rate, generator=own.manual_seed(int(seed))))
        return counts

    def number(self, value: float | tuple[float, float]) -> Tensor:
        """Return numbers (N, 1, 1, 1), float32: `value`, or drawn uniformly from that range."""
        if not isinstance(value, tuple):
            return self._make((1, 1, 1)).fill_(value)
        low, high = value
        return low + (high - low) * self.uniform(1, 1, 1)

    def whole_number(self, value: int | tuple[int, int]) -> Tensor:
        """Return whole numbers (N, 1, 1, 1), float32: `value`, or drawn uniformly from that range, ends included."""
        if not isinstance(value, tuple):
            return self.number(value)
        low, high = value
        return low + (self.uniform(1, 1, 1) * (high - low + 1)).floor()

    def _make(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(len(self._generators), *shape, dtype=torch.float32, device="cpu")
