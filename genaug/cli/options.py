"""Options that commands share, and how errors end a command."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from genaug.errors import GenaugError

F = TypeVar("F", bound=Callable[..., Any])

Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... [default: a GPU if there is one]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]


def one_line_errors(command: F) -> F:
    """Make a command end with one line and a status: 1 after our errors, 130 after Ctrl-C, 143 after SIGTERM."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            typer.echo(str(stop) or "interrupted", err=True)
            raise typer.Exit(128 + getattr(stop, "signal_number", signal.SIGINT)) from None
        except GenaugError as problem:
            if kwargs.get("debug"):
                raise
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(1) from None

    return run  # type: ignore[return-value]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from "HEIGHTxWIDTH".

    >>> parse_size("40x24")
    (40, 24)
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 0 < int(side) <= 16_384 for side in sides):
        raise GenaugError(f"resize: must be HEIGHTxWIDTH such as 32x32, got {text!r}")
    return int(sides[0]), int(sides[1])


def default_output(name: str, given: Path | None) -> Path:
    """Return the output folder: the one given, else a folder `name` in the current one."""
    return given if given is not None else Path(name)
