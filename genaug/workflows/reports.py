"""What commands that measure print and write alike: tables, lines, versions."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from genaug import __version__
from genaug.evaluate.figures import show

MAX_ROWS = 40  # of a table, one for each class


def make_table(*columns: str, title: str | None = None) -> Table:
    """Return a table of names, in the first column, where none is cut short, and numbers."""
    table = Table(*columns, title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def say(*lines: str) -> None:
    """Print lines as they are, however long."""
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def percent(figures: Mapping[str, float | None]) -> str:
    """Return mean and standard deviation ("mean", "std") of a share in words; of one seed there is no deviation.

    >>> percent({"mean": 0.5, "std": 0.01}), percent({"mean": 0.5, "std": None})
    ('50.0 ± 1.0', '50.0')
    """
    mean, deviation = figures["mean"], figures["std"]
    return show(mean, 1, scale=100) if deviation is None else f"{show(mean, 1, scale=100)} ± {100 * deviation:.1f}"


def with_versions(values: dict[str, Any]) -> dict[str, Any]:
    """Return figures to write with the versions that they were taken with.

    >>> list(with_versions({"fid": 1.0})["versions"])
    ['genaug', 'torch']
    """
    return {**values, "versions": {"genaug": __version__, "torch": torch.__version__}}
