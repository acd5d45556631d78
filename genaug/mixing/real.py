"""What is known about a real data set: its items, labels and classes, also inside Subset and ConcatDataset."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from genaug.data.labels import find_names, read_names
from genaug.errors import DataError, shorten
from genaug.mixing.kinds import describe_label, to_index
from genaug.mixing.probe import (
    Pipeline,
    Twin,
    describe_pipeline,
    find_label_key,
    is_hugging_face,
)


class Keys(NamedTuple):
    """Keys of image and label where items are dicts; None where they are to be found."""

    image_key: str | None
    label_key: str | None


Leaf = tuple[Any, NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class RealData:
    """Labels of all items, class names where known, and how items are made.

    `leaves` are the data sets inside Subset and ConcatDataset, each with the indices (n,) in it of the items that are
    used, and the indices (n,) of the same items in the whole.
    """

    labels: list[int]
    class_names: tuple[str, ...] | None
    pipeline: Pipeline
    leaves: list[Leaf]


def describe_real(
    dataset: Any, *, labels: Any = None, image_key: str | None = None, label_key: str | None = None
) -> RealData:
    """Return what is known about a map-style data set.

    Args:
        dataset: the data set; it is not changed.
        labels: class index of every item, where the data set cannot tell them without reading all items.
        image_key: key of the image where items are dicts.
        label_key: key of the label where items are dicts.

    Raises:
        DataError: no data set with items by index; items, transforms or labels of an unusable form.
    """
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"real must have a length and items by index (map-style), got {type(dataset).__name__}; "
            "read an iterable data set into a list first"
        )
    if not len(dataset):
        raise DataError("real must hold at least one item, got an empty data set")
    if isinstance(dataset, Mapping) and 0 not in dataset:
        raise DataError(
            f"real must be one data set, got a {type(dataset).__name__} of {shorten(list(dataset))}; "
            f"pass one of them, such as real[{'train' if 'train' in dataset else next(iter(dataset))!r}]"
        )
    keys = Keys(image_key, label_key)
    everything = np.arange(len(dataset))
    leaves = list(_leaves(dataset, everything, everything))
    pipeline = describe_leaves([(leaf, int(indices[0])) for leaf, indices, _ in leaves], keys)
    if labels is None:
        found = _labels_at(dataset, range(len(dataset)), keys)
    else:
        found = _as_labels(labels) or []
        if len(found) != len(dataset):
            raise DataError(f"labels must be one class index for each of {len(dataset)} items, got {shorten(labels)}")
    return RealData(found, find_class_names(dataset, keys), pipeline, leaves)


def describe_leaves(leaves: Sequence[tuple[Any, int]], keys: Keys) -> Pipeline:
    """Return how the items of data sets are made, as one item of each shows, whose index is given with it.

    Raises:
        DataError: in several ways, or in one that synthetic samples cannot take.
    """
    pipelines = [describe_pipeline(leaf, index=index, **keys._asdict()) for leaf, index in leaves]
    if not all(pipeline.matches(pipelines[0]) for pipeline in pipelines):
        raise DataError(
            "real joins data sets whose items or transforms differ; give all of them the same transform object"
        )
    return pipelines[0]


def _leaves(dataset: Any, indices: NDArray[np.int64], places: NDArray[np.int64]) -> Iterator[Leaf]:
    """Yield the leaves of `indices` in `dataset`, which stand at `places` in the whole; see `RealData`.

    Subclasses that read items in their own way stay whole.
    """
    if type(dataset).__getitem__ is Subset.__getitem__:
        yield from _leaves(dataset.dataset, _inner(dataset, indices), places)
    elif type(dataset).__getitem__ is ConcatDataset.__getitem__:
        for part, rows, inner in _split_parts(dataset, indices):
            yield from _leaves(part, inner, places[rows])
    else:
        yield dataset, indices, places


def _inner(subset: Any, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the items of a Subset in the data set inside it."""
    return np.array([int(subset.indices[index]) for index in indices.tolist()], dtype=np.int64)


def _labels_at(dataset: Any, indices: Sequence[int], keys: Keys) -> list[int]:
    known = _known_labels(dataset, keys)
    if known is not None:
        return [known[index] for index in indices]
    if isinstance(dataset, Subset):
        return _labels_at(dataset.dataset, _inner(dataset, np.asarray(indices)).tolist(), keys)
    if isinstance(dataset, ConcatDataset):
        found = [0] * len(indices)
        for part, places, inner in _split_parts(dataset, np.asarray(indices)):
            for place, label in zip(places, _labels_at(part, inner.tolist(), keys), strict=True):
                found[place] = label
        return found
    twin, form = Twin(dataset), describe_pipeline(dataset, index=int(indices[0]), **keys._asdict()).form
    raw = [twin.read(index).raw_label(form) for index in indices]
    for label in raw:
        describe_label(label, name="labels of real")
    return [to_index(label) for label in raw]


def _known_labels(dataset: Any, keys: Keys) -> list[int] | None:
    """Return labels that a data set holds, under the names that libraries use, without reading items."""
    if is_hugging_face(dataset):
        key = keys.label_key or find_label_key(dataset.features, list(dataset.features))
        return _as_labels(dataset.with_format("numpy").select_columns([key])[:][key])
    tensors = getattr(dataset, "tensors", ())
    candidates = [getattr(dataset, "targets", None), getattr(dataset, "labels", None), *tensors[1:2]]
    for candidate in candidates:
        if isinstance(candidate, Sized) and len(candidate) == len(dataset):
            labels = _as_labels(candidate)
            if labels is not None:
                return labels
    return None


def _as_labels(values: Any) -> list[int] | None:
    try:
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError:  # lists of several lengths
        return None
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    return array.tolist() if array.ndim == 1 and np.issubdtype(array.dtype, np.integer) else None


def find_class_names(dataset: Any, keys: Keys | None = None) -> tuple[str, ...] | None:
    """Return the names of the classes of a data set, also inside Subset and ConcatDataset; None where it has none.

    Raises:
        DataError: joined data sets with other classes.
    """
    keys = keys or Keys(None, None)
    if is_hugging_face(dataset):
        if dataset.features is None:  # of a stream, before its first example
            return None
        try:
            key = keys.label_key or find_label_key(dataset.features, list(dataset.features))
        except DataError:
            return None
        known = read_names(getattr(dataset.features[key], "names", None))
    else:
        known = find_names(dataset)
    if known is not None:
        return known
    if isinstance(dataset, Subset):
        return find_class_names(dataset.dataset, keys)
    found = {find_class_names(part, keys) for part in getattr(dataset, "datasets", ())} - {None}
    if len(found) > 1:
        raise DataError(f"real joins data sets whose classes differ: {shorten(sorted(map(str, found)))}; align them")
    return found.pop() if found else None


def fetch(dataset: Any, indices: NDArray[np.int64]) -> list[Any]:
    """Return the items at `indices`, at once where the data set can do that."""
    if not len(indices):
        return []
    if type(dataset) is Subset:
        return fetch(dataset.dataset, _inner(dataset, indices))
    if type(dataset).__getitem__ is TensorDataset.__getitem__ and not hasattr(dataset, "__getitems__"):
        rows = indices % len(dataset)
        # ten times as fast as indexing; a row is a copy, where the data set gives a view
        return list(zip(*(_gather(tensor, rows).unbind() for tensor in dataset.tensors), strict=True))
    if callable(getattr(dataset, "__getitems__", None)):
        return list(dataset.__getitems__(indices.tolist()))
    if type(dataset) is ConcatDataset:
        items: list[Any] = [None] * len(indices)
        for part, places, inner in _split_parts(dataset, indices):
            for place, item in zip(places, fetch(part, inner), strict=True):
                items[place] = item
        return items
    return [dataset[index] for index in indices.tolist()]


def _gather(tensor: Tensor, rows: NDArray[np.int64]) -> Tensor:
    if tensor.device.type != "cpu" or tensor.dtype == torch.bfloat16 or tensor.requires_grad:
        return tensor[torch.from_numpy(rows).to(tensor.device)]
    # NumPy copies rows on this thread; torch wakes others, who wait long for a core where loaders and training share it
    return torch.from_numpy(tensor.numpy().take(rows, axis=0))


def _split_parts(dataset: Any, indices: NDArray[np.int64]) -> Iterator[tuple[Any, list[int], NDArray[np.int64]]]:
    """Yield each part of a ConcatDataset with the places in `indices` that fall into it, and the indices inside it."""
    indices = indices % len(dataset)
    parts = np.searchsorted(dataset.cumulative_sizes, indices, side="right")
    for part in np.unique(parts).tolist():
        places = np.flatnonzero(parts == part)
        start = dataset.cumulative_sizes[part - 1] if part else 0
        yield dataset.datasets[part], places.tolist(), indices[places] - start
