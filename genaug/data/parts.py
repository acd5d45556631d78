"""Parts of a data set, such as train and test: which are meant, and what is said when one is missing."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import Tensor

from genaug.errors import DataError, shorten

SAME = (
    ("train", "training"),
    ("val", "valid", "validation", "dev"),
    ("test", "testing", "eval", "evaluation"),
)
PART_NAMES = frozenset(name for names in SAME for name in names)
NO_PARTS = (None, "train", "all")


class MissingPart(DataError):
    """A part that data do not have."""


def choose_parts(names: Sequence[str], split: str | None, where: str) -> list[str]:
    """Return the names of the parts to load: that of `split`, "train" for None, or each for "all".

    "val", "valid", "validation" and "dev" stand for each other, as do "test", "testing" and "eval", where the exact
    name is not there.

    Raises:
        DataError: a part that is not there; the message says which are.

    >>> choose_parts(["train", "validation"], "val", "photos")
    ['validation']
    """
    if split == "all":
        return list(names)
    wanted = "train" if split is None else split
    if wanted in names:
        return [wanted]
    alike = [name for name in names if is_part(name, wanted)]
    if len(alike) == 1:
        return alike
    raise MissingPart(
        f"{where}: has no part {shorten(wanted)}; its parts are {list_names(names)}; "
        "choose one with --split NAME (split=), or 'all'"
    )


def is_part(name: str, split: str | None) -> bool:
    """Tell whether `split` means the part `name`, or one whose name stands for it.

    >>> is_part("validation", "val"), is_part("train", None), is_part("train", "all")
    (True, False, False)
    """
    wanted = "" if split is None else split.lower()
    return name.lower() in next((group for group in SAME if wanted in group), (wanted,))


def refuse_parts(split: str | None, where: str) -> None:
    """Raise a `DataError` where a part is asked for of data that have none; "train" and "all" mean all of it."""
    if split not in NO_PARTS:
        raise MissingPart(
            f"{where}: has no parts, so split {shorten(split)} cannot be chosen; leave --split out to take all of it, "
            "and pass the images of another part as data of their own"
        )


def find_part(name: str) -> str | None:
    """Return the part that the name of a file or folder tells, in lower case.

    >>> find_part("train-00000-of-00002"), find_part("latest")
    ('train', None)
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in words if word in PART_NAMES), None)


def group_files(files: Sequence[Path], base: Path) -> dict[str, list[str]]:
    """Return files by the part that their names tell, or those of their folders below `base`; "" without parts.

    Raises:
        DataError: files of which only some tell their part.
    """
    groups: dict[str, list[str]] = {}
    for file in files:
        relative = file.relative_to(base)
        words = [relative.stem, *reversed(relative.parts[:-1])]
        groups.setdefault(next(filter(None, map(find_part, words)), ""), []).append(str(file))
    if "" in groups and len(groups) > 1:
        parts = list_names(part for part in groups if part)
        raise DataError(
            f"{groups[''][0]}: its name tells no part, while other files there tell {parts}; "
            "name it after a part, or pass files with a pattern such as 'data/train-*.parquet'"
        )
    return groups


def find_split(columns: Sequence[str]) -> int | None:
    """Return the place of the column that may tell the part of each row, None without one.

    >>> find_split(["path", "Split"])
    1
    """
    return next((place for place, name in enumerate(columns) if name.lower() == "split"), None)


def group_rows(parts: Sequence[object], name_row: Callable[[int], str]) -> dict[str, list[int]]:
    """Return rows by their part, in small letters and in order; none where the column tells something else.

    `name_row` gives the words for a row in the message.

    Raises:
        DataError: some rows tell a part, and others do not.

    >>> group_rows(["train", "test", "Train"], str), group_rows(["fold 1", "fold 2"], str)
    ({'train': [0, 2], 'test': [1]}, {})
    """
    groups: dict[str, list[int]] = {}
    others: list[int] = []
    for row, part in enumerate(parts):
        name = part.strip().lower() if isinstance(part, str) else ""
        if name in PART_NAMES:
            groups.setdefault(name, []).append(row)
        else:
            others.append(row)
    if groups and others:
        raise DataError(
            f"{name_row(others[0])}: the column 'split' must tell a part, such as train or test, as other rows "
            f"do, got {shorten(parts[others[0]])}; name one, remove the row, or rename the column"
        )
    return groups


def warn_of_empty_classes(labels: Tensor, class_names: Sequence[str], where: str) -> None:
    """Warn of classes that other parts have and this one lacks."""
    counts = labels.bincount(minlength=len(class_names)).tolist()
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        warnings.warn(
            f"{where}: holds no images of {len(empty)} of the {len(class_names)} classes that all parts have together: "
            f"{list_names(empty)}",
            stacklevel=2,
        )


def say_what_is_in(folder: "str | os.PathLike[str]") -> str:
    """Return words for a message: what is in a folder, or that there is none, or none that can be read."""
    try:
        return f"{folder} holds {list_names(sorted(os.listdir(folder)))}"
    except OSError:
        return f"nor is there a folder {folder}"


def list_names(names: Iterable[object], limit: int = 10) -> str:
    """Return names for a message, the first ones only where there are many.

    >>> list_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = [shorten(str(name), 60)[1:-1] for name in names]
    if not shown:
        return "none"
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
