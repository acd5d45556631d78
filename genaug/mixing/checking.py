"""Whether synthetic images come out as the real ones of a data set do: names of classes, values, transforms."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genaug.errors import DataError, DataWarning, shorten
from genaug.images import warn_of_scale
from genaug.mixing.kinds import describe_image, find_range, to_index
from genaug.mixing.probe import Pipeline, Twin, is_hugging_face
from genaug.mixing.real import RealData, find_class_names
from genaug.seeding import draws_at_random
from genaug.spec import spread

CHECKED_ITEMS = 16


def check_hidden_names(dataset: Any, known: tuple[str, ...] | None, names: tuple[str, ...]) -> None:
    """Raise a `DataError` where classes would be matched by index, and a data set inside has them in another order.

    Args:
        dataset: the data set.
        known: the names of its classes, where it has any.
        names: those of the source, in its order.
    """
    held = getattr(dataset, "__dict__", {})
    named = {name: getattr(dataset, name, None) for name in ("dataset", "subset")}  # also those of a class, or a slot
    inside = [value for value in held.values() if isinstance(value, Dataset) or is_hugging_face(value)]
    for inner in [*named.values(), *inside] if known is None else ():
        hidden = None if inner is None else find_class_names(inner)
        if hidden is not None and hidden != names and sorted(hidden) == sorted(names):
            raise DataError(
                f"real must have an attribute classes with the names of its classes: the data set inside "
                f"{type(dataset).__name__} has {shorten(hidden)}, and source {shorten(names)}, in another order"
            )


def check_items(real: RealData, *, given: bool, ranges: bool) -> None:
    """Check evenly spaced items: labels against those that the data set lists, and raw images.

    A warning tells where raw images change from reading to reading, by a transform that is not seen.

    Args:
        real: what is known about the data set.
        given: whether the labels are not those that the data set lists, but given.
        ranges: whether raw images must be in a known range, since synthetic ones are made like them.

    Raises:
        DataError: other labels than listed; floats outside [0, 1], for which no conversion is known.
    """
    pipeline, key, hidden = real.pipeline, real.pipeline.form.image, False
    if pipeline.call == "batch":  # labels are a column, and raw images are files
        return
    for leaf, indices, places in real.leaves:
        twin, rows = Twin(leaf), _spread_rows(real, indices)
        for row in rows:
            capture = twin.read(int(indices[row]))
            listed, label = real.labels[places[row]], to_index(capture.raw_label(pipeline.form))
            if listed != label:
                before = " before its target_transform" if pipeline.target_transform else ""
                raise DataError(
                    f"labels= must be those of the items{before}, got {listed} for item {places[row]} with {label}"
                    if given
                    else f"real lists label {listed} for item {places[row]} and returns {label}{before}; pass labels= "
                    "with the class index of every item"
                )
            if ranges:
                _check_values(capture.item[key], pipeline)
        read = partial(_read_raw, twin, key)
        hidden = hidden or (ranges and draws_at_random(read, indices[rows].tolist()))
    if hidden:
        warnings.warn(
            "images of real change from reading to reading: a transform in it draws at random, which synthetic images "
            "do not go through, since it is not an attribute transform or transforms; call it so, or pass transform=",
            DataWarning,
            stacklevel=3,
        )


def _spread_rows(real: RealData, indices: NDArray[np.int64]) -> list[int]:
    """Return evenly spaced places in the indices of a leaf, of all leaves together about as many as are checked."""
    count = min(max(CHECKED_ITEMS // len(real.leaves), 1), len(indices))
    return spread(len(indices), count).tolist()


def _read_raw(twin: Twin, key: Any, index: int) -> Any:
    """Return the image of an item as it is without transforms."""
    return twin.read(index).item[key]


def check_made(real: RealData, images: list[Any]) -> None:
    """Check that what a given transform made of synthetic images is as the images of real items are.

    Args:
        real: what is known about the data set.
        images: a few synthetic images that went through the transform.

    Raises:
        DataError: another type, dtype or number of channels, or another size where real ones have one size.
    """
    known = [
        _read_raw(Twin(leaf), real.pipeline.form.image, int(indices[row]))
        for leaf, indices, _ in real.leaves
        for row in _spread_rows(real, indices)
    ]
    sizes = {(kind.height, kind.width) for kind in (describe_image(image, name="images of real") for image in known)}
    for image in images:
        made = describe_image(image, name="what transform makes of synthetic images")
        wanted = real.pipeline.image
        if len(sizes) > 1:
            wanted = replace(wanted, height=made.height, width=made.width)
        if replace(made, tensor_type=wanted.tensor_type) != wanted:
            raise DataError(
                f"transform must make {wanted.describe()} of synthetic images, as real has, got {made.describe()}; "
                "give it what real images went through, such as a resize, ToDtype and Normalize"
            )
    warn_of_scale(*(torch.stack([_to_peak(image) for image in part]) for part in (images, known)))


def _to_peak(image: Any) -> Tensor:
    """Return how far an image of floats reaches from 0; 0 for any other."""
    return torch.tensor(max(map(abs, find_range(image) or (0.0, 0.0))))


def _check_values(image: Any, pipeline: Pipeline) -> None:
    limits = find_range(image)
    if limits is None or (limits[0] >= 0 and limits[1] <= 1):  # written so that NaN fails
        return
    got = f"got floats from {limits[0]:g} to {limits[1]:g}"
    if pipeline.call == "none":
        raise DataError(
            f"items of real must be uint8 or floats within [0, 1] where no transform is found on real, {got}; pass "
            "transform=, which does the same to synthetic images, or samples would be normalized in two ways"
        )
    raise DataError(f"real must give its transform uint8, or floats within [0, 1], {got}; scale them before, in real")
