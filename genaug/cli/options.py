"""Options that commands share, and how errors end a command."""

import functools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from genaug.errors import GenaugError, Interrupted

F = TypeVar("F", bound=Callable[..., Any])

Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Device = Annotated[str | None, typer.Option(help=r"cpu, cuda, cuda:1, ... \[default: a GPU if there is one]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]

Data = Annotated[
    str,
    typer.Option(
        help="'digits'; a folder of class folders; a .parquet, .csv or .tsv file; OWNER/NAME on the Hugging Face "
        "hub; or a data set of torchvision, such as FashionMNIST."
    ),
]
Split = Annotated[
    str | None, typer.Option(help=r"Part of the data, or 'all'. \[default: train, where there are parts]")
]
ImageColumn = Annotated[str | None, typer.Option(help="Column of images (parquet, hub, CSV).")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of classes (parquet, hub, CSV).")]
Root = Annotated[Path | None, typer.Option(help="Folder of a torchvision data set.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download into --root.")]
Resize = Annotated[str | None, typer.Option(help="Resize all images to HEIGHTxWIDTH.")]
Patches = Annotated[
    str | None,
    typer.Option(
        help="Cut images of any size into patches of HEIGHTxWIDTH that cover them. Classes are then not needed, and "
        "'--label-column none' takes no notice of them."
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="What a denoiser with model.supervision=pairs is to make of the images of --data, such as clean or other "
        "noisy shots: a source of the same kind, with the same file names or order."
    ),
]
Grayscale = Annotated[bool, typer.Option("--grayscale", help="Make all images gray.")]
LimitPerClass = Annotated[int | None, typer.Option(help="Use at most this many images of each class.")]
Longtail = Annotated[
    float | None,
    typer.Option(help="Use a long-tailed subset: the first class is this many times as large as the last."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out, and list, what cannot be read.")]
MemoryLimit = Annotated[
    float, typer.Option(help="Keep this many GiB of pixels in memory at most; more go to a file in TMPDIR.")
]

Test = Annotated[str | None, typer.Option(help=r"Other data to measure on. \[default: the part test of --data]")]
TestSplit = Annotated[
    str | None, typer.Option(help=r"Part of the held-out data, or 'all'. \[default: test; of --test, all]")
]

SIZES = "resize", "patches"
READING = "image_column", "label_column", "root", "download", *SIZES, "pairs", "grayscale", "skip_bad", "memory_limit"


def one_line_errors(command: F) -> F:
    """Make a command end with one line and a status: 1 after our errors, 130 after Ctrl-C, 143 after SIGTERM.

    Warnings are lines, too.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with _sigterm_interrupts(), _warnings_in_words():
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


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that what is half written is removed."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Interrupted("interrupted", number)
        signal.signal(number, signal.SIG_DFL)  # a process that was forked from this one
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print warnings on the standard error stream as they come, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *place, **rest: typer.echo(f"warning: {message}", err=True)
        yield


def parse_size(text: str | None, *, name: str = "resize") -> tuple[int, int] | None:
    """Return (height, width) from "HEIGHTxWIDTH"; `name` is that of the option, for the message.

    >>> parse_size("40x24")
    (40, 24)
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 0 < int(side) <= 16_384 for side in sides):
        raise GenaugError(f"{name}: must be HEIGHTxWIDTH such as 32x32, got {text!r}")
    return int(sides[0]), int(sides[1])


def find_reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how data are to be read, as arguments of `load_data`, among the options of a command, its `locals()`.

    >>> find_reading({"resize": "40x24", "grayscale": True, "seed": 0})
    {'resize': (40, 24), 'grayscale': True}
    """
    found = {name: options[name] for name in READING if name in options}
    return {**found, **{name: parse_size(found[name], name=name) for name in SIZES if name in found}}
