"""Samples of a bank as Hugging Face tables: written once to the cache of `datasets`, in bounded memory."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch import Tensor

from genaug import __version__
from genaug.bank import SampleBank
from genaug.bank.exports import encode_png
from genaug.data.mapstyle import pick_column
from genaug.errors import DataError, shorten
from genaug.mixing.kinds import ImageKind, describe_image

CHUNK = 128  # images in memory at once


@dataclass(frozen=True)
class Columns:
    """The columns of a Hugging Face data set, which of them are the image and the label, and the names of the classes.

    `class_names` is None where labels are plain integers.
    """

    features: datasets.Features
    image: str
    label: str
    class_names: tuple[str, ...] | None


def find_columns(features: datasets.Features, *, image_column: str | None, label_column: str | None) -> Columns:
    """Return which columns hold the images and the labels.

    Args:
        features: all columns.
        image_column: that of images; None takes "image", "img", or the only `Image` one.
        label_column: that of labels; None takes "label", "labels", or the only `ClassLabel` one.

    Raises:
        DataError: no such columns, or of other types.
    """
    image = pick_column(features, features, "Image", image_column)
    label = pick_column(features, features, "ClassLabel", label_column)
    if not isinstance(features[image], datasets.Image):
        raise DataError(
            f"image_column must name a column of type Image, got {image!r} of type {shorten(features[image])}; "
            f"call dataset.cast_column({image!r}, datasets.Image()), and leave other conversions to a transform"
        )
    kind = features[label]
    if isinstance(kind, datasets.ClassLabel):
        return Columns(features, image, label, tuple(kind.names))
    if isinstance(kind, datasets.Value) and "int" in kind.dtype:
        return Columns(features, image, label, None)
    raise DataError(
        f"label_column must name a column of class indices, got {label!r} of type {shorten(kind)}; turn names into "
        f"indices with dataset.class_encode_column({label!r}), or cast_column({label!r}, ClassLabel(names=...))"
    )


def describe_first(value: Any, columns: Columns) -> ImageKind:
    """Return the kind of images, given the first one, decoded or not.

    Raises:
        DataError: no image, or one of a mode that synthetic images cannot take.
    """
    if isinstance(value, dict):
        value = datasets.Image(mode=columns.features[columns.image].mode).decode_example(value)
    return describe_image(value, name=f"the column {columns.image!r} of dataset")


def write_samples(
    bank: SampleBank, rows: Tensor, labels: Sequence[int], *, columns: Columns, channels: int, marks: dict[str, Any]
) -> datasets.Dataset:
    """Return samples of a bank as a table in the cache of `datasets`, where it is found again when asked for again.

    Args:
        bank: the bank.
        rows: which of its samples, int64 (n,).
        labels: class index of each.
        columns: those of the table; besides the image, the label and `marks` they are empty (null).
        channels: that the images get: gray ones may become RGB.
        marks: a value for all rows, by column.

    Raises:
        datasets.exceptions.DatasetGenerationError: the cache is full or cannot be written.
    """
    blank = {**dict.fromkeys(columns.features), **marks}

    def read() -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), CHUNK):
            images = bank.images(rows[start : start + CHUNK]).expand(-1, channels, -1, -1)
            for image, label in zip(images, labels[start : start + CHUNK], strict=True):
                file = {"bytes": encode_png(image.numpy()), "path": None}
                yield {**blank, columns.image: file, columns.label: label}

    fingerprint = _hash_samples(
        bank, rows, labels, [columns.features.to_dict(), columns.image, columns.label, channels, marks]
    )
    return datasets.Dataset.from_generator(read, features=columns.features, fingerprint=fingerprint)


def _hash_samples(bank: SampleBank, rows: Tensor, labels: Sequence[int], rest: Any) -> str:
    """Return a hash of all that a table depends on; the pixels of a bank on disk by the hash that is stored with it."""
    digest = hashlib.sha256(json.dumps([__version__, rest, list(labels)], sort_keys=True).encode())
    if bank.provenance.images_sha256 is not None:
        digest.update(bank.provenance.images_sha256.encode() + rows.numpy().tobytes())
    else:
        for start in range(0, len(rows), CHUNK):
            digest.update(bank.images(rows[start : start + CHUNK]).numpy().data)
    return digest.hexdigest()[:32]
