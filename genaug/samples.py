"""Which parts of a sample or batch are its images and its labels."""

from collections.abc import Callable, Mapping
from numbers import Integral, Number
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import (  # as torchvision's own transforms take samples apart
    MappingKey,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)
from torchvision import tv_tensors

from genaug.errors import DataError, GenaugError, shorten
from genaug.spec import IMAGE_KEYS, LABEL_KEYS

LabelsGetter = Literal["default"] | Callable[[Any], Any] | None


def choose_labels_getter(labels_getter: LabelsGetter, *, default: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function of a sample that gives its labels, or None where it has none.

    Raises:
        GenaugError: anything but "default", a function or None; None where `default` is for batches.
    """
    if labels_getter == "default":
        return default
    if labels_getter is None and default is find_batch_labels:
        raise GenaugError('labels_getter must be "default" or a function: a batch without labels cannot be used')
    if labels_getter is None:
        return _find_nothing
    if not callable(labels_getter):
        raise GenaugError(f'labels_getter must be "default", a function or None, got {shorten(labels_getter)}')
    return labels_getter


def _find_nothing(sample: Any) -> None:
    """Return no labels; a function of a module, so that it can be pickled."""


def find_labels(sample: Any) -> Any:
    """Return the class index of a sample, or those of its images, or None where none are found.

    They are looked for in the second element of a tuple or list, and in a dict (also one that is that element) under
    "label" or "labels", else under the first key with "label" in it, in small or capital letters. An integer counts, or
    a list, array or tensor of integers, one for each image; "target" and other keys are not looked at. Where a sample
    has bounding boxes, labels are theirs.

    >>> find_labels((torch.zeros(1, 8, 8), 3)), find_labels(torch.zeros(1, 8, 8))
    (3, None)
    """
    if holds_boxes(sample):
        return None
    candidate = find_candidate(sample)
    if isinstance(candidate, Tensor):
        flat = candidate.ndim <= 1 or (candidate.ndim == 2 and candidate.shape[1] == 1)
        return candidate if flat and _is_integral(candidate) else None
    if isinstance(candidate, np.ndarray):
        return candidate if candidate.ndim <= 1 and np.issubdtype(candidate.dtype, np.integer) else None
    if isinstance(candidate, (list, tuple)):
        return candidate if candidate and all(_is_integer(value) for value in candidate) else None
    return candidate if _is_integer(candidate) else None


def holds_boxes(sample: Any) -> bool:
    """Tell whether a sample has bounding boxes, whose labels are not of the image."""
    return any(isinstance(value, tv_tensors.BoundingBoxes) for value in tree_flatten(sample)[0])


def is_label(value: Any) -> bool:
    """Tell whether a value is a number or text, or a row of them, as labels are and images are not.

    >>> is_label(3.0), is_label("cat"), is_label([torch.tensor(3)]), is_label(torch.zeros(8, 8)), is_label(None)
    (True, True, True, False, False)
    """
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.ndim <= 1
    if isinstance(value, (list, tuple)):
        return bool(value) and all(is_label(one) and not isinstance(one, (list, tuple)) for one in value)
    return isinstance(value, (Number, str))


def find_batch_labels(batch: Any) -> Any:
    """Return the labels of a batch, found where `find_labels` looks, or None.

    They are a tensor of class indices (N,), or of one-hot or soft labels (N, num_classes).

    >>> find_batch_labels((torch.zeros(2, 1, 8, 8), torch.tensor([3, 1])))
    tensor([3, 1])
    """
    candidate = find_candidate(batch)
    if not isinstance(candidate, Tensor):
        return None
    return candidate if candidate.ndim == 2 or (candidate.ndim == 1 and _is_integral(candidate)) else None


def find_candidate(sample: Any) -> Any:
    """Return what stands where a sample has its labels, of whatever type, or None."""
    if isinstance(sample, (tuple, list)):
        sample = sample[1] if len(sample) > 1 else None
        if not isinstance(sample, Mapping):
            return sample
    if not isinstance(sample, Mapping):
        return None
    keys = [key for key in sample if isinstance(key, str) and "label" in key.lower()]
    keys.sort(key=lambda key: key.lower() not in LABEL_KEYS)  # stable
    return sample[keys[0]] if keys else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_integral(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def find_images(sample: Any, flat: list[Any], labels: Any) -> list[int]:
    """Return the places of the images in a flattened sample: all of types for images, or one plain tensor.

    The plain tensor is that under one of `IMAGE_KEYS`, else the first with three dimensions or more that is under no
    key for labels or masks. (torchvision takes the first one of all, which in a dict may be the labels.)

    Args:
        sample: the sample.
        flat: its parts, as `torch.utils._pytree.tree_flatten` gives them.
        labels: the part that holds its labels, which is never an image.
    """
    typed = [place for place, value in enumerate(flat) if isinstance(value, (PIL.Image.Image, tv_tensors.Image))]
    if typed or any(isinstance(value, tv_tensors.Video) for value in flat):
        return typed
    plain = [place for place, value in enumerate(flat) if type(value) is Tensor and value is not labels]
    if len(plain) > 1 or isinstance(sample, Mapping):
        paths = [path for path, _ in tree_flatten_with_path(sample)[0]]
        names = {place: _name(paths[place]) for place in plain}
        named = [place for place in plain if names[place] in IMAGE_KEYS]
        if named:
            return named[:1]
        plain = [place for place in plain if not any(word in names[place] for word in ("label", "mask"))]
    # With none of three dimensions a matrix is taken, for the error that it gives.
    return ([place for place in plain if flat[place].ndim >= 3] or [p for p in plain if flat[p].ndim == 2])[:1]


def _name(path: Any) -> str:
    """Return the last key of a dict on the way to a part of a sample, in small letters."""
    keys = [entry.key for entry in path if isinstance(entry, MappingKey)]
    return str(keys[-1]).lower() if keys else ""


class Batch:
    """A batch taken apart: its images (N, C, H, W), its labels (N,) or (N, K), and all else.

    `holds_labels` says whether the labels are a part of it, and not only made from one.

    Raises:
        DataError: no labels, or other than one tensor of images of as many rows.

    >>> batch = Batch((torch.zeros(2, 1, 8, 8), torch.tensor([3, 1])), find_batch_labels)
    >>> images, labels = batch.join(batch.images + 1, batch.labels)
    >>> images.mean()
    tensor(1.)
    """

    def __init__(self, batch: Any, labels_getter: Callable[[Any], Any]) -> None:
        self._flat, self._structure = tree_flatten(batch)
        labels = labels_getter(batch)
        if not isinstance(labels, Tensor) or labels.ndim not in (1, 2):
            got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise DataError(
                f"a batch must have a tensor of labels, class indices (N,) or one-hot (N, num_classes), got {got}; "
                'it is looked for in (images, labels, ...) and under "label" or "labels"; else pass labels_getter='
            )
        places = find_images(batch, self._flat, labels)
        if len(places) != 1 or not isinstance(self._flat[places[0]], Tensor) or self._flat[places[0]].ndim != 4:
            found = [type(value).__name__ for value in self._flat]
            raise DataError(f"a batch must have one tensor of images (N, C, H, W), got {shorten(found)}; collate first")
        (self._place,) = places
        self.images: Tensor = self._flat[self._place]
        self.labels: Tensor = labels
        self.holds_labels = any(value is labels for value in self._flat)
        if len(self.images) != len(labels):
            raise DataError(f"labels must be as many as images ({len(self.images)}), got {len(labels)}")

    def join(self, images: Tensor, labels: Tensor) -> Any:
        """Return a batch like this one with other images and labels.

        Raises:
            DataError: other labels, where the batch holds none as a part of its own.
        """
        flat = list(self._flat)
        flat[self._place] = images
        if labels is not self.labels:
            if not self.holds_labels:
                raise DataError("labels_getter must return a tensor of the batch itself, where labels change")
            flat[next(place for place, value in enumerate(flat) if value is self.labels)] = labels
        return tree_unflatten(flat, self._structure)
