"""Labeled images in memory: one uint8 tensor, the labels, and what they mean."""

import hashlib
import json
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genaug.data.stacking import ImageStack
from genaug.errors import DataError, shorten
from genaug.spec import MAX_CLASSES, DataSpec

IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels")


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images of one size with their classes, held in memory; a map-style data set of (image, label).

    Args:
        images: uint8 (N, C, H, W) in [0, 255].
        labels: int64 (N,), class indices.
        spec: channels, height, width and class names.

    Raises:
        DataError: images that are not uint8 (N, C, H, W), or that do not fit `spec`; labels of another number or
            out of range; a `spec` without class names.

    >>> spec = DataSpec(channels=1, height=8, width=8, class_names=("a", "b"))
    >>> data = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), spec)
    >>> len(data), data.counts
    (3, [1, 2])
    """

    images: Tensor
    labels: Tensor
    spec: DataSpec

    def __post_init__(self) -> None:
        self.spec.check_images(self.images)
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            got = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"images must be uint8 of shape (N, C, H, W), got {got}; convert with images.to_uint8")
        if not self.spec.class_names:
            raise DataError("spec must have class names, got none; pass DataSpec(..., class_names=(...))")
        self.spec.check_labels(self.labels, count=len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        return list(torch.bincount(self.labels, minlength=self.spec.num_classes).tolist())

    @property
    def targets(self) -> list[int]:
        """The class index of each image, as torchvision's data sets name it."""
        return list(self.labels.tolist())

    @property
    def classes(self) -> list[str]:
        """The class names, as torchvision's data sets name them."""
        return list(self.spec.class_names)

    def subset(self, indices: Tensor | Sequence[int]) -> "LabeledImages":
        """Return a copy of the images at `indices`, in that order, with the same classes.

        Args:
            indices: integers (M,) from 0 to N - 1; they may repeat.

        Raises:
            DataError: indices that are no integers (such as a mask of booleans), or out of range.

        >>> spec = DataSpec(channels=1, class_names=("a", "b"))
        >>> data = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), spec)
        >>> data.subset([2, 0]).targets
        [1, 0]
        """
        index = torch.as_tensor(indices)
        if index.numel() == 0:
            index = torch.zeros(0, dtype=torch.int64)
        if index.ndim != 1 or index.dtype == torch.bool or index.is_floating_point():
            raise DataError(
                f"indices must be integers of shape (M,), got {index.dtype} {tuple(index.shape)}; "
                "turn a mask into indices with torch.nonzero(mask).flatten()"
            )
        low, high = (int(index.min()), int(index.max())) if len(index) else (0, -1)
        if low < 0 or high >= len(self):
            raise DataError(f"indices must be from 0 to {len(self) - 1}, got values from {low} to {high}")
        index = index.long()
        return LabeledImages(self.images[index], self.labels[index], self.spec)

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, class names, labels and images as hexadecimal digits.

        >>> spec = DataSpec(channels=1, class_names=("a",))
        >>> data = LabeledImages(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), spec)
        >>> len(data.fingerprint())
        64
        """
        head = json.dumps([list(self.images.shape), self.classes]) + "\n"
        digest = hashlib.sha256(head.encode())
        for tensor in (self.labels, self.images):
            digest.update(tensor.cpu().contiguous().numpy().data)  # the buffer itself, not a copy
        return digest.hexdigest()


def from_dataset(dataset: Any, *, resize: tuple[int, int] | None = None) -> LabeledImages:
    """Return all of a map-style data set, read once in its own order, as `LabeledImages`.

    Items are tuples (image, label), or dicts as Hugging Face rows are. An image is a PIL image, or a tensor (C, H, W)
    of uint8 or of floats in [0, 1]; what the data set's own transform returns is taken as it is. Class names come from
    a `ClassLabel` column or from `dataset.classes`, also inside `Subset` and `ConcatDataset`; else they are "0", "1"...

    Args:
        dataset: anything with `__len__` and `__getitem__`.
        resize: (height, width) to resize to, bilinear and antialiased.

    Raises:
        DataError: an empty or iterable data set; items, labels or images of another kind, named by their index;
            images of several sizes without `resize`.

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
    stack = ImageStack(len(dataset), resize=resize)
    features = _find(dataset, "features")
    labels = []
    for index, item in enumerate(_read_items(dataset)):
        name = f"item {index} of the data set"
        image, label = _split_item(item, features, name)
        stack.add(image, name)
        labels.append(_check_label(label, name))
    names = _class_names(dataset, features if isinstance(item, Mapping) else None) or tuple(
        str(label) for label in range(max(labels) + 1)
    )
    channels, height, width = stack.images.shape[1:]
    spec = DataSpec(channels=channels, height=height, width=width, class_names=names)
    return LabeledImages(stack.images, torch.tensor(labels), spec)


def _read_items(dataset: Any) -> Iterator[Any]:
    for index in range(len(dataset)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                item = dataset[index]
        except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
            raise DataError(f"item {index} of the data set: cannot be read ({shorten(str(problem), 300)})") from problem
        yield item


def _split_item(item: Any, features: Any, name: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        return item[_pick(item, features, "Image", IMAGE_KEYS)], item[_pick(item, features, "ClassLabel", LABEL_KEYS)]
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise DataError(f"{name}: must be a tuple (image, label) or a dict with both, got {shorten(type(item).__name__)}")


def _pick(item: Mapping[str, Any], features: Any, kind: str, keys: tuple[str, ...]) -> str:
    """Return the column of this kind: a usual name where there is one, else the only column of that type."""
    for key in keys:
        if key in item:
            return key
    typed = [key for key in item if isinstance(features, Mapping) and type(features.get(key)).__name__ == kind]
    if len(typed) != 1:
        raise DataError(
            f"dataset must have one {kind} column, got columns {shorten(list(item))}; rename one to {keys[0]!r}"
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


def _class_names(dataset: Any, features: Any) -> tuple[str, ...] | None:
    names = _find(dataset, "classes")
    if isinstance(features, Mapping):
        key = _pick(features, features, "ClassLabel", LABEL_KEYS)
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
