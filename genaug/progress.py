"""One progress bar for all long work: rate, time left, and the figures that the work reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

Update = Callable[..., None]


@contextmanager
def progress_bar(description: str, *, total: int, done: int = 0, enabled: bool = True) -> Iterator[Update]:
    """Yield `update(advance=1, description=None, **figures)`, which moves a bar on the standard error stream.

    Where that stream is no terminal, a line is printed for every tenth of the work instead. Rate and time left follow
    from all that was done since the bar appeared: work may advance in leaps, minutes apart.

    Args:
        description: what is being done.
        total: number of steps in all.
        done: steps that were done before.
        enabled: False shows nothing.

    >>> with progress_bar("counting", total=3, enabled=False) as update:
    ...     for number in range(3):
    ...         update(loss=float(number))
    """
    if not enabled:
        yield lambda advance=1, description=None, **figures: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}"),
        console=console,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )
    task = progress.add_task(description, total=total, completed=done, rate="", left="", figures="")
    state, began = progress.tasks[0], time.monotonic()
    printed = 10 * done // max(total, 1)

    def update(advance: int = 1, description: str | None = None, **figures: float) -> None:
        nonlocal printed
        now = int(state.completed) + advance
        left = estimate_left(time.monotonic() - began, done=now - done, remaining=total - now)
        rate = "" if left is None else f"{(now - done) / (time.monotonic() - began):.1f}/s"
        told = "" if left is None else f"{timedelta(seconds=round(left))} left"
        text = " ".join(f"{name} {value:.3g}" for name, value in figures.items()) or state.fields["figures"]
        progress.update(task, advance=advance, description=description, rate=rate, left=told, figures=text)
        tenth = 10 * now // max(total, 1)
        if not console.is_terminal and tenth > printed:
            printed = tenth
            line = " ".join(part for part in (f"{state.description} {now}/{total}", told, text) if part)
            console.print(line, highlight=False, soft_wrap=True)

    with progress:
        yield update


def estimate_left(elapsed: float, *, done: int, remaining: int) -> float | None:
    """Return the seconds that the remaining steps take if they take as long as those done; None where none are.

    >>> estimate_left(600.0, done=3000, remaining=36000)
    7200.0
    >>> estimate_left(0.0, done=0, remaining=10)
    """
    return elapsed / done * remaining if done > 0 and elapsed > 0 else None
