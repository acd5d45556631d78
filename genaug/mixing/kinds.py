"""What images, labels and items of a data set look like, and how to make synthetic ones that look the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from genaug.errors import DataError, shorten
from genaug.images import explain_mode, to_float
from genaug.spec import IMAGE_KEYS, LABEL_KEYS

PIL_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


@dataclass(frozen=True)
class ImageKind:
    """How an image is held: `family` is "pil", "tensor" or "array"; `layout` orders the axes of the latter two.

    `device` is a tensor's, None for the others.
    """

    family: str
    channels: int
    height: int
    width: int
    dtype: Any = None
    layout: str = "chw"
    tensor_type: type = Tensor
    device: torch.device | None = None

    def describe(self) -> str:
        """Return what it is in words, as in 'tensor torch.float32 3x32x32'."""
        parts = [self.family, self.dtype, self.size, None if self.layout == "chw" else f"({self.layout})", self.device]
        return " ".join(str(part) for part in parts if part is not None)

    @property
    def size(self) -> str:
        """Size in words, as in '3x32x32'."""
        return f"{self.channels}x{self.height}x{self.width}"

    def check_channels(self, channels: int) -> None:
        """Check that images with this many channels can be made into this kind: as many, or gray into color.

        Raises:
            DataError: any other conversion, which would lose or invent something.
        """
        if channels not in (self.channels, 1) or (channels == 1 and self.channels not in (1, 3)):
            raise DataError(
                f"source must have images of {self.channels} channels, as real has, got {channels}; "
                "use a model trained on images of that kind"
            )

    def make(self, images: Tensor) -> list[Any]:
        """Return uint8 images (n, C, H, W) in [0, 255] as a list of images of this kind."""
        if images.shape[1] != self.channels:
            images = images.expand(-1, self.channels, -1, -1).contiguous()  # which can be changed in place
        if self.family == "pil":
            return [
                Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels) for pixels in _channels_last(images)
            ]
        if self.layout == "hw":
            images = images[:, 0]
        if self.family == "array":
            return list(self._make_arrays(images))
        converted = (images if self.dtype == torch.uint8 else to_float(images).to(self.dtype)).to(self.device)
        rows = list(converted.unbind())
        return rows if self.tensor_type is Tensor else [row.as_subclass(self.tensor_type) for row in rows]

    def _make_arrays(self, images: Tensor) -> Any:
        arrays = _channels_last(images) if self.layout == "hwc" else images.numpy()
        return arrays if self.dtype == np.uint8 else (arrays / np.float32(255)).astype(self.dtype)


def _channels_last(images: Tensor) -> Any:
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def is_image(value: Any) -> bool:
    """Return whether `value` is a PIL image, or a tensor or array of two or three axes."""
    return isinstance(value, Image.Image) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim in (2, 3))


def describe_image(value: Any, *, name: str) -> ImageKind:
    """Return the kind of an image.

    Raises:
        DataError: no image, or one of a mode, shape or dtype that synthetic images cannot take.
    """
    if isinstance(value, Image.Image):
        if value.mode not in PIL_CHANNELS:
            raise DataError(f"{name} must have mode L, RGB or RGBA, got {value.mode!r}; {explain_mode(value.mode)}")
        return ImageKind("pil", PIL_CHANNELS[value.mode], value.height, value.width)
    if not is_image(value):
        raise DataError(f"{name} must be a PIL image, tensor or array, got {type(value).__name__}; convert it")
    floating = value.is_floating_point() if isinstance(value, Tensor) else np.issubdtype(value.dtype, np.floating)
    if not floating and value.dtype not in (torch.uint8, np.uint8):
        raise DataError(f"{name} must be uint8 in [0, 255] or float in [0, 1], got {value.dtype}; convert it")
    family = "tensor" if isinstance(value, Tensor) else "array"
    layout = _layout(tuple(value.shape), family)
    if layout is None:
        raise DataError(f"{name} must have shape (C, H, W), (H, W, C) or (H, W), got {tuple(value.shape)}")
    sides = dict(zip(layout, value.shape, strict=True))
    tensor_type, device = (type(value), value.device) if isinstance(value, Tensor) else (Tensor, None)
    return ImageKind(family, sides.get("c", 1), sides["h"], sides["w"], value.dtype, layout, tensor_type, device)


def _layout(shape: tuple[int, ...], family: str) -> str | None:
    if len(shape) == 2:
        return "hw"
    if family == "tensor":
        return "chw"
    if shape[-1] in PIL_CHANNELS.values():  # arrays hold channels last, unless only the first axis can be them
        return "hwc"
    return "chw" if shape[0] in PIL_CHANNELS.values() else None


def find_range(value: Any) -> tuple[float, float] | None:
    """Return minimum and maximum of an image of floats, None for any other."""
    if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return None
    low, high = value.aminmax()
    return float(low), float(high)


@dataclass(frozen=True)
class LabelKind:
    """How a class index is held: an int, a NumPy number, or a tensor or array with one element."""

    family: str
    dtype: Any = None
    shape: tuple[int, ...] = ()
    device: torch.device | None = None

    def make(self, labels: NDArray[np.int64]) -> list[Any]:
        """Return class indices (n,) as a list of labels of this kind."""
        if self.family == "int":
            return list(labels.tolist())
        if self.family == "tensor":
            # one tensor for each class there is, not for each item: making them is most of what a batch costs
            classes, places = np.unique(labels, return_inverse=True)
            tensors = torch.from_numpy(classes).to(self.device, self.dtype).reshape(-1, *self.shape).unbind()
            return [tensors[place] for place in places.tolist()]
        if self.family == "number":
            return list(labels.astype(self.dtype))
        return [np.full(self.shape, label, dtype=self.dtype) for label in labels]


def describe_label(value: Any, *, name: str) -> LabelKind:
    """Return the kind of a label.

    Raises:
        DataError: anything but one integer.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return LabelKind("int")
    if isinstance(value, np.integer):
        return LabelKind("number", value.dtype)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point() and value.dtype != torch.bool:
        return LabelKind("tensor", value.dtype, tuple(value.shape), value.device)
    if isinstance(value, np.ndarray) and value.size == 1 and np.issubdtype(value.dtype, np.integer):
        return LabelKind("array", value.dtype, value.shape)
    raise DataError(
        f"{name} must be one class index (an integer), got {shorten(value)}; "
        "turn names into indices (class_encode_column in Hugging Face datasets)"
    )


def to_index(label: Any) -> int:
    """Return a label of any kind as an int."""
    return int(label.item() if hasattr(label, "item") else label)


@dataclass(frozen=True)
class ItemForm:
    """How an item holds its image and label: a tuple, list, named tuple or dict, and where in it they are."""

    container: type
    image: Any
    label: Any

    def join(self, images: Sequence[Any], labels: Sequence[Any]) -> list[Any]:
        """Return items of this form."""
        pairs: Any = zip(images, labels, strict=True)
        if self.container is tuple:
            return list(pairs)
        if self.container is dict:
            return [{self.image: image, self.label: label} for image, label in pairs]
        if hasattr(self.container, "_make"):
            return [self.container._make(pair) for pair in pairs]
        return [self.container(pair) for pair in pairs]


def describe_item(item: Any, *, image_key: str | None = None, label_key: str | None = None) -> ItemForm:
    """Return the form of an item.

    Args:
        item: a tuple or list (image, label), or a dict with both.
        image_key: key of the image in a dict; None looks for it.
        label_key: key of the label in a dict; None looks for it.

    Raises:
        DataError: an item of another form, or with more in it than an image and a label.
    """
    if isinstance(item, Mapping):
        image_key = image_key or pick_key(item, [key for key in item if is_image(item[key])], IMAGE_KEYS, "image")
        rest = [key for key in item if key != image_key and not is_image(item[key])]
        label_key = label_key or pick_key(item, rest, LABEL_KEYS, "label")
        check_columns(item, image_key, label_key)
        return ItemForm(dict, image_key, label_key)
    if not isinstance(item, (tuple, list)):
        raise DataError(
            f"items of real must be (image, label) or a dict with both, got {type(item).__name__}; wrap real"
        )
    if len(item) != 2:
        raise DataError(
            f"items of real must be (image, label), got {len(item)} elements: "
            f"{shorten([type(value).__name__ for value in item])}; wrap real in a data set that returns these two"
        )
    return ItemForm(type(item), 0, 1)


def pick_key(keys: Any, candidates: Sequence[str], usual: tuple[str, ...], what: str) -> str:
    """Return a usual name where `keys` has one, else the only one of the `candidates`.

    Raises:
        DataError: none or several candidates.
    """
    for key in usual:
        if key in keys:
            return key
    if len(candidates) != 1:
        raise DataError(f"{what}_key must name the {what} among the columns {shorten(list(keys))} of real; pass it")
    return candidates[0]


def check_columns(columns: Any, image_key: str, label_key: str) -> None:
    """Check that `columns` are those of image and label, and no others.

    Raises:
        DataError: a missing column, or one that synthetic samples cannot have.
    """
    for name, key in (("image_key", image_key), ("label_key", label_key)):
        if key not in columns:
            raise DataError(f"{name} must be a column of real, got {key!r}; it has {shorten(list(columns))}")
    extra = [key for key in columns if key not in (image_key, label_key)]
    if extra:
        raise DataError(
            f"real has columns that synthetic samples cannot have: {shorten(extra)}; "
            f"drop them first, in Hugging Face datasets with real.remove_columns({shorten(extra)})"
        )


def add_source(item: Any, synthetic: bool) -> Any:
    """Return an item with whether it is synthetic: at the end of a tuple or list, under "synthetic" in a dict."""
    if isinstance(item, Mapping):
        return {**item, "synthetic": synthetic}
    return [*item, synthetic] if isinstance(item, list) else (*item, synthetic)
