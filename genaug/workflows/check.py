"""The check before training, as a table."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genaug.data.check import DataCheck

MAX_ROWS = 40


def print_check(check: DataCheck, *, table: bool = True, seconds: float | None = None) -> None:
    """Print facts as a table (where `table` is set), warnings, and the estimated time, on the standard error stream."""
    console = Console(stderr=True)
    if table:
        counts = Table(
            "class", "images", title=f"{sum(check.counts.values())} images {check.size}", title_justify="left"
        )
        for name, count in list(check.counts.items())[:MAX_ROWS]:
            counts.add_row(escape(name), str(count))
        if len(check.counts) > MAX_ROWS:
            counts.add_row(f"... {len(check.counts) - MAX_ROWS} more", "")
        console.print(counts)
        low, high = check.value_range
        console.print(f"values from {low} to {high} of 255, {check.repeated} exact duplicates", highlight=False)
    for message in check.warnings:
        console.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)
    if seconds is not None:
        console.print(f"estimated time: {_in_words(seconds)}", highlight=False)


def _in_words(seconds: float) -> str:
    """
    >>> _in_words(95), _in_words(5), _in_words(9000)
    ('1 min 35 s', '5 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
