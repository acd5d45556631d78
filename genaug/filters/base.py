"""What all filters do: check the samples, and judge them in chunks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genaug.errors import DataError, shorten
from genaug.images import to_uint8
from genaug.models.running import split_batches
from genaug.spec import DataSpec

CHUNK = 256  # images that are judged together


class SampleFilter(ABC):
    """A filter for `SampleBank.generate(filters=[...])`: called with images and labels, it says which to keep.

    The verdict on an image depends on the image and its label alone, not on those beside it or before it (but for
    rounding in a network that is run on batches of other sizes), so filters can be chained in any order.

    Args:
        spec: format of the images, and the classes.

    >>> class Bright(SampleFilter):
    ...     def judge(self, images, labels):
    ...         return images.float().mean((1, 2, 3)) > 127
    >>> bright = Bright(DataSpec(1, 4, 4, ("a", "b")))
    >>> bright(torch.full((3, 1, 4, 4), 200, dtype=torch.uint8), torch.tensor([1, 1, 1]))
    tensor([True, True, True])
    """

    def __init__(self, spec: DataSpec) -> None:
        if not spec.num_classes:
            raise DataError("spec must have class names, got none; pass DataSpec(..., class_names=(...))")
        self.spec = spec
        self._known = torch.ones(spec.num_classes, dtype=torch.bool)  # classes that can be judged
        self._fitted_to = "data"  # the argument that has images of them

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images to keep, bool (n,) on the CPU.

        Args:
            images: public images (n, C, H, W).
            labels: the class that each was made as, int64 (n,).

        Raises:
            DataError: images or labels of another kind than `spec` says, or of classes that the filter cannot judge.
        """
        self.spec.check_images(images)
        if images.ndim != 4:
            raise DataError(f"images must have shape (n, C, H, W), got {tuple(images.shape)}; add a first dimension")
        self.spec.check_labels(labels, count=len(images))
        labels = labels.cpu()
        self.check_classes(labels)
        if not len(labels):
            return torch.zeros(0, dtype=torch.bool)
        chunks = split_batches(CHUNK, images, labels)
        return torch.cat([self.judge(to_uint8(part).cpu(), own) for part, own in chunks])

    @abstractmethod
    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which of at most 256 uint8 images (n, C, H, W) with labels (n,) to keep: bool (n,) on the CPU."""

    def check_classes(self, classes: Tensor) -> None:
        """Check that the filter can judge these classes, int64 (n,); a bank asks before it draws.

        Raises:
            DataError: classes that the filter was fitted without.
        """
        if not bool(self._known[classes].all()):
            names = [self.spec.class_names[index] for index in classes[~self._known[classes]].unique().tolist()]
            raise DataError(
                f"{self._fitted_to} must have images of every class that is judged, got none of {shorten(names)}"
            )


def class_quantiles(
    values: Tensor, labels: Tensor, *, num_classes: int, quantiles: Sequence[float], shrinkage: float
) -> Tensor:
    """Return quantiles of the values of each class, drawn towards those of all values where a class has few.

    A class with n values gets (n * its own quantile + shrinkage * that of all) / (n + shrinkage).

    Args:
        values: (N,), at least one.
        labels: class of each value, int64 (N,).
        num_classes: number of classes.
        quantiles: from 0 to 1.
        shrinkage: how many values of its own weigh as much as all values together; at least 0.

    Returns:
        Quantiles (len(quantiles), num_classes), float64.

    >>> values, labels = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 1])
    >>> class_quantiles(values, labels, num_classes=3, quantiles=[0.5], shrinkage=1.0)
    tensor([[2.3333, 5.5000, 3.0000]], dtype=torch.float64)
    """
    counts = labels.bincount(minlength=num_classes)
    pooled = np.quantile(values.double().numpy(), quantiles)
    bounds = torch.from_numpy(pooled)[:, None].repeat(1, num_classes)
    parts = values.double()[labels.argsort(stable=True)].split(counts.tolist())
    for index, part in enumerate(parts):
        if count := len(part):
            own = np.quantile(part.numpy(), quantiles)
            bounds[:, index] = torch.from_numpy((count * own + shrinkage * pooled) / (count + shrinkage))
    return bounds
