"""What an image and a class is for a model, a bank or a data set."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genaug.errors import DataError, shorten
from genaug.images import check_images

IMAGE_KEYS = ("image", "img", "images", "pixel_values")  # usual names in dicts and tables
LABEL_KEYS = ("label", "labels")
MAX_CHANNELS = 64
MAX_SIDE = 16_384
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class DataSpec:
    """Channels, height and width of images (None for a side of any length) and the names of their classes.

    Raises:
        DataError: a side or number of channels that is not a positive integer; class names that repeat, are empty, or
            cannot be stored as UTF-8.

    >>> spec = DataSpec(channels=1, height=8, width=8, class_names=("zero", "one"))
    >>> spec.num_classes
    2
    """

    channels: int
    height: int | None = None
    width: int | None = None
    class_names: tuple[str, ...] = ()

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name, limit in (("channels", MAX_CHANNELS), ("height", MAX_SIDE), ("width", MAX_SIDE)):
            value = getattr(self, name)
            if value is None and name != "channels":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise DataError(f"{name} must be an integer from 1 to {limit}, got {shorten(value)}")
        names: Any = self.class_names
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise DataError(f"class_names must be a list of names, got {shorten(names)}")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if len(self.class_names) > MAX_CLASSES:
            raise DataError(f"class_names must hold at most {MAX_CLASSES} names, got {len(self.class_names)}")
        if not all(isinstance(name, str) and name and _is_unicode(name) for name in self.class_names):
            raise DataError(f"class_names must be non-empty strings of valid Unicode, got {shorten(self.class_names)}")
        if len(set(self.class_names)) != len(self.class_names):
            raise DataError(f"class_names must not repeat, got {shorten(self.class_names)}")

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without class names."""
        return len(self.class_names)

    @property
    def size(self) -> str:
        """The image format in words, as in '3x32x32'; '?' stands for a side of any length."""
        return "x".join("?" if side is None else str(side) for side in (self.channels, self.height, self.width))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values that JSON can hold."""
        return {**asdict(self), "class_names": list(self.class_names)}

    def check_images(self, images: Tensor, *, name: str = "images") -> None:
        """Check range, dtype and shape of `images` (N, C, H, W) or (C, H, W) against this specification.

        Raises:
            DataError: images of another kind; the message names both sizes.

        >>> DataSpec(channels=1, height=8, width=8).check_images(torch.zeros(1, 8, 8))
        """
        check_images(images, name=name)
        channels, height, width = images.shape[-3:]
        if channels != self.channels:
            raise DataError(f"{name} must have {self.channels} channels, got {channels} (expected {self.size})")
        if self.height not in (None, height) or self.width not in (None, width):
            raise DataError(f"{name} must be of size {self.size}, got {channels}x{height}x{width}; resize them first")

    def check_labels(self, labels: Tensor, *, count: int | None = None, null: bool = False) -> None:
        """Check that `labels` is an int64 tensor (N,) of class indices, of length `count` where that is given.

        With `null` the index `num_classes`, which stands for "no label", is allowed too.

        Raises:
            DataError: another type, shape or length, or an index out of range.

        >>> DataSpec(channels=1, class_names=("a", "b")).check_labels(torch.tensor([0, 1]))
        """
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise DataError(f"labels must be an int64 tensor of shape (N,), got {got}")
        if count is not None and len(labels) != count:
            raise DataError(f"labels must be as many as images ({count}), got {len(labels)}")
        last = self.num_classes if null else self.num_classes - 1
        if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) <= last):
            raise DataError(
                f"labels must be class indices from 0 to {last}, got values from {int(labels.min())} "
                f"to {int(labels.max())}; {self.num_classes} classes are known: {shorten(self.class_names)}"
            )


def spread(total: int, count: int) -> Tensor:
    """Return `count` of the indices 0 to `total` - 1, int64, evenly apart from the first to the last.

    >>> spread(10, 4)
    tensor([0, 3, 6, 9])
    """
    return torch.linspace(0, total - 1, count, dtype=torch.float64).long()  # float32 has gaps past 2**24


def resolve_counts(counts: int | Mapping[str, int] | list[int] | tuple[int, ...], spec: DataSpec) -> list[int]:
    """Return a number of images for every class of `spec`, from one number for all, a list, or a dict by class name.

    Raises:
        DataError: a negative or fractional number, a list of another length, or a name that `spec` does not have.

    >>> resolve_counts({"b": 3}, DataSpec(channels=1, class_names=("a", "b")))
    [0, 3]
    """
    if isinstance(counts, Mapping):
        unknown = [name for name in counts if name not in spec.class_names]
        if unknown:
            raise DataError(f"counts has unknown classes {shorten(unknown)}; known: {shorten(spec.class_names)}")
        given = [counts.get(name, 0) for name in spec.class_names]
    elif isinstance(counts, Iterable):
        given = list(counts)
    else:
        given = [counts] * spec.num_classes
    if len(given) != spec.num_classes:
        raise DataError(f"counts must have one number for each of {spec.num_classes} classes, got {len(given)}")
    try:
        resolved = [operator.index(count) for count in given]  # takes NumPy's integers, but no floats
    except TypeError:
        resolved = [-1]
    if any(isinstance(count, bool) for count in given) or min(resolved, default=0) < 0:
        raise DataError(f"counts must be integers of at least 0, got {shorten(given)}")
    return resolved


def _is_unicode(text: str) -> bool:
    """Tell whether `text` can be written as UTF-8; names of files that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
