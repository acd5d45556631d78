"""Value ranges of images: the only place where they change.

Public images follow torchvision v2: the dtype implies the range, uint8 in [0, 255] or floating point in [0, 1].
Models work in [-1, 1]. Images of 16 bits, uint16 in [0, 65535], become floats where they come in.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genaug.errors import DataError, DataWarning

OVERSHOOT = 0.25  # how far resizing and sharpening lead floats out of [0, 1]; normalized ones go farther
LEVELS = {torch.uint8: 255, torch.uint16: 65535}  # the highest one, which is white
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_images(images: Tensor, *, name: str = "images", overshoot: bool = False) -> None:
    """Check that `images` is a tensor (C, H, W) or (N, C, H, W) of uint8, or of finite floats in [0, 1].

    With `overshoot` floats may leave that range by 0.25, as they do by rounding in rotations and blurs, and beside
    edges in bicubic resizing, which torchvision does not clamp.

    Raises:
        DataError: another type, number of dimensions or dtype; NaN, infinite or out-of-range values.

    >>> check_images(torch.zeros(2, 1, 8, 8))
    """
    if not isinstance(images, Tensor):
        raise DataError(f"{name} must be a tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.ndim not in (3, 4):
        raise DataError(f"{name} must have shape (N, C, H, W) or (C, H, W), got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return
    if images.dtype not in FLOATS:
        raise DataError(f"{name} must be uint8 in [0, 255] or float in [0, 1], got {images.dtype}")
    if images.numel() == 0:
        return
    low, high = (float(value) for value in images.detach().aminmax())
    slack = OVERSHOOT if overshoot else 0.0
    if not low >= -slack or not high <= 1.0 + slack:  # written so that NaN fails too
        raise DataError(
            f"{name} of dtype {images.dtype} must be finite and within [0, 1], got values from {low:g} to {high:g}; "
            "scale them to [0, 1] (and normalize later; clamp what a bicubic resize overshoots), or pass uint8"
        )


def check_noisy_range(images: Tensor) -> None:
    """Check that floats (N, C, H, W) can be images in [0, 1] with noise; those of other dtypes pass.

    Noise may lead each pixel far out of that range, but not the mean over 8x8 pixels, of which it must leave [0, 1] by
    at most 0.5 (four standard deviations of that mean, at a noise level of 1; more for images of fewer pixels).

    Raises:
        DataError: NaN or infinite values; images of another range, or normalized.

    >>> check_noisy_range(torch.rand(1, 1, 16, 16) * 255)
    Traceback (most recent call last):
    ...
    genaug.errors.DataError: images must be within [0, 1] but for noise, ...
    """
    if not images.is_floating_point() or images.numel() == 0:
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if low >= 0 and high <= 1:
        return
    if not math.isfinite(low) or not math.isfinite(high):  # NaN is both the least and the largest
        raise DataError("images must be finite, got NaN or infinite values; repair them first")
    sides = [min(8, side) for side in images.shape[-2:]]
    means = avg_pool2d(images.detach().float(), sides)
    slack = 4 / math.sqrt(math.prod(sides))
    low, high = (float(value) for value in means.aminmax())
    if low < -slack or high > 1 + slack:
        raise DataError(
            f"images must be within [0, 1] but for noise, got means over {sides[0]}x{sides[1]} pixels from {low:g} to "
            f"{high:g}; scale them to [0, 1] (and normalize later), or pass uint8"
        )


def warn_of_scale(made: Tensor, real: Tensor, *, stacklevel: int = 3) -> None:
    """Warn where floats reach 16 times as far from 0 as others do: either of them was not scaled to [0, 1] first.

    >>> warn_of_scale(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 2.0))
    """
    if not made.is_floating_point() or not made.numel() or not real.numel():
        return
    far, known = float(made.abs().max()), float(real.abs().max())
    if max(far, known) > 16 * min(far, known) > 0:
        warnings.warn(
            f"transform makes values of up to {far:g} of synthetic images, and real ones have up to {known:g}: a "
            "classifier could tell them apart by that; give it what real images go through, such as "
            "ToDtype(torch.float32, scale=True) and Normalize",
            DataWarning,
            stacklevel=stacklevel + 1,
        )


def same_pixels(one: Any, other: Any) -> bool:
    """Tell whether two images (PIL, tensor or array) are the same.

    >>> same_pixels(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
    True
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))


def explain_mode(mode: str) -> str:
    """Return what to do about a PIL image of a mode that is not taken.

    >>> explain_mode("P")
    "convert it first, as in image.convert('RGB')"
    """
    if mode.startswith(("I", "F")):  # which PIL cuts off at 255
        return "scale it to 8 bits, or to floats in [0, 1] as a tensor, first"
    return "convert it first, as in image.convert('RGB')"


def to_float(images: Tensor) -> Tensor:
    """Return images as float in [0, 1]: uint8 and uint16 become float32, floats are returned as they are.

    >>> to_float(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    tensor([[[0., 1.]]])
    """
    return images.float().div_(LEVELS[images.dtype]) if images.dtype in LEVELS else images


def to_uint8(images: Tensor) -> Tensor:
    """Return images as uint8 in [0, 255]: floats in [0, 1] are rounded to the nearest level, uint8 is returned as is.

    >>> to_uint8(torch.tensor([[[0.0, 0.5, 1.0]]]))
    tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    if images.dtype == torch.uint8:
        return images
    return images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def to_model(images: Tensor) -> Tensor:
    """Return public images (uint8 in [0, 255] or float in [0, 1]) as float32 in [-1, 1].

    >>> to_model(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    tensor([[[-1.,  1.]]])
    """
    if images.dtype == torch.uint8:
        return images.float().div_(127.5).sub_(1)
    return images.float() * 2 - 1


def from_model(outputs: Tensor) -> Tensor:
    """Return a model's outputs in [-1, 1] (any float dtype) as float32 in [0, 1], clamped.

    >>> from_model(torch.tensor([[[-1.0, 0.0, 1.2]]]))
    tensor([[[0.0000, 0.5000, 1.0000]]])
    """
    return outputs.float().add(1).div_(2).clamp_(0, 1)


def cast_like(images: Tensor, like: Tensor) -> Tensor:
    """Return public images in the dtype (and so the range) and on the device of `like`.

    >>> cast_like(torch.ones(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8))
    tensor([[[255]]], dtype=torch.uint8)
    """
    if like.dtype == torch.uint16:
        converted = to_float(images).float().mul(LEVELS[like.dtype]).round_().clamp_(0, LEVELS[like.dtype])
    else:
        converted = to_uint8(images) if like.dtype == torch.uint8 else to_float(images)
    return converted.to(like.dtype).to(like.device)
