"""Which of the samples that are drawn a bank takes: its filters, how many are tried, and what came of every class."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genaug.errors import DataError, DataWarning, shorten
from genaug.spec import DataSpec

MAX_DRAWS = 100
MOST_NAMED = 10  # classes that a warning names

Filter = Callable[[Tensor, Tensor], Tensor]
Short = Literal["error", "fewer"]


@dataclass(frozen=True)
class Tally:
    """Samples of one class: wanted, put in the bank, drawn, accepted by all filters, and passed by each of them."""

    wanted: int
    found: int = 0
    drawn: int = 0
    accepted: int = 0
    passed: tuple[int, ...] = ()

    @property
    def acceptance(self) -> float | None:
        """Share of the drawn that all filters accept; None where none was drawn."""
        return self.accepted / self.drawn if self.drawn else None

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Share of the drawn that each filter accepts, whatever the others say; None where none was drawn."""
        return tuple(count / self.drawn if self.drawn else None for count in self.passed)


@dataclass(frozen=True)
class Selection:
    """What `SampleBank.generate` is told of filters, tries, and classes that cannot be filled.

    Raises:
        DataError: filters that are no list of functions, another word for `short`, `max_draws` below 1.

    >>> Selection(max_draws=0)
    Traceback (most recent call last):
    genaug.errors.DataError: max_draws must be an integer of at least 1, the samples drawn for each one wanted, got 0
    """

    filters: Sequence[Filter] = ()
    short: Short = "error"
    max_draws: int = MAX_DRAWS

    def __post_init__(self) -> None:
        if not isinstance(self.filters, Sequence) or not all(callable(check) for check in self.filters):
            raise DataError(f"filters must be a list of functions or filters, got {shorten(self.filters)}")
        object.__setattr__(self, "filters", tuple(self.filters))
        if self.short not in ("error", "fewer"):
            raise DataError(f"short must be 'error' or 'fewer', got {shorten(self.short)}")
        if type(self.max_draws) is not int or self.max_draws < 1:
            raise DataError(
                "max_draws must be an integer of at least 1, the samples drawn for each one wanted, got "
                f"{shorten(self.max_draws)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What the filters are called."""
        return tuple(str(getattr(check, "__name__", type(check).__name__)) for check in self.filters)

    def check(self, spec: DataSpec, counts: Sequence[int]) -> None:
        """Check that the filters can judge the classes of which `counts` are wanted, before any sample is drawn.

        Raises:
            DataError: a filter that was fitted for other classes, or without one of those.
        """
        wanted = torch.tensor(counts).nonzero().flatten()
        for name, check in zip(self.names, self.filters, strict=True):
            judged = getattr(check, "spec", None)
            if isinstance(judged, DataSpec) and judged.class_names != spec.class_names:
                raise DataError(
                    f"filters must know the classes of source in the same order, {shorten(spec.class_names)}, got "
                    f"{name} of {shorten(judged.class_names)}; fit it on data with these classes"
                )
            check_classes = getattr(check, "check_classes", None)
            if callable(check_classes):
                check_classes(wanted)

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which of n images each filter accepts: bool (len(filters), n).

        Raises:
            DataError: a filter that returns something else than a mask (n,).
        """
        verdicts = torch.ones(len(self.filters), len(labels), dtype=torch.bool)
        for verdict, check in zip(verdicts, self.filters, strict=True):
            passed = check(images, labels)
            if not isinstance(passed, Tensor) or passed.dtype != torch.bool or passed.shape != verdict.shape:
                got = f"{passed.dtype} {tuple(passed.shape)}" if isinstance(passed, Tensor) else type(passed).__name__
                raise DataError(f"filters must return a bool tensor of shape ({len(verdict)},), got {got}")
            verdict.copy_(passed)
        return verdicts

    def refuse(self, name: str, tally: Tally) -> DataError:
        """Return the error for a class of which the filters accept too few."""
        return DataError(
            f"filters accept too few samples of class {name!r}: {tally.accepted} of {tally.drawn} drawn, "
            f"{tally.wanted} wanted; loosen the filters, train the model longer, raise max_draws ({self.max_draws}), "
            f"ask for fewer, or take those found (short='fewer'); accepted by each: {_share_out(self.names, tally)}"
        )


def warn_of_short(spec: DataSpec, names: Sequence[str], tallies: Sequence[Tally], *, stacklevel: int) -> None:
    """Warn once of all classes that have fewer samples than wanted, with what the filters `names` accept of them."""
    lines = [
        f"{name!r} {tally.found} of {tally.wanted} wanted ({tally.drawn} drawn; accepted by {_share_out(names, tally)})"
        for name, tally in zip(spec.class_names, tallies, strict=True)
        if tally.found < tally.wanted
    ]
    if lines:
        more = f", and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
        warnings.warn(
            f"the bank has fewer samples than wanted of {len(lines)} of {len(tallies)} classes: "
            f"{', '.join(lines[:MOST_NAMED])}{more}; loosen the filters, train the model longer, or raise max_draws",
            DataWarning,
            stacklevel=stacklevel + 1,
        )


def _share_out(names: Sequence[str], tally: Tally) -> str:
    shares = zip(names, tally.rates, strict=True)
    return ", ".join(f"{name} {rate or 0:.1%}" for name, rate in shares)
