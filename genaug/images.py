"""Value ranges of images: the only place where they change.

Public images follow torchvision v2: the dtype implies the range, uint8 in [0, 255] or floating point in [0, 1].
Models work in [-1, 1]. Images of 16 bits, uint16 in [0, 65535], become floats where they come in.
"""

import torch
from torch import Tensor

from genaug.errors import DataError

LEVELS = {torch.uint8: 255, torch.uint16: 65535}  # the highest one, which is white
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_images(images: Tensor, *, name: str = "images", rounded: bool = False) -> None:
    """Check that `images` is a tensor (C, H, W) or (N, C, H, W) of uint8, or of finite floats in [0, 1].

    With `rounded` floats may leave that range by rounding, as they do in rotations and blurs: by half an 8-bit level,
    or four steps of the dtype next to 1, whichever is more.

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
    slack = max(1 / 512, 4 * torch.finfo(images.dtype).eps) if rounded else 0.0
    if not low >= -slack or not high <= 1.0 + slack:  # written so that NaN fails too
        raise DataError(
            f"{name} of dtype {images.dtype} must be finite and within [0, 1], got values from {low:g} to {high:g}; "
            "scale them to [0, 1] (and normalize later), or pass uint8"
        )


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
