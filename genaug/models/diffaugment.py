"""Differentiable augmentation of what a discriminator sees, real and generated (DiffAugment, Zhao et al. 2020).

The draws are made apart from the images, so that they depend on the seed and step alone.
"""

import torch
from torch import Tensor

POLICIES = ("color", "translation", "cutout")
DRAWS = 7  # uniform numbers for each image: brightness, saturation, contrast, 2 of translation, 2 of cutout
SHIFT, HOLE = 1 / 8, 1 / 2  # of a side


def augment(images: Tensor, draws: Tensor, *, policies: tuple[str, ...]) -> Tensor:
    """Return images (N, C, H, W) in [-1, 1], each changed by its own of `draws` (N, 7), uniform in [0, 1).

    - color: brightness + U(-0.5, 0.5); saturation times U(0, 2) around the mean of the channels; contrast times
      U(0.5, 1.5) around the mean of the image;
    - translation by up to an eighth of each side, filled with 0;
    - cutout of a square of half of each side, centered anywhere, filled with 0.

    >>> images = torch.zeros(2, 1, 8, 8)
    >>> augment(images, torch.full((2, 7), 0.5), policies=("color",)).abs().max()
    tensor(0.)
    """
    if "color" in policies:
        images = _change_colors(images, draws[:, 0:3])
    if "translation" in policies:
        images = _shift(images, draws[:, 3:5])
    if "cutout" in policies:
        images = _cut_out(images, draws[:, 5:7])
    return images


def _change_colors(images: Tensor, draws: Tensor) -> Tensor:
    brightness, saturation, contrast = (value.reshape(-1, 1, 1, 1) for value in draws.to(images.dtype).unbind(1))
    images = images + (brightness - 0.5)
    gray = images.mean(1, keepdim=True)
    images = (images - gray) * (2 * saturation) + gray
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def _shift(images: Tensor, draws: Tensor) -> Tensor:
    """Move each image by whole pixels; what comes in from outside is 0."""
    height, width = images.shape[-2:]
    rows, inside_rows = _sources(draws[:, 0], height)
    columns, inside_columns = _sources(draws[:, 1], width)
    picked = images.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, width))
    picked = picked.gather(3, columns[:, None, None, :].expand(-1, images.shape[1], height, -1))
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return picked * inside.to(images.dtype)


def _sources(draws: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return where each place of a side comes from (N, side), and whether that is inside."""
    largest = int(side * SHIFT + 0.5)
    shifts = (draws * (2 * largest + 1)).long() - largest
    places = torch.arange(side, device=draws.device)[None] - shifts[:, None]
    return places.clamp(0, side - 1), (places >= 0) & (places < side)


def _cut_out(images: Tensor, draws: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    holes = []
    for side, draw in ((height, draws[:, 0]), (width, draws[:, 1])):
        size = int(side * HOLE + 0.5) if side > 1 else 0  # the only pixel stays
        start = (draw * (side + 1 - size % 2)).long() - size // 2  # with as much outside at both ends
        places = torch.arange(side, device=draws.device)[None]
        holes.append((places >= start[:, None]) & (places < start[:, None] + size))
    hole = holes[0][:, None, :, None] & holes[1][:, None, None, :]
    return images * (~hole).to(images.dtype)
