"""Labels of any kind (names, numbers, floats that are whole) as class indices with names."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from genaug.errors import DataError, shorten
from genaug.spec import MAX_CLASSES

FIX = "give it a class or remove the row"
NO_CLASSES = "none"  # as `label_column`, where classes are not needed
ONE_CLASS = ("image",)  # of data without classes
PATCHES = "data without classes can be cut for a denoiser with --patches 96x96 (patches=)"

Classes = Literal["needed", "optional", "none"]


class Columns(NamedTuple):
    """The columns of a source, None where they are to be found, and whether its images must have classes.

    With `classes` "optional" those are kept that there are; with "none" they are not looked at.
    """

    image: str | None = None
    label: str | None = None
    classes: Classes = "needed"


def read_names(classes: Any) -> tuple[str, ...] | None:
    """Return the names that the attribute `classes` of a data set holds; None where it has none.

    It may be a list, a tuple, or an array of text. Tuples of words, as ImageNet has them, are joined, and told apart by
    their number where two are the same.

    >>> read_names([("crane",), ("great auk", "auk"), ("crane",)])
    ('crane 0', 'great auk, auk', 'crane 2')
    """
    if hasattr(classes, "tolist"):
        classes = classes.tolist()
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            return None  # numbers, which are no names
    if not isinstance(classes, list | tuple):
        return None
    names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in classes]
    often = Counter(names)
    twice = [often[name] > 1 and isinstance(words, tuple) for name, words in zip(names, classes, strict=True)]
    return tuple(f"{name} {index}" if twice[index] else name for index, name in enumerate(names))


def find_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names that a data set itself holds, as torchvision's and timm's do; None where it has none.

    They are its `classes`, or the keys of `class_to_idx`, its own or its `reader`'s, in the order of their numbers.

    >>> from types import SimpleNamespace
    >>> find_names(SimpleNamespace(reader=SimpleNamespace(class_to_idx={"c10": 1, "c2": 0})))
    ('c2', 'c10')
    """
    names = read_names(getattr(dataset, "classes", None))
    for holder in (dataset, getattr(dataset, "reader", None)):
        numbers = getattr(holder, "class_to_idx", None)
        if names is None and isinstance(numbers, Mapping) and set(numbers.values()) == set(range(len(numbers))):
            names = read_names(sorted(numbers, key=numbers.__getitem__))
    return names


def without_classes(count: int) -> tuple[Tensor, tuple[str, ...]]:
    """Return the labels and class names of images of one class.

    >>> without_classes(2)
    (tensor([0, 0]), ('image',))
    """
    return torch.zeros(count, dtype=torch.int64), ONE_CLASS


def encode_labels(
    parts: Mapping[str, Sequence[Any]],
    chosen: Sequence[str],
    where: Callable[[str, int], str],
    *,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the labels of the chosen parts as int64 (N,), and the class names, which are those of all parts.

    Text becomes sorted class names. Whole numbers (floats too: 3.0 is 3) are class indices, named "0", "1", ... where
    no `names` are given. True and False become the classes "False" and "True".

    Args:
        parts: the labels of each part, by its name.
        chosen: the parts to return, one after another.
        where: words for a row of a part in messages, such as "row 3 of a.parquet".
        names: class names, if the source has them.

    Raises:
        DataError: of a chosen part: labels that are missing (null, NaN, empty), negative, not whole, beyond the names,
            or text in one row and numbers in another; the message names the row.

    >>> labels, names = encode_labels({"train": ["dog", "cat"], "test": ["ant"]}, ["train"], lambda part, row: f"{row}")
    >>> labels.tolist(), names
    ([2, 1], ('ant', 'cat', 'dog'))
    """
    values: dict[str, list[Any]] = {}
    for part, column in parts.items():
        rows = enumerate(column)
        if part in chosen:
            values[part] = [_check(label, where(part, row)) for row, label in rows]
        else:  # its faults are those of another day, but its classes count
            values[part] = [label for _, label in rows if _problem(label) is None]
    _check_one_kind(values, chosen, where)
    flat = [label for part in chosen for label in values[part]]
    if not flat:
        raise DataError("data must hold at least one labeled image, got none")
    kind = _kind(flat[0])
    known = [label for column in values.values() for label in column if _kind(label) == kind]
    if kind == "text":
        classes = tuple(sorted(set(known)))
        index = {name: number for number, name in enumerate(classes)}
        return torch.tensor([index[label] for label in flat]), classes
    if names is None:
        names = ("False", "True") if kind == "bool" else tuple(str(number) for number in range(int(max(known)) + 1))
    _check_range(values, chosen, where, names)
    return torch.tensor([int(label) for label in flat]), tuple(names)


def share_class_names(features: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that the label columns of several tables share, or None where none of them has names.

    Args:
        features: the type of the label column (a `ClassLabel`, or another) of each table, by words for the table.

    Raises:
        DataError: tables of other names, or in another order; text in one table and a `ClassLabel` in another.
    """
    named = {where: tuple(feature.names) for where, feature in features.items() if getattr(feature, "names", None)}
    if not named:
        return None
    first, names = next(iter(named.items()))
    fix = "write all of them with one list of class names"
    for where, feature in features.items():
        if where not in named and "string" in str(getattr(feature, "dtype", "")):
            raise DataError(f"{where}: labels must be indices of class names as in {first}, got text; {fix}")
        for index, (got, wanted) in enumerate(zip_longest(named.get(where, names), names)):
            if got != wanted:
                raise DataError(
                    f"{where}: class names must be those of {first}, in the same order, but class {index} is "
                    f"{shorten(got)} here and {shorten(wanted)} there; {fix}"
                )
    return names


def _check(label: Any, row: str) -> Any:
    problem = _problem(label)
    if problem is not None:
        raise DataError(f"{row}: {problem}, got {shorten(label)}; {FIX}")
    return label


def _problem(label: Any) -> str | None:
    """Return what is wrong with one label, or None."""
    if label is None or label == "" or (isinstance(label, float) and math.isnan(label)):
        return "the label is missing"
    if isinstance(label, str):
        return None
    if not isinstance(label, (int, float)):
        return "the label must be a name or a class index"
    if label < 0:
        return "the label must not be negative (-1 often stands for 'no class')"
    if isinstance(label, float) and not label.is_integer():
        return "the label must be a class: a name or a whole number"
    return "the label must be below 100,000, the most classes there can be" if label >= MAX_CLASSES else None


def _kind(label: Any) -> str:
    return "text" if isinstance(label, str) else "bool" if isinstance(label, bool) else "number"


def _check_one_kind(
    values: Mapping[str, Sequence[Any]], chosen: Sequence[str], where: Callable[[str, int], str]
) -> None:
    first: tuple[str, str, Any] | None = None
    for part in chosen:
        for row, label in enumerate(values[part]):
            first = first or (_kind(label), where(part, row), label)
            if _kind(label) != first[0]:
                raise DataError(
                    f"{where(part, row)}: labels must be all names or all numbers, got {shorten(label)} here and "
                    f"{shorten(first[2])} in {first[1]}; write all of them one way, such as class_0, class_1"
                )


def _check_range(
    values: Mapping[str, Sequence[Any]],
    chosen: Sequence[str],
    where: Callable[[str, int], str],
    names: Sequence[str],
) -> None:
    for part in chosen:
        for row, label in enumerate(values[part]):
            if label >= len(names):
                raise DataError(
                    f"{where(part, row)}: the label must be below {len(names)}, the number of class names, got "
                    f"{shorten(label)}; {FIX}"
                )
