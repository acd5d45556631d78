"""What a source lists before any image is read, and the reading of what is wanted of it."""

import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

import torch
from PIL import Image, ImageOps
from torch import Tensor

from genaug.data.allocation import MEMORY_LIMIT, check_memory_limit
from genaug.data.labeled import LabeledImages
from genaug.data.splits import limit_indices, longtail_indices
from genaug.data.stacking import ImageStack, check_resize
from genaug.errors import DataError, shorten
from genaug.spec import DataSpec

SHOWN = 10  # skipped images in a warning


class UnreadableImage(DataError):
    """An image that cannot be decoded; `skip_bad` leaves such images out."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: cannot be read as an image ({reason}); repair or remove the file, "
            "or leave out what cannot be read with --skip-bad (skip_bad=True)"
        )
        self.summary = " ".join(f"{name} ({reason})".splitlines())


@dataclass(frozen=True)
class ReadOptions:
    """What is wanted of a source; the meaning of each field is told at `load_data`.

    Raises:
        DataError: a field that is out of range.

    >>> ReadOptions(limit_per_class=1).select(torch.tensor([0, 1, 0])).tolist()
    [0, 1]
    """

    resize: tuple[int, int] | None = None
    grayscale: bool = False
    limit_per_class: int | None = None
    longtail: float | None = None
    seed: int = 0
    skip_bad: bool = False
    memory_limit: float = MEMORY_LIMIT

    def __post_init__(self) -> None:
        if self.resize is not None:
            object.__setattr__(self, "resize", check_resize(self.resize))
        check_memory_limit(self.memory_limit)
        limit, factor = self.limit_per_class, self.longtail
        if limit is not None and (type(limit) is not int or limit < 1):
            raise DataError(f"limit_per_class must be an integer of at least 1, got {shorten(limit)}; pass such as 100")
        if factor is not None and (type(factor) not in (int, float) or not math.isfinite(factor) or factor < 1):
            raise DataError(
                "longtail (images of the first class over those of the last) must be a finite number of at least 1, "
                f"got {shorten(factor)}; pass for example 100"
            )

    @property
    def selects(self) -> bool:
        """Whether only some of the images are wanted."""
        return self.limit_per_class is not None or self.longtail is not None

    def select(self, labels: Tensor) -> Tensor:
        """Return the indices, in ascending order, of what is wanted: the limit for each class, then the long tail."""
        kept = torch.arange(len(labels))
        if self.limit_per_class is not None:
            kept = limit_indices(labels, limit=self.limit_per_class, seed=self.seed)
        if self.longtail is not None:
            kept = kept[longtail_indices(labels[kept], imbalance_factor=self.longtail, seed=self.seed)]
        return kept


@dataclass(frozen=True)
class Listing:
    """Images that can be read one by one, and their labels.

    Args:
        labels: int64 (N,), class indices.
        class_names: of all classes.
        name: words for an image in messages, by its index.
        read: gives the image of an index, or raises `UnreadableImage`.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    name: Callable[[int], str]
    read: Callable[[int], Image.Image]


def read_listing(listing: Listing, options: ReadOptions) -> LabeledImages:
    """Return the images that `options` want of a listing; only these are read.

    Raises:
        DataError: an image that cannot be read (without `skip_bad`, or where it is so with all of them); images of
            several sizes without `resize`.
    """
    kept = options.select(listing.labels).tolist()
    stack = ImageStack(len(kept), resize=options.resize, grayscale=options.grayscale, memory_limit=options.memory_limit)
    good, skipped = [], []
    for index in kept:
        try:
            image = listing.read(index)
        except UnreadableImage as problem:
            if not options.skip_bad:
                raise
            skipped.append(problem.summary)
            continue
        stack.add(image, listing.name(index))
        good.append(index)
    return finish_reading(stack, listing.labels[good], listing.class_names, skipped)


def finish_reading(
    stack: ImageStack, labels: Tensor, class_names: tuple[str, ...], skipped: Sequence[str]
) -> LabeledImages:
    """Return what was read with its labels (N,), and warn of what was skipped.

    Raises:
        DataError: no image could be read.
    """
    total = stack.added + len(skipped)
    if not stack.added:
        raise DataError(f"none of the {total} images can be read; the first one is {skipped[0]}")
    if skipped:
        more = [f"... and {len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else []
        lines = [f"skipped {len(skipped)} of {total} images, which cannot be read:", *skipped[:SHOWN], *more]
        warnings.warn("\n  ".join(lines), stacklevel=3)
    images = stack.finish()
    channels, height, width = images.shape[1:]
    spec = DataSpec(channels=channels, height=height, width=width, class_names=class_names)
    return LabeledImages(images, labels, spec, skipped=tuple(skipped))


def decode_image(file: str | os.PathLike[str] | bytes, name: str) -> Image.Image:
    """Return an image file (a path, or its content) decoded, turned upright as its EXIF orientation says.

    Of an animation it is the first frame.

    Raises:
        UnreadableImage: a file that is missing, empty, damaged, no image, or too large to be one in earnest.
    """
    opened: str | os.PathLike[str] | IO[bytes] = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(opened) as image:
                deep = image.mode == "I" and image.format == "PNG"  # how PIL opened 16 bits before "I;16"
                image.load()
                return ImageOps.exif_transpose(image.convert("I;16") if deep else image)
    except Exception as problem:  # decoders of damaged files fail with anything: SyntaxError, struct.error, ...
        raise UnreadableImage(name, _reason(file, problem)) from problem


def _reason(file: str | os.PathLike[str] | bytes, problem: Exception) -> str:
    try:
        empty = not file if isinstance(file, bytes) else os.path.getsize(file) == 0
    except OSError:
        empty = False
    if empty:
        return "the file is empty"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return shorten(str(problem), 300)
