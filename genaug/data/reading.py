"""What a source lists before any image is read, and the reading of what is wanted of it."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from genaug.data.allocation import MEMORY_LIMIT, check_memory_limit
from genaug.data.decoding import UnreadableImage
from genaug.data.labeled import LabeledImages
from genaug.data.patches import Size, check_unchanged, in_words, place_patches
from genaug.data.splits import limit_indices, longtail_indices
from genaug.data.stacking import ImageStack, check_size, find_size
from genaug.errors import DataError, check_count, shorten
from genaug.spec import DataSpec

SHOWN = 10  # skipped images in a warning

T = TypeVar("T")


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
    patches: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "patches"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_size(getattr(self, name), name=name))
        if self.resize is not None and self.patches is not None:
            raise DataError(
                f"patches and resize exclude each other, got patches {in_words(self.patches)} and resize "
                f"{in_words(self.resize)}; leave --resize (resize=) out"
            )
        check_memory_limit(self.memory_limit)
        limit, factor = self.limit_per_class, self.longtail
        if limit is not None:
            check_count(limit, name="limit_per_class", advice="; pass such as 100", error=DataError)
        if factor is not None and (type(factor) not in (int, float) or not math.isfinite(factor) or factor < 1):
            raise DataError(
                "longtail (images of the first class over those of the last) must be a finite number of at least 1, "
                f"got {shorten(factor)}; pass for example 100"
            )

    @property
    def selects(self) -> bool:
        """Whether only some of the images are wanted."""
        return self.limit_per_class is not None or self.longtail is not None

    def select(self, labels: Tensor, *, num_classes: int | None = None) -> Tensor:
        """Return the indices, in ascending order, of what is wanted: the limit for each class, then the long tail.

        `num_classes` counts classes that have no images here too.
        """
        kept = torch.arange(len(labels))
        if self.limit_per_class is not None:
            kept = limit_indices(labels, limit=self.limit_per_class, seed=self.seed)
        if self.longtail is not None:
            factor, part = self.longtail, labels[kept]
            kept = kept[longtail_indices(part, imbalance_factor=factor, seed=self.seed, num_classes=num_classes)]
        return kept


@dataclass(frozen=True)
class Listing:
    """Images that can be read one by one, and their labels.

    Args:
        labels: int64 (N,), class indices.
        class_names: of all classes.
        name: words for an image in messages, by its index.
        read: gives the image of an index (PIL or a tensor), or raises `UnreadableImage`.
        measure: gives the (height, width) of what `read` gives, or raises `UnreadableImage`; it costs less.
        skipped: what was left out already, since it cannot be read: name and reason of each image.
        key: what an image shares with its partner in another source (`genaug.data.pairs`): by default its place.
        origins: int64 (N,), a number of the image that each is a patch of, where they are patches.

    Raises:
        DataError: no images at all.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    name: Callable[[int], str]
    read: Callable[[int], Any]
    measure: Callable[[int], Size]
    skipped: tuple[str, ...] = ()
    key: Callable[[int], str | int] = int
    origins: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.labels) and not self.skipped:
            raise DataError("data must hold at least one image, got none")


def read_listing(listing: Listing, options: ReadOptions) -> LabeledImages:
    """Return the images that `options` want of a listing, or their patches; only these are read.

    Raises:
        DataError: an image that cannot be read (without `skip_bad`, or where it is so with all of them); images of
            several sizes without `resize` or `patches`; images that are all smaller than a patch.
    """
    kept = options.select(listing.labels, num_classes=len(listing.class_names)).tolist() if len(listing.labels) else []
    skipped = list(listing.skipped)
    total = len(kept) + len(skipped)
    sizes, count = None, len(kept)
    if options.patches is not None:
        sizes = _measure(listing, kept, options, options.patches, skipped)
        kept = list(sizes)
        count = sum(len(place_patches(size, options.patches)) for size in sizes.values())
    stack = ImageStack(
        count,
        resize=options.resize,
        patches=options.patches,
        grayscale=options.grayscale,
        memory_limit=options.memory_limit,
    )
    good: list[int] = []
    for index, image in read_each(listing.read, kept, skip_bad=options.skip_bad, skipped=skipped):
        if sizes is not None:
            check_unchanged(find_size(image, listing.name(index)), sizes[index], listing.name(index))
        good += [index] * stack.add(image, listing.name(index))
    images = finish_reading(stack, listing.labels[good], listing.class_names, skipped, total=total)
    if listing.origins is not None:
        return replace(images, origins=listing.origins[good])
    return images if sizes is None else replace(images, origins=torch.tensor(good))


@dataclass(frozen=True)
class WholeImages:
    """Images of any size that are read one at a time, each time they are gone through: (name, uint8 (C, H, W)).

    Each is gray or RGB by itself. Going through them raises a `DataError` for one that cannot be read; with `skip_bad`
    only where that is so with all of them, and else there is a warning at the end.

    Args:
        listing: of the images; its classes are taken no notice of.
        grayscale: make every image gray.
        skip_bad: leave out images that cannot be read.
        limit: take this many at most, the first ones.
    """

    listing: Listing
    grayscale: bool = False
    skip_bad: bool = False
    limit: int | None = None

    def __len__(self) -> int:
        listed = len(self.listing.labels)
        return listed if self.limit is None else min(self.limit, listed)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        skipped = list(self.listing.skipped)
        total = len(self) + len(skipped)
        for index, image in read_each(self.listing.read, range(len(self)), skip_bad=self.skip_bad, skipped=skipped):
            name = self.listing.name(index)
            stack = ImageStack(1, grayscale=self.grayscale)
            stack.add(image, name)
            yield name, stack.finish()[0]
        tell_skipped(skipped, total=total)


def read_each(
    read: Callable[[int], T], indices: Iterable[int], *, skip_bad: bool, skipped: list[str]
) -> Iterator[tuple[int, T]]:
    """Yield (index, what `read` gives for it); with `skip_bad` what cannot be read is added to `skipped` instead.

    Raises:
        UnreadableImage: without `skip_bad`, the first one that `read` raises.
    """
    for index in indices:
        try:
            found = read(index)
        except UnreadableImage as problem:
            if not skip_bad:
                raise
            skipped.append(problem.summary)
        else:
            yield index, found


def _measure(
    listing: Listing, kept: Sequence[int], options: ReadOptions, patch: Size, skipped: list[str]
) -> dict[int, Size]:
    """Return the sizes of the images that hold a patch, by index, and warn of those that do not."""
    sizes = dict(read_each(listing.measure, kept, skip_bad=options.skip_bad, skipped=skipped))
    small = [index for index, size in sizes.items() if not place_patches(size, patch)]
    if small:
        least = f"a patch of {in_words(patch)} (height x width)"
        example = f"such as {listing.name(small[0])} of {in_words(sizes[small[0]])}"
        if len(small) == len(sizes):
            raise DataError(
                f"images must be as large as {least}, got {len(small)} smaller ones, {example}, and no other; "
                "choose smaller patches with --patches (patches=)"
            )
        warnings.warn(
            f"left out {len(small)} of {len(kept)} images, which are smaller than {least}, {example}", stacklevel=4
        )
    return {index: size for index, size in sizes.items() if place_patches(size, patch)}


def finish_reading(
    stack: ImageStack, labels: Tensor, class_names: tuple[str, ...], skipped: Sequence[str], *, total: int
) -> LabeledImages:
    """Return what was read with its labels (N,), and warn of what was skipped of `total` images.

    Raises:
        DataError: no image could be read.
    """
    tell_skipped(skipped, total=total)
    images = stack.finish()
    channels, height, width = images.shape[1:]
    spec = DataSpec(channels=channels, height=height, width=width, class_names=class_names)
    return LabeledImages(images, labels, spec, skipped=tuple(skipped))


def tell_skipped(skipped: Sequence[str], *, total: int) -> None:
    """Warn of what was skipped of `total` images.

    Raises:
        DataError: that is all of them.
    """
    if skipped and len(skipped) == total:
        raise DataError(f"none of the {total} images can be read; the first one is {skipped[0]}")
    if skipped:
        more = [f"... and {len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else []
        lines = [f"skipped {len(skipped)} of {total} images, which cannot be read:", *skipped[:SHOWN], *more]
        warnings.warn("\n  ".join(lines), stacklevel=4)
