"""Transforms of single images as functions of the batches that Hugging Face `datasets` hands out."""

import copy
import operator
import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import multiprocess
import PIL.Image
import torch
from datasets.formatting.formatting import LazyBatch, LazyRow
from torch import Tensor, nn
from torchvision.transforms import v2

from genaug.devices import settle_in_fork
from genaug.errors import DataError, GenaugError, shorten
from genaug.seeding import derive_seed
from genaug.transforms.base import ModelTransform
from genaug.transforms.batch import BatchTransform
from genaug.transforms.operations import Operation


class ColumnTransform:
    """A transform of the images in one column of a batch or of a single example; see `apply_to_column`."""

    def __init__(self, transform: Callable[..., Any], *, column: str, label_column: str | None) -> None:
        if not callable(transform):
            raise GenaugError(f"transform must be callable with an image, got {shorten(transform)}")
        if label_column is not None and not isinstance(transform, v2.Transform):
            raise GenaugError(
                f"label_column must be None where transform takes no labels, which is {type(transform).__name__}; "
                "pass a torchvision v2 transform, such as LatentJitter"
            )
        for part in _walk(transform):
            if isinstance(part, BatchTransform):
                raise GenaugError(
                    f"transform must be one of single images, got {type(part).__name__}; use it after the loader"
                )
            operation = getattr(part, "operation", None)
            if isinstance(operation, Operation) and operation.reference.id is None:
                raise GenaugError(
                    f"transform holds the model {operation.reference.name} itself, whose weights would be pickled for "
                    "each fingerprint and process; save the model and pass its path: model.save('my-model'), "
                    f"{type(part).__name__}('./my-model')"
                )
        self.transform, self.column, self.label_column = transform, column, label_column

    def __call__(self, batch: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the batch (columns of lists) or example with the images of the column changed."""
        settle_in_fork()  # before any operation of torch, which could hang in a forked process
        _draw_apart()
        images = self._get(batch, self.column)
        flat = self._is_flat(images, batch)
        images = images.unsqueeze(1) if flat else images
        single = _is_image(images)
        if not single and not isinstance(images, (list, tuple, Tensor)):
            raise DataError(_explain(self.column, images))
        labels = None if self.label_column is None else self._get(batch, self.label_column)
        changed: Any = self._change([images] if single else list(images), [labels] if single else labels)
        if isinstance(images, Tensor) and not single and len({getattr(image, "shape", None) for image in changed}) == 1:
            changed = torch.stack(list(changed)).squeeze(1) if flat else torch.stack(list(changed))
        result = copy.copy(batch)  # other columns stay as they are, also those that are not decoded yet
        result[self.column] = changed[0] if single else changed
        return result

    def _get(self, batch: MutableMapping[str, Any], column: str) -> Any:
        if column not in batch:
            raise DataError(f"the column {column!r} must be in the batch, got the columns {shorten(list(batch))}")
        return batch[column]

    def _is_flat(self, images: Any, batch: MutableMapping[str, Any]) -> bool:
        """Tell images (N, H, W) of a batch, as `Array2D` columns are, from one image (C, H, W)."""
        if not isinstance(images, Tensor) or images.ndim != 3 or isinstance(batch, LazyRow):
            return False
        if isinstance(batch, LazyBatch):
            return True
        others = [batch[key] for key in batch if key != self.column]
        if not others:
            return len(images) not in (1, 3, 4)  # of these numbers it could be either
        return all(isinstance(other, list | Tensor) and _length(other) == len(images) for other in others)

    def _change(self, images: Sequence[Any], labels: Any) -> Sequence[Any]:
        indices = None if self.label_column is None else _to_indices(labels, self.label_column)
        if isinstance(self.transform, ModelTransform):
            for image in images:
                if not _is_image(image):
                    raise DataError(_explain(self.column, image))
            return self.transform.change_all(images, indices)
        if indices is None:
            return [self.transform(image) for image in images]
        return [self.transform(image, label)[0] for image, label in zip(images, indices, strict=True)]


def apply_to_column(
    transform: Callable[..., Any], column: str = "image", *, label_column: str | None = None
) -> ColumnTransform:
    """Return a function for `with_transform` and `map` of Hugging Face `datasets` that changes a column of images.

    It takes a batch as a dict of lists (`with_transform`, `map(batched=True)`), or one example (`map`), and returns a
    new dict with the column's images changed and all other values as they were. A transform of genaug runs its network
    once for the images of one size in a batch; any other is called with each image.

    With `with_transform` images vary anew whenever they are read. `map` keeps one variation: it comes from its cache
    for the same transform and weights, and is made anew for other weights, also under the same path. The random numbers
    are those of torch's global generator. The processes of `map(num_proc=...)` start with its state in the parent; each
    seeds it with that and its own name, so that they draw different ones: with `num_proc` the same seed does not give
    the same images again, but the cache does. In them torch is set to one thread, without which they can hang after
    torch ran in the parent.

    Args:
        transform: `LatentJitter` or another transform of genaug, with its model by name or path; or any function of an
            image (PIL as `datasets` decodes it, or a tensor), such as a torchvision v2 pipeline with those in it.
        column: the column of images.
        label_column: the column of class indices, in the order of the model's `spec.class_names`, which keep an image
            within its class; for transforms of torchvision v2 and genaug, which take (image, label).

    Raises:
        GenaugError: a transform that holds a model as an object, whose weights would be pickled to get a fingerprint.
        DataError: in use, a column that is missing, or has no decoded images or no class indices; else as `transform`.

    >>> from datasets import Dataset
    >>> from genaug.data import load_data
    >>> from genaug.transforms import LatentJitter
    >>> digits = load_data("digits")
    >>> images = [v2.functional.to_pil_image(image) for image in digits.images[:2]]
    >>> rows = Dataset.from_dict({"image": images, "label": digits.targets[:2]})
    >>> varied = rows.with_transform(apply_to_column(LatentJitter("digits-vae", p=1.0), label_column="label"))
    >>> varied[0]["image"].size, varied[0]["label"]
    ((8, 8), 0)
    """
    return ColumnTransform(transform, column=column, label_column=label_column)


_apart_in: int | None = None


def _draw_apart() -> None:
    """Seed torch's generator once in a process of `map(num_proc=...)`, or all of them would draw the same numbers."""
    global _apart_in
    if _apart_in != os.getpid() and multiprocess.parent_process() is not None:
        common = int(torch.randint(2**62, ()))
        torch.manual_seed(derive_seed(common, multiprocess.current_process().name))
        _apart_in = os.getpid()


def _walk(transform: Any) -> Iterator[Any]:
    """Yield a transform and all that it is composed of."""
    yield transform
    parts = list(transform.children()) if isinstance(transform, nn.Module) else []
    listed = getattr(transform, "transforms", None)  # a plain list in Compose, which `children` does not know
    if isinstance(listed, (list, tuple)):
        parts += listed
    for part in parts:
        yield from _walk(part)


def _is_image(value: Any) -> bool:
    return isinstance(value, PIL.Image.Image) or (isinstance(value, Tensor) and value.ndim <= 3)


def _length(column: list[Any] | Tensor) -> int | None:
    return len(column) if isinstance(column, list) or column.ndim else None


def _explain(column: str, value: Any) -> str:
    return (
        f"the column {column!r} must hold PIL images or tensors (C, H, W), got {type(value).__name__}; "
        f"decode it with cast_column({column!r}, datasets.Image()) and leave with_format at None or 'torch'"
    )


def _to_indices(labels: Any, column: str) -> list[int]:
    try:
        return [operator.index(label) for label in labels]
    except TypeError:
        raise DataError(
            f"the column {column!r} must hold class indices, got {shorten(labels)}; "
            f"turn names into indices with class_encode_column({column!r})"
        ) from None
