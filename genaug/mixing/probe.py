"""What a data set does to a raw image and label before it returns them, seen by reading one item of a shallow copy.

In the copy, the data set's transforms are replaced by recorders, which keep what they are called with. The data set
itself is not changed, its transforms do not run, and global random state is put back.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.errors import DataError, shorten
from genaug.mixing.kinds import (
    ImageKind,
    ItemForm,
    LabelKind,
    check_columns,
    describe_image,
    describe_item,
    describe_label,
    is_image,
    pick_key,
)
from genaug.seeding import unchanged_random_state
from genaug.spec import IMAGE_KEYS, LABEL_KEYS

IMAGE_TRANSFORMS = ("transform", "transforms")
LABEL_TRANSFORM = "target_transform"


class Recorder:
    """Stands in for a transform: keeps what it is called with and returns it unchanged."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if kwargs:
            return kwargs
        return args[0] if len(args) == 1 else args


@dataclass(frozen=True)
class Pipeline:
    """How a data set makes its items from raw images and labels.

    `call` is how it calls its `transform`: "none" (it has none), "image" (one argument), "keyword" (image=, as
    albumentations), "pair" (image, label), "sample" (the whole item) or "batch" (a dict of lists, as Hugging Face).
    """

    form: ItemForm
    image: ImageKind
    label: LabelKind
    call: str = "none"
    transform: Callable[..., Any] | None = None
    target_transform: Callable[[Any], Any] | None = None

    def make(self, images: torch.Tensor, labels: NDArray[np.int64]) -> list[Any]:
        """Return items made from uint8 images (n, C, H, W) and class indices."""
        return self._finish(self.image.make(images), self.label.make(labels))

    def _finish(self, images: list[Any], labels: list[Any]) -> list[Any]:
        transform: Any = self.transform
        if self.call == "batch":
            batch = transform({self.form.image: images, self.form.label: labels})
            return [{key: values[row] for key, values in batch.items()} for row in range(len(images))]
        if self.call == "sample":
            return [transform(sample) for sample in self.form.join(images, labels)]
        if self.call == "pair":
            images, labels = zip(*map(transform, images, labels), strict=True)  # type: ignore[assignment]
        elif self.call == "keyword":
            images = [transform(image=image)["image"] for image in images]
        elif self.call == "image":
            images = [transform(image) for image in images]
        if self.target_transform is not None:
            labels = [self.target_transform(label) for label in labels]
        return self.form.join(images, labels)

    def matches(self, other: "Pipeline") -> bool:
        """Return whether `other` makes items in the same way, with the same or equal transforms."""
        return (
            (self.form, self.call, self.image.family, self.label)
            == (other.form, other.call, other.image.family, other.label)
            and _same(self.transform, other.transform)
            and _same(self.target_transform, other.target_transform)
        )


@dataclass(frozen=True)
class Capture:
    """An item of a data set as it is without its transforms, and the calls that these would have got."""

    item: Any
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]

    def raw_label(self, form: ItemForm) -> Any:
        """Return the label before the data set's `target_transform`."""
        calls = self.calls.get(LABEL_TRANSFORM)
        return calls[-1][0][0] if calls and calls[-1][0] else self.item[form.label]


class Twin:
    """A shallow copy of a data set whose transforms are recorders."""

    def __init__(self, dataset: Any) -> None:
        self._copy = copy.copy(dataset)
        for name, value in getattr(dataset, "__dict__", {}).items():
            if isinstance(value, (dict, list, set)):  # what is read here must not enter the data set's caches
                self._copy.__dict__[name] = copy.copy(value)
        self._recorders: dict[str, Recorder] = {}
        for name in (*IMAGE_TRANSFORMS, LABEL_TRANSFORM):
            transform = getattr(dataset, name, None)
            if not callable(transform):
                continue
            # In the copy's own attributes: setting a property could reach through to the data set, or one inside it.
            held = [key for key, value in getattr(self._copy, "__dict__", {}).items() if value is transform]
            if not held and not isinstance(getattr(type(dataset), name, None), property):
                held = [name]  # of the class, or a slot
            if held:
                self._recorders[name] = Recorder()
            for key in held:
                object.__setattr__(self._copy, key, self._recorders[name])  # also where the class is frozen

    def read(self, index: int) -> Capture:
        """Return an item as it is without transforms, and the calls that these would have got.

        Raises:
            DataError: the data set cannot go on with what its transform was given.
        """
        for recorder in self._recorders.values():
            recorder.calls = []
        try:
            with unchanged_random_state():
                item = self._copy[index]
        except Exception as problem:
            if not any(recorder.calls for recorder in self._recorders.values()):
                raise
            raise DataError(
                f"real must return what its transform gives it, but does more with it ({shorten(str(problem))}); "
                "move that into the transform"
            ) from problem
        return Capture(item, {name: recorder.calls for name, recorder in self._recorders.items() if recorder.calls})


def is_hugging_face(dataset: Any) -> bool:
    """Return whether `dataset` is one of Hugging Face `datasets`, without importing that."""
    return any(cls.__module__.partition(".")[0] == "datasets" for cls in type(dataset).__mro__) and hasattr(
        dataset, "features"
    )


def describe_pipeline(
    dataset: Any, *, index: int = 0, image_key: str | None = None, label_key: str | None = None
) -> Pipeline:
    """Return how `dataset`, which is no Subset or ConcatDataset, makes its items, as the one at `index` shows.

    Raises:
        DataError: items or transforms of a form that synthetic samples cannot take.
    """
    if is_hugging_face(dataset):
        return _describe_hugging_face(dataset, index, image_key, label_key)
    capture = Twin(dataset).read(index)
    name, call, sample = _find_call(capture)
    form = describe_item(capture.item, image_key=image_key, label_key=label_key)
    image = capture.item[form.image]
    kept = capture.item is sample if call == "sample" else call == "none" or image is sample
    if not kept:
        raise DataError(
            f"real must return what its {name} gives it, but turns it into something else "
            f"({type(image).__name__}); move that into the transform"
        )
    label = capture.raw_label(form)
    if LABEL_TRANSFORM in capture.calls and type(label) is not type(capture.item[form.label]):
        raise DataError("real must return what its target_transform gives it; move what comes after into that")
    return Pipeline(
        form=form,
        image=describe_image(image, name="raw images of real"),
        label=describe_label(label, name="raw labels of real"),
        call=call,
        transform=getattr(dataset, name) if name else None,
        target_transform=getattr(dataset, LABEL_TRANSFORM) if LABEL_TRANSFORM in capture.calls else None,
    )


def _find_call(capture: Capture) -> tuple[str | None, str, Any]:
    """Return which transform was called, how, and the image (or whole sample) that it was called with."""
    calls = [(name, *call) for name in IMAGE_TRANSFORMS for call in capture.calls.get(name, [])]
    if not calls:
        return None, "none", None
    if len(calls) > 1:
        raise DataError(
            f"real must call one transform once for an item, got {len(calls)} calls of "
            f"{' and '.join(sorted({name for name, *_ in calls}))}; wrap it in a data set that returns one image"
        )
    name, args, kwargs = calls[0]
    if not args and set(kwargs) == {"image"}:
        return name, "keyword", kwargs["image"]
    if not kwargs and len(args) == 1 and not is_image(args[0]) and isinstance(args[0], (Mapping, tuple, list)):
        return name, "sample", args[0]
    if not kwargs and len(args) in (1, 2):
        return name, "image" if len(args) == 1 else "pair", args[0]
    raise DataError(
        f"real must call its {name} with an image, (image, label), one sample or image=, got {len(args)} positional "
        f"arguments and {shorten(sorted(kwargs))}; change how it is called"
    )


def _describe_hugging_face(dataset: Any, index: int, image_key: str | None, label_key: str | None) -> Pipeline:
    view, features = dataset.format, dataset.features
    columns = list(features) if view["output_all_columns"] or not view["columns"] else list(view["columns"])
    image_key = image_key or find_image_key(features, columns)
    label_key = label_key or find_label_key(features, columns)
    check_columns(columns, image_key, label_key)
    own = view["format_kwargs"].get("transform") if view["type"] == "custom" else None
    raw = dataset if own is None else dataset.with_format(None)
    with unchanged_random_state():
        row = raw[index]
    return Pipeline(
        form=ItemForm(dict, image_key, label_key),
        image=describe_image(row[image_key], name=f"column {image_key!r} of real"),
        label=describe_label(row[label_key], name=f"column {label_key!r} of real"),
        call="none" if own is None else "batch",
        transform=own,
    )


def find_image_key(features: Any, columns: list[str]) -> str:
    """Return the column with images of a Hugging Face data set, by its name or type.

    Raises:
        DataError: none or several.
    """
    kinds = ("Image", "Array2D", "Array3D")
    return pick_key(columns, [key for key in columns if type(features[key]).__name__ in kinds], IMAGE_KEYS, "image")


def find_label_key(features: Any, columns: list[str]) -> str:
    """Return the column with class indices of a Hugging Face data set, by its name or type.

    Raises:
        DataError: none or several.
    """
    named = [key for key in columns if type(features[key]).__name__ == "ClassLabel"]
    integers = [key for key in columns if "int" in str(getattr(features[key], "dtype", ""))]
    return pick_key(columns, named or integers, LABEL_KEYS, "label")


def find_settings(dataset: Any) -> list[str]:
    """Return the attributes that say which transforms a data set has, but those that are another object each time."""
    names = ["format"] if is_hugging_face(dataset) else [*IMAGE_TRANSFORMS, LABEL_TRANSFORM]
    return [name for name in names if hasattr(dataset, name) and getattr(dataset, name) == getattr(dataset, name)]


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    # torchvision makes a StandardTransform for each data set, around the transforms given to it
    if type(one) is type(other) and type(one).__name__ == "StandardTransform":
        return _same(one.transform, other.transform) and _same(one.target_transform, other.target_transform)
    return bool(one == other)
