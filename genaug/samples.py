"""Which parts of a sample or batch are its images and its labels."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # as torchvision's own transforms take samples apart
from torchvision import tv_tensors

from genaug.errors import DataError, GenaugError, shorten

IMAGE_KEYS = ("image", "img", "images", "pixel_values")

LabelsGetter = Literal["default"] | Callable[[Any], Any] | None


def choose_labels_getter(labels_getter: LabelsGetter, *, default: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function of a sample that gives its labels, or None where it has none.

    Raises:
        GenaugError: anything but "default", a function or None.
    """
    if labels_getter == "default":
        return default
    if labels_getter is None:
        return _find_nothing
    if not callable(labels_getter):
        raise GenaugError(f'labels_getter must be "default", a function or None, got {shorten(labels_getter)}')
    return labels_getter


def _find_nothing(sample: Any) -> None:
    """Return no labels; a function of a module, so that it can be pickled."""


def find_labels(sample: Any) -> Any:
    """Return the label of a sample that is (image, label) or a dict with "label" or "labels", or None.

    It counts as one where it is an int, also NumPy's, or a tensor of integers with at most one dimension.

    >>> find_labels((torch.zeros(1, 8, 8), 3)), find_labels(torch.zeros(1, 8, 8))
    (3, None)
    """
    candidate = _find_candidate(sample)
    if isinstance(candidate, Tensor):
        return candidate if _is_integral(candidate) and candidate.ndim <= 1 else None
    return None if isinstance(candidate, bool) or not isinstance(candidate, Integral) else candidate


def find_batch_labels(batch: Any) -> Any:
    """Return the labels of a batch that is (images, labels) or a dict with "label" or "labels", or None.

    They are class indices (N,), or one-hot or soft labels (N, num_classes).

    >>> find_batch_labels((torch.zeros(2, 1, 8, 8), torch.tensor([3, 1])))
    tensor([3, 1])
    """
    candidate = _find_candidate(batch)
    if not isinstance(candidate, Tensor):
        return None
    return candidate if candidate.ndim == 2 or (candidate.ndim == 1 and _is_integral(candidate)) else None


def _find_candidate(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return sample.get("label", sample.get("labels"))
    return sample[1] if isinstance(sample, (tuple, list)) and len(sample) == 2 else None


def _is_integral(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def find_images(sample: Any, flat: list[Any], labels: Any) -> list[int]:
    """Return the places of the images in a flattened sample: all of types for images, or one plain tensor.

    The plain tensor is that under one of `IMAGE_KEYS`, else the first with three dimensions or more. (torchvision takes
    the first one of all, which in a dict may be the labels.)

    Args:
        sample: the sample.
        flat: its parts, as `torch.utils._pytree.tree_flatten` gives them.
        labels: the part that holds its labels, which is never an image.
    """
    typed = [place for place, value in enumerate(flat) if isinstance(value, (PIL.Image.Image, tv_tensors.Image))]
    if typed or any(isinstance(value, tv_tensors.Video) for value in flat):
        return typed
    plain = [place for place, value in enumerate(flat) if type(value) is Tensor and value is not labels]
    if isinstance(sample, Mapping):
        named = next((sample[key] for key in IMAGE_KEYS if type(sample.get(key)) is Tensor), None)
        if named is not None:
            return [place for place in plain if flat[place] is named][:1]
    # With none of three dimensions a matrix is taken, for the error that it gives.
    return ([place for place in plain if flat[place].ndim >= 3] or [p for p in plain if flat[p].ndim == 2])[:1]


class Batch:
    """A batch taken apart: its images (N, C, H, W), its labels (N,) or (N, K), and all else.

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
                'it is looked for in (images, labels) and under "label" or "labels"; else pass labels_getter='
            )
        places = find_images(batch, self._flat, labels)
        if len(places) != 1 or not isinstance(self._flat[places[0]], Tensor) or self._flat[places[0]].ndim != 4:
            found = [type(value).__name__ for value in self._flat]
            raise DataError(f"a batch must have one tensor of images (N, C, H, W), got {shorten(found)}; collate first")
        (self._place,) = places
        self.images: Tensor = self._flat[self._place]
        self.labels: Tensor = labels
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
            places = [place for place, value in enumerate(flat) if value is self.labels]
            if not places:
                raise DataError("labels_getter must return a tensor of the batch itself, where labels change")
            flat[places[0]] = labels
        return tree_unflatten(flat, self._structure)
