"""What every extractor of features has, and the images that Inception networks take."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from genaug.errors import DataError
from genaug.images import check_images, to_uint8


@runtime_checkable
class FeatureExtractor(Protocol):
    """Turns images into features.

    >>> from types import SimpleNamespace
    >>> mean = SimpleNamespace(name="mean", num_features=1, settings={}, extract=lambda images: images.mean((1, 2, 3)))
    >>> isinstance(mean, FeatureExtractor)
    True
    """

    @property
    def name(self) -> str:
        """What to call the features."""

    @property
    def num_features(self) -> int:
        """Width F of the features."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else figures depend on, as plain values that JSON can hold."""

    def extract(self, images: Tensor) -> Tensor:
        """Return the features (N, F) of public images (N, C, H, W), float32 on the CPU."""


def describe_features(features: FeatureExtractor) -> dict[str, Any]:
    """Return what figures in these features depend on, as plain values."""
    return {"name": features.name, "num_features": features.num_features, **features.settings}


def to_color_uint8(images: Tensor) -> Tensor:
    """Return public images (N, C, H, W) as uint8 (N, 3, H, W), which published networks take; gray is repeated.

    Raises:
        DataError: what is no batch of images with 1 or 3 channels.

    >>> import torch
    >>> to_color_uint8(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    check_images(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"images must be (N, 1, H, W) or (N, 3, H, W) for a network of color images, got {tuple(images.shape)}; "
            "take features='classifier', or convert them with --grayscale"
        )
    return to_uint8(images).expand(-1, 3, -1, -1)
