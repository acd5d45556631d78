"""Data sets of other libraries, read as a whole: items by index, as tuples or as rows with columns."""

import operator
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from PIL import Image

from genaug.data.allocation import MEMORY_LIMIT
from genaug.data.labeled import LabeledImages
from genaug.data.parts import list_names
from genaug.data.reading import UnreadableImage, finish_reading
from genaug.data.stacking import ImageStack
from genaug.errors import DataError, shorten
from genaug.spec import MAX_CLASSES

IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels")
DAMAGE = (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning)


def from_dataset(
    dataset: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    resize: tuple[int, int] | None = None,
    grayscale: bool = False,
    skip_bad: bool = False,
    memory_limit: float = MEMORY_LIMIT,
) -> LabeledImages:
    """Return all of a map-style data set, read once in its own order, as `LabeledImages`.

    Items are tuples (image, label), or dicts as Hugging Face rows are. An image is a PIL image, or a tensor (C, H, W)
    of uint8 or of floats in [0, 1]; what the data set's own transform returns is taken as it is. Class names come from
    a `ClassLabel` column or from `dataset.classes`, also inside `Subset` and `ConcatDataset`; else they are "0", "1"...

    Args:
        dataset: anything with `__len__` and `__getitem__`.
        image_column: the column of images in rows that are dicts; by default "image", "img", or the only `Image` one.
        label_column: the column of classes; by default "label", "labels", or the only `ClassLabel` one.
        resize: (height, width) to resize to, bilinear and antialiased.
        grayscale: make every image gray.
        skip_bad: leave out items that cannot be read, warn of them, and list them in `LabeledImages.skipped`.
        memory_limit: GiB of pixels beyond which the images are kept on the disk, as `load_data` tells.

    Raises:
        DataError: an empty or iterable data set; items, labels or images of another kind, named by their index;
            images of several sizes without `resize`; no room for them.

    >>> rows = [(torch.zeros(1, 8, 8), 0), (torch.ones(1, 8, 8), 1)]
    >>> data = from_dataset(rows)
    >>> data.spec.size, data.classes
    ('1x8x8', ['0', '1'])
    """
    if isinstance(dataset, Mapping):
        raise DataError(f"dataset must be one data set, got a dict of {shorten(list(dataset))}; pass one of them")
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"dataset must have a length and items by index (map-style), got {type(dataset).__name__}; "
            "read an iterable data set into a list first"
        )
    if not len(dataset):
        raise DataError("dataset must hold at least one image, got an empty data set")
    columns = {"Image": image_column, "ClassLabel": label_column}
    stack = ImageStack(len(dataset), resize=resize, grayscale=grayscale, memory_limit=memory_limit)
    features, row = _find(dataset, "features"), None
    labels, skipped = [], []
    for name, item in _read_items(dataset):
        if isinstance(item, UnreadableImage):
            if not skip_bad:
                raise item
            skipped.append(item.summary)
            continue
        row = item
        image, label = _split_item(item, features, columns, name)
        stack.add(image, name)
        labels.append(_check_label(label, name))
    names = _class_names(dataset, features if isinstance(row, Mapping) else None, columns) or tuple(
        str(label) for label in range(max(labels, default=0) + 1)
    )
    return finish_reading(stack, torch.tensor(labels, dtype=torch.int64), names, skipped)


def _read_items(dataset: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, item) of each item, with the error in place of an item that cannot be read."""
    for index in range(len(dataset)):
        name = f"item {index} of the data set"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                item = dataset[index]
        except DAMAGE as problem:
            item = UnreadableImage(name, shorten(str(problem), 300))
        yield name, item


def _split_item(item: Any, features: Any, columns: Mapping[str, str | None], name: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image, label = (item[pick_column(item, features, kind, given)] for kind, given in columns.items())
        return image, label
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise DataError(f"{name}: must be a tuple (image, label) or a dict with both, got {shorten(type(item).__name__)}")


def pick_column(columns: Iterable[str], features: Any, kind: str, given: str | None) -> str:
    """Return the "Image" or "ClassLabel" column: the one given, one of a usual name, or the only one of that type.

    Raises:
        DataError: no such column, or several; the message lists those that there are.

    >>> pick_column(["img", "fine_label"], None, "ClassLabel", "fine_label")
    'fine_label'
    """
    columns = list(columns)
    keys, option = (IMAGE_KEYS, "image_column") if kind == "Image" else (LABEL_KEYS, "label_column")
    flag = f"--{option.replace('_', '-')} NAME ({option}=)"
    if given is not None:
        if given in columns:
            return given
        raise DataError(
            f"{option} must be one of the columns, which are {list_names(columns)}, got {shorten(given)}; "
            f"choose one with {flag}"
        )
    named = [key for key in keys if key in columns]
    if named:
        return named[0]
    typed = [key for key in columns if isinstance(features, Mapping) and type(features.get(key)).__name__ == kind]
    if len(typed) != 1:
        raise DataError(
            f"dataset must have one {kind} column, got columns {shorten(columns)}; choose one with {flag}, "
            f"or rename one to {keys[0]!r}"
        )
    return typed[0]


def _check_label(label: Any, name: str) -> int:
    try:
        index = operator.index(label)
    except TypeError:
        raise DataError(f"{name}: the label must be a class index, got {shorten(label)}") from None
    if not 0 <= index < MAX_CLASSES:
        raise DataError(
            f"{name}: the label must be from 0 to {MAX_CLASSES - 1}, got {shorten(index)}; "
            "leave out images without a class"
        )
    return index


def _class_names(dataset: Any, features: Any, columns: Mapping[str, str | None]) -> tuple[str, ...] | None:
    names = _find(dataset, "classes")
    if isinstance(features, Mapping):
        key = pick_column(features, features, "ClassLabel", columns["ClassLabel"])
        names = getattr(features[key], "names", None)
    if names is None:
        return None
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)  # tuples: ImageNet


def _find(dataset: Any, attribute: str) -> Any:
    """Return an attribute of `dataset`, or of the data sets inside Subset and ConcatDataset, which must agree."""
    if hasattr(dataset, attribute):
        return getattr(dataset, attribute)
    if hasattr(dataset, "dataset"):
        return _find(dataset.dataset, attribute)
    found = [_find(part, attribute) for part in getattr(dataset, "datasets", ())]
    if any(repr(other) != repr(found[0]) for other in found):  # arrays cannot be compared by ==
        raise DataError(f"dataset joins parts whose {attribute} differ: {shorten(found)}; give them the same ones")
    return found[0] if found else None
