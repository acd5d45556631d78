"""The check before training, as a table."""

from datetime import timedelta

from rich.console import Console
from rich.markup import escape

from genaug.data.check import DataCheck
from genaug.workflows.reports import MAX_ROWS, make_table


def print_check(check: DataCheck, *, table: bool = True, seconds: float | None = None) -> None:
    """Print facts as a table (where `table` is set), warnings, and the estimated time, on the standard error stream."""
    console = Console(stderr=True)
    if table:
        console.print(f"{sum(check.counts.values())} images {check.size}", highlight=False)
        counts = make_table("class", "images")
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
        console.print(f"estimated time: {timedelta(seconds=round(seconds))} (hours, minutes, seconds)", highlight=False)
