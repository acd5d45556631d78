"""Labeled images: one uint8 tensor, the labels, and what they mean."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genaug.data.allocation import allocate_pixels, check_memory_limit, warn_of_disk
from genaug.data.splits import stratified_split
from genaug.errors import DataError
from genaug.spec import DataSpec

CHUNK = 1024  # images that are looked at together


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images of one size with their classes, in memory or mapped from the disk; a map-style data set of (image, label).

    Args:
        images: uint8 (N, C, H, W) in [0, 255].
        labels: int64 (N,), class indices.
        spec: channels, height, width and class names.
        skipped: what could not be read when these were loaded with `skip_bad`: name and reason of each image.
        origins: int64 (N,), a number of the image that each is a patch of; None where each is an image of its own.
        paired: whether each is two images of one scene, the second one in the second half of the channels.

    Raises:
        DataError: images that are not uint8 (N, C, H, W), or that do not fit `spec`; labels or origins of another
            number, labels out of range; a `spec` without class names; pairs with an odd number of channels.

    >>> spec = DataSpec(channels=1, height=8, width=8, class_names=("a", "b"))
    >>> data = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), spec)
    >>> len(data), data.counts
    (3, [1, 2])
    """

    images: Tensor
    labels: Tensor
    spec: DataSpec
    skipped: tuple[str, ...] = ()
    origins: Tensor | None = None
    paired: bool = False

    def __post_init__(self) -> None:
        self.spec.check_images(self.images)
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            got = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"images must be uint8 of shape (N, C, H, W), got {got}; convert with images.to_uint8")
        if not self.spec.class_names:
            raise DataError("spec must have class names, got none; pass DataSpec(..., class_names=(...))")
        self.spec.check_labels(self.labels, count=len(self.images))
        if self.origins is not None and self.origins.shape != self.labels.shape:
            raise DataError(f"origins must be one for each of {len(self)} images, got {tuple(self.origins.shape)}")
        if self.paired and self.spec.channels % 2:
            raise DataError(f"paired images must have an even number of channels, got {self.spec.channels}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        return list(torch.bincount(self.labels, minlength=self.spec.num_classes).tolist())

    @property
    def targets(self) -> list[int]:
        """The class index of each image, as torchvision's data sets name it."""
        return list(self.labels.tolist())

    @property
    def classes(self) -> list[str]:
        """The class names, as torchvision's data sets name them."""
        return list(self.spec.class_names)

    def subset(self, indices: Tensor | Sequence[int], *, memory_limit: float | None = None) -> "LabeledImages":
        """Return a copy of the images at `indices`, in that order, with the same classes.

        Args:
            indices: integers (M,) from 0 to N - 1; they may repeat.
            memory_limit: GiB of pixels beyond which the copy is on the disk (see `load_data`); by default it is where
                these images are.

        Raises:
            DataError: indices that are no integers (such as a mask of booleans), or out of range; a `memory_limit` that
                is not above 0; no room for the copy.

        >>> spec = DataSpec(channels=1, class_names=("a", "b"))
        >>> data = LabeledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), spec)
        >>> data.subset([2, 0]).targets
        [1, 0]
        """
        here = 0.0 if self.images.is_shared() else math.inf
        limit = here if memory_limit is None else check_memory_limit(memory_limit)
        index = torch.as_tensor(indices)
        if index.numel() == 0:
            index = torch.zeros(0, dtype=torch.int64)
        if index.ndim != 1 or index.dtype == torch.bool or index.is_floating_point():
            raise DataError(
                f"indices must be integers of shape (M,), got {index.dtype} {tuple(index.shape)}; "
                "turn a mask into indices with torch.nonzero(mask).flatten()"
            )
        low, high = (int(index.min()), int(index.max())) if len(index) else (0, -1)
        if low < 0 or high >= len(self):
            raise DataError(f"indices must be from 0 to {len(self) - 1}, got values from {low} to {high}")
        index = index.long().cpu()
        if self.images.is_cpu:
            images = allocate_pixels((len(index), *self.images.shape[1:]), memory_limit=limit)
            torch.index_select(self.images, 0, index, out=images)
            if memory_limit is not None:
                warn_of_disk(images, limit)
        else:
            images = self.images[index]
        origins = None if self.origins is None else self.origins[index]
        return LabeledImages(images, self.labels[index], self.spec, origins=origins, paired=self.paired)

    def split(self, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
        """Return the indices that are kept and those held out, as `stratified_split`; patches of an image together.

        Raises:
            DataError: a fraction that is not between 0 and 1.

        >>> spec = DataSpec(channels=1, class_names=("a",))
        >>> patches = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> data = LabeledImages(patches, torch.tensor([0, 0, 0, 0]), spec, origins=torch.tensor([5, 5, 7, 7]))
        >>> [rows.tolist() for rows in data.split(0.5, seed=0)]
        [[2, 3], [0, 1]]
        """
        if self.origins is None:
            return stratified_split(self.labels, fraction=fraction, seed=seed)
        _, place = self.origins.unique(return_inverse=True)
        labels = torch.zeros(int(place.max()) + 1, dtype=torch.int64).scatter_(0, place, self.labels)
        _, held_out = stratified_split(labels, fraction=fraction, seed=seed)
        chosen = torch.isin(place, held_out)
        return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, class names, labels and images as hexadecimal digits.

        >>> spec = DataSpec(channels=1, class_names=("a",))
        >>> data = LabeledImages(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), spec)
        >>> len(data.fingerprint())
        64
        """
        head = json.dumps([list(self.images.shape), self.classes]) + "\n"
        digest = hashlib.sha256(head.encode())
        for part in (self.labels, *self.images.split(CHUNK)):
            digest.update(part.cpu().contiguous().numpy().data)  # the buffer itself, not a copy
        return digest.hexdigest()
