"""Data sets of other libraries, read as a whole: items by index, as tuples or as rows with columns."""

import operator
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from PIL import Image

from genaug.data.allocation import MEMORY_LIMIT
from genaug.data.decoding import UnreadableImage
from genaug.data.labeled import LabeledImages
from genaug.data.labels import ONE_CLASS, PATCHES, Columns, find_names, read_names
from genaug.data.parts import list_names
from genaug.data.reading import Listing, finish_reading, read_each
from genaug.data.stacking import ImageStack, find_size
from genaug.errors import DataError, DataWarning, shorten
from genaug.seeding import draws_at_random
from genaug.spec import IMAGE_KEYS, LABEL_KEYS, MAX_CLASSES, DataSpec, spread

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
    a `ClassLabel` column or from `dataset.classes` or `class_to_idx`, also inside `Subset` and `ConcatDataset`; else
    they are "0", "1"... A warning tells where a transform draws at random.

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
    _check_dataset(dataset)
    DataSpec(1, class_names=_find(dataset, find_names) or ())  # names that repeat, before all is read
    columns = Columns(image_column, label_column)
    stack = ImageStack(len(dataset), resize=resize, grayscale=grayscale, memory_limit=memory_limit)
    features, row = _find(dataset, _get_features), None
    labels: list[int] = []
    skipped: list[str] = []
    for index, row in _read_items(dataset, skip_bad, skipped):
        image, label = _split_item(row, features, columns, _name(index))
        stack.add(image, _name(index))
        labels.append(_check_label(label, _name(index)))
    names = _name_classes(dataset, features if isinstance(row, Mapping) else None, columns, labels)
    _warn_of_randomness(dataset, lambda item: _take_image(item, features, columns))
    return finish_reading(stack, torch.tensor(labels, dtype=torch.int64), names, skipped, total=len(dataset))


def list_dataset(dataset: Any, columns: Columns, *, skip_bad: bool = False) -> Listing:
    """Return the items of a map-style data set, each of which is read here for its label and size, and again later.

    Where `columns` do not need classes, items may also be images alone, tuples (image,), and rows without labels.

    Raises:
        DataError: what `from_dataset` refuses, but for images of several sizes.
    """
    _check_dataset(dataset)
    features, row, labeled = _find(dataset, _get_features), None, True
    rows: list[int] = []
    labels: list[int] = []
    sizes: list[tuple[int, int]] = []
    skipped: list[str] = []
    for index, item in _read_items(dataset, skip_bad, skipped):
        if row is None:
            row, labeled = item, _has_label(item, features, columns)
        if labeled:
            image, label = _split_item(item, features, columns, _name(index))
        else:
            image, label = _take_image(item, features, columns), 0
        rows.append(index)
        labels.append(_check_label(label, _name(index)))
        sizes.append(find_size(image, _name(index)))
    types = features if isinstance(row, Mapping) else None
    return Listing(
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=_name_classes(dataset, types, columns, labels) if labeled else ONE_CLASS,
        name=lambda place: _name(rows[place]),
        read=lambda place: _take_image(_read_item(dataset, rows[place]), features, columns),
        measure=lambda place: sizes[place],
        skipped=tuple(skipped),
        key=lambda place: rows[place],
    )


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, Mapping):
        raise DataError(f"dataset must be one data set, got a dict of {shorten(list(dataset))}; pass one of them")
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"dataset must have a length and items by index (map-style), got {type(dataset).__name__}; "
            "read an iterable data set into a list first"
        )
    if not len(dataset):
        raise DataError("dataset must hold at least one image, got an empty data set")


def _name(index: int) -> str:
    return f"item {index} of the data set"


def _read_items(dataset: Any, skip_bad: bool, skipped: list[str]) -> Iterator[tuple[int, Any]]:
    return read_each(lambda index: _read_item(dataset, index), range(len(dataset)), skip_bad=skip_bad, skipped=skipped)


def _read_item(dataset: Any, index: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return dataset[index]
    except DAMAGE as problem:
        raise UnreadableImage(_name(index), shorten(str(problem), 300)) from None


def _warn_of_randomness(dataset: Any, take: Callable[[Any], Any]) -> None:
    """Warn where images change from reading to reading, as 8 of them show; what cannot be read is left out."""

    def read(index: int) -> Any:
        try:
            return take(_read_item(dataset, index))
        except UnreadableImage:
            return None

    if draws_at_random(read, spread(len(dataset), min(len(dataset), 8)).tolist()):
        warnings.warn(
            "images of the data set change from reading to reading: its transform draws at random, and what it gave "
            "once is kept for all of training, and differs where that is resumed; pass the data set without it",
            DataWarning,
            stacklevel=4,
        )


def _split_item(item: Any, features: Any, columns: Columns, name: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image = pick_column(item, features, "Image", columns.image)
        return item[image], item[pick_column(item, features, "ClassLabel", columns.label)]
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise DataError(f"{name}: must be a tuple (image, label) or a dict with both, got {shorten(type(item).__name__)}")


def _has_label(item: Any, features: Any, columns: Columns) -> bool:
    """Tell whether an item has a label that is wanted."""
    if isinstance(item, Mapping):
        return pick_label(item, features, columns) is not None
    return columns.classes != "none" and isinstance(item, (tuple, list)) and len(item) > 1


def _take_image(item: Any, features: Any, columns: Columns) -> Any:
    if isinstance(item, Mapping):
        return item[pick_column(item, features, "Image", columns.image)]
    return item[0] if isinstance(item, (tuple, list)) and item else item


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
    found = _find_columns(columns, features, kind)
    if len(found) != 1:
        raise DataError(
            f"dataset must have one {kind} column, got columns {shorten(columns)}; choose one with {flag}, "
            f"or rename one to {keys[0]!r}"
        )
    return found[0]


def pick_label(columns: Iterable[str], features: Any, wanted: Columns) -> str | None:
    """Return the column of classes as `pick_column` finds it; None where it is not `wanted`, or optional and missing.

    >>> pick_label(["image", "file"], None, Columns(classes="optional")) is None
    True
    """
    columns = list(columns)
    missing = wanted.label is None and not _find_columns(columns, features, "ClassLabel")
    if wanted.classes == "none" or (missing and wanted.classes == "optional"):
        return None
    try:
        return pick_column(columns, features, "ClassLabel", wanted.label)
    except DataError as problem:
        raise DataError(f"{problem}; {PATCHES}" if missing else str(problem)) from None


def _find_columns(columns: Sequence[str], features: Any, kind: str) -> list[str]:
    """Return the first column of a usual name, else all of a type."""
    named = [key for key in (IMAGE_KEYS if kind == "Image" else LABEL_KEYS) if key in columns]
    typed = [key for key in columns if isinstance(features, Mapping) and type(features.get(key)).__name__ == kind]
    return named[:1] or typed


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


def _name_classes(dataset: Any, features: Any, columns: Columns, labels: Sequence[int]) -> tuple[str, ...]:
    """Return the names that the data set has, else the numbers up to the largest label."""
    if isinstance(features, Mapping):
        key = pick_column(features, features, "ClassLabel", columns.label)
        names = read_names(getattr(features[key], "names", None))
    else:
        names = _find(dataset, find_names)
    return names or tuple(map(str, range(max(labels, default=0) + 1)))


def _get_features(dataset: Any) -> Any:
    return getattr(dataset, "features", None)


def _find(dataset: Any, get: Callable[[Any], Any]) -> Any:
    """Return what `get` finds in `dataset`, or in those inside Subset and ConcatDataset; None where that is nothing.

    Raises:
        DataError: parts that differ in it.
    """
    own = get(dataset)
    if own is not None:
        return own
    if hasattr(dataset, "dataset"):
        return _find(dataset.dataset, get)
    found = [_find(part, get) for part in getattr(dataset, "datasets", ())]
    found = [value for value in found if value is not None]
    if any(repr(other) != repr(found[0]) for other in found):
        what = "classes" if get is find_names else "features"
        raise DataError(f"dataset joins parts whose {what} differ: {shorten(found)}; give them the same ones")
    return found[0] if found else None
