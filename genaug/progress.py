"""One progress bar for all long work: rate, time left, and the figures that the work reports."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[..., None]


@contextmanager
def progress_bar(description: str, *, total: int, done: int = 0, enabled: bool = True) -> Iterator[Update]:
    """Yield `update(advance=1, description=None, **figures)`, which moves a bar on the standard error stream.

    Where that stream is no terminal, a line is printed for every tenth of the work instead.

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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}"),
        console=console,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )
    task = progress.add_task(description, total=total, completed=done, rate="", figures="")
    state = progress.tasks[0]
    printed = 10 * done // max(total, 1)

    def update(advance: int = 1, description: str | None = None, **figures: float) -> None:
        nonlocal printed
        rate = f"{state.speed:.1f}/s" if state.speed else ""
        text = " ".join(f"{name} {value:.3g}" for name, value in figures.items()) or state.fields["figures"]
        progress.update(task, advance=advance, description=description, rate=rate, figures=text)
        tenth = 10 * int(state.completed) // max(total, 1)
        if not console.is_terminal and tenth > printed:
            printed = tenth
            line = f"{state.description} {int(state.completed)}/{total} {text}".rstrip()
            console.print(line, highlight=False, soft_wrap=True)

    with progress:
        yield update
