"""Errors that a user of genaug can cause; each message names the argument, the rule, the value and the fix."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


class GenaugError(ValueError):
    """Base of every error that genaug raises on purpose; the command line prints it as one line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))  # names of files and fields may hold line breaks


class DataError(GenaugError):
    """Images, labels, data sets or banks that do not fit what was asked of them."""


class CheckpointError(GenaugError):
    """A checkpoint, training state or tensor file that is missing, damaged or of another kind."""


class RecipeError(GenaugError):
    """A recipe, or an override of one of its fields, that cannot be used."""


class TrainingError(GenaugError):
    """Training that cannot go on, such as a loss that is not finite."""


class DataWarning(UserWarning):
    """Something about the data that will probably spoil what is learned from them."""


class TrainingWarning(UserWarning):
    """Training goes wrong in a way that its loss does not show."""


class ResumeWarning(UserWarning):
    """A run that is resumed in a way that changes its result."""


class Interrupted(KeyboardInterrupt):
    """Work stopped by a signal, `signal_number`; of training, after its state was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put words for what is wrong before the message of a `DataError`."""
    try:
        yield
    except DataError as problem:
        raise DataError(f"{where}: {problem}") from None


def shorten(value: object, limit: int = 80) -> str:
    """Return the `repr` of `value` for an error message, cut to `limit` characters and kept on one line.

    >>> shorten("a" * 100, limit=10)
    "'aaaaaa..."
    """
    try:
        text = " ".join(repr(value).splitlines())
    except Exception:  # such as nesting too deep, or an integer of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def check_share(value: object, *, name: str) -> float:
    """Return a number from 0 to 1 as a float; NumPy's are taken, text and truth values are not.

    Raises:
        GenaugError: anything else; the message calls it `name`.

    >>> check_share(0.5, name="p")
    0.5
    """
    return check_number(value, name=name, low=0, high=1)


def check_number(value: object, *, name: str, low: float, high: float = math.inf) -> float:
    """Return a finite number from `low` to `high` as a float; NumPy's are taken, text and truth values are not.

    Raises:
        GenaugError: anything else; the message calls it `name`.

    >>> check_number(1, name="shrinkage", low=0)
    1.0
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not (low <= number <= high and number < math.inf):
        rule = f"from {low:g} to {high:g}" if high < math.inf else f"a finite number of at least {low:g}"
        raise GenaugError(f"{name} must be {rule}, got {shorten(value)}")
    return number


def check_count(
    value: object, *, name: str, least: int = 1, advice: str = "", error: type[GenaugError] = GenaugError
) -> int:
    """Return an integer of at least `least` as an int; NumPy's are taken, truth values are not.

    Raises:
        GenaugError: anything else, as an `error` that calls it `name` and ends with `advice`.

    >>> check_count(3, name="jobs")
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise error(f"{name} must be an integer of at least {least}, got {shorten(value)}{advice}")
    return int(value)


def check_choice(value: object, known: Iterable[object], *, name: str, error: type[GenaugError] = GenaugError) -> None:
    """Check that a value is one of those that are known.

    Raises:
        GenaugError: another one, as an `error` that calls it `name`.

    >>> check_choice("mse", ["mse", "mae"], name="loss")
    """
    listed = list(known)
    if value not in listed:
        raise error(f"{name} must be one of {', '.join(map(str, listed))}, got {shorten(value)}")


def check_ranges(fields: object, limits: Mapping[str, tuple[float, float]], *, optional: Sequence[str] = ()) -> None:
    """Check that each named field of an object is a number from the first to the last of its two limits.

    Fields of a dataclass whose type is `int` must be integers, and all be numbers of Python: NumPy's cannot be saved.

    Args:
        fields: an object with these attributes, such as a configuration.
        limits: lowest and highest value by name.
        optional: fields that may be None.

    Raises:
        GenaugError: a field that is not.

    >>> from types import SimpleNamespace
    >>> check_ranges(SimpleNamespace(width=0), {"width": (1, 8)})
    Traceback (most recent call last):
    ...
    genaug.errors.GenaugError: width must be from 1 to 8, got 0
    """
    whole = {field.name: field.type in (int, "int") for field in getattr(fields, "__dataclass_fields__", {}).values()}
    for name, (low, high) in limits.items():
        value: Any = getattr(fields, name)
        usable = isinstance(value, int if whole.get(name) else int | float) and not isinstance(value, bool)
        number = value if usable else math.nan
        if not (value is None and name in optional) and not low <= number <= high:
            kind = "an integer " if whole.get(name) and not isinstance(value, Integral) else ""
            hint = " (take .item() of it)" if isinstance(value, Real) and hasattr(value, "item") else ""
            raise GenaugError(f"{name} must be {kind}from {low:g} to {high:g}, got {shorten(value)}{hint}")
