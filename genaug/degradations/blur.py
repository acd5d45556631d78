"""Blur: each pixel becomes a mean of those around it. Beyond its borders an image goes on as in a mirror.

The means are summed tap by tap: the rounding of a library's convolutions depends on the batch, and on GPUs on settings.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genaug.degradations.base import Degradation, Draws, Limits, Number, WholeNumber, say

TRUNCATE = 4.0  # standard deviations at which a Gaussian ends, as in scipy.ndimage


@dataclass(frozen=True)
class GaussianBlur(Degradation):
    """Blur with a Gaussian, cut off at four standard deviations.

    Args:
        sigma: standard deviation in pixels, from 0 (nothing) to 100, or a range that each image draws its own
            from.

    Raises:
        GenaugError: a field out of its range.

    >>> GaussianBlur(sigma=1.5).words()
    'gaussian blur 1.5'
    """

    sigma: Number
    kind: Literal["gaussian-blur"] = "gaussian-blur"

    limits: ClassVar[dict[str, Limits]] = {"sigma": Limits(0.0, 100.0)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        profile = _gaussian(draws.number(self.sigma).flatten())
        return _average(_average(images, profile[:, :, None]), profile[:, None, :])

    def words(self) -> str:
        return f"gaussian blur {say(self.sigma)}"


@dataclass(frozen=True)
class MotionBlur(Degradation):
    """Blur along a line of an angle that each image draws for itself, as a moving camera does.

    Args:
        length: of the line in pixels, a whole number from 1 (nothing) to 101, or a range that each image draws its own
            from.

    Raises:
        GenaugError: a field out of its range.

    >>> MotionBlur(length=(3, 9)).words()
    'motion blur 3 to 9'
    """

    length: WholeNumber
    kind: Literal["motion-blur"] = "motion-blur"

    limits: ClassVar[dict[str, Limits]] = {"length": Limits(1, 101, whole=True)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        lengths = draws.whole_number(self.length).flatten()
        angles = draws.number((0.0, math.pi)).flatten()
        return _average(images, _line(lengths, angles))

    def words(self) -> str:
        return f"motion blur {say(self.length)}"


def _gaussian(sigmas: Tensor) -> Tensor:
    """Return weights (N, K), float32, of Gaussians with these standard deviations (N,)."""
    sigmas = sigmas.double()[:, None]
    radii = (TRUNCATE * sigmas + 0.5).floor()
    offsets = torch.arange(-int(radii.max()), int(radii.max()) + 1, dtype=torch.float64, device="cpu")
    weights = (-0.5 * (offsets / sigmas.clamp(min=1e-3)) ** 2).exp() * (offsets.abs() <= radii)
    return _normalize(weights)


def _line(lengths: Tensor, angles: Tensor) -> Tensor:
    """Return weights (N, K, K), float32, of lines with these lengths and angles (N,).

    A pixel's weight falls from 1 on the line, between the centers of its two last pixels, to 0 at a distance of one.
    """
    half, angles = (lengths.double()[:, None, None] - 1) / 2, angles.double()[:, None, None]
    radius = int(half.max().ceil())
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    y, x = offsets[:, None], offsets[None, :]
    along, across = x * angles.cos() - y * angles.sin(), x * angles.sin() + y * angles.cos()
    weights = (1 - torch.hypot((along.abs() - half).clamp(min=0), across)).clamp(min=0)
    return _normalize(weights)


def _normalize(weights: Tensor) -> Tensor:
    """Return weights (N, ...) with a sum of 1 for each image, float32.

    A running sum has one order, so the zeros around an image's weights, whose number depends on the batch, change no
    bit of it.
    """
    total = weights.flatten(1).cumsum(1)[:, -1]
    return (weights / total.view(-1, *[1] * (weights.ndim - 1))).float()


def _average(images: Tensor, weights: Tensor) -> Tensor:
    """Return means (N, C, H, W) around each pixel with an image's own weights (N, K, L), K and L odd."""
    height, width = images.shape[-2:]
    rows, columns = (_mirror(side, size // 2) for side, size in zip((height, width), weights.shape[1:], strict=True))
    padded = images[..., rows.to(images.device), :][..., columns.to(images.device)]
    total, part = torch.zeros_like(images), torch.empty_like(images)
    used = weights.any(0).nonzero().tolist()
    weights = weights.to(images.device)
    for y, x in used:
        shifted = padded[..., y : y + height, x : x + width]
        total += torch.mul(shifted, weights[:, y, x, None, None, None], out=part)
    return total


def _mirror(side: int, radius: int) -> Tensor:
    """Return the places that pixels from -radius to side + radius have in an image mirrored at its borders."""
    places = torch.arange(-radius, side + radius, device="cpu") % (2 * side)
    return torch.minimum(places, 2 * side - 1 - places)
