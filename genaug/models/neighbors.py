"""Training on noisy images alone: Neighbor2Neighbor (Huang et al. 2021)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Ordered pairs of pixels of a 2x2 cell that share a side; the cell is numbered 0 1 / 2 3.
PAIRS = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2))


def neighbor_loss(restore: Callable[[Tensor], Tensor], noisy: Tensor, *, seeds: Tensor, consistency: float) -> Tensor:
    """Return the loss of `restore` on noisy images (N, C, H, W) whose noise is independent between pixels.

    With g1(y), g2(y) two images of half the size, of neighboring pixels of y: E |f(g1(y)) - g2(y)|^2 +
    gamma E |f(g1(y)) - g2(y) - (g1(f(y)) - g2(f(y)))|^2, the last difference without gradient (eqs. 6 and 8;
    `consistency` is gamma).

    Args:
        restore: f.
        noisy: images y; an odd last row or column is left out.
        seeds: int64 (N,), from which the pixels are chosen.
        consistency: weight of the second term.

    >>> images = torch.zeros(1, 1, 4, 4)
    >>> neighbor_loss(lambda y: y + 1, images, seeds=torch.tensor([0]), consistency=2.0)
    tensor(3.)
    """
    height, width = noisy.shape[-2:]
    pairs = choose_pairs(seeds, (height // 2, width // 2)).to(noisy.device)
    first, second = take_pixels(noisy, pairs)
    difference = restore(first) - second
    loss = difference.square().mean()
    if consistency:
        with torch.no_grad():
            restored = take_pixels(restore(noisy), pairs)
        loss = loss + consistency * (difference - (restored[0] - restored[1])).square().mean()
    return loss


def choose_pairs(seeds: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels to take of each cell, int64 (N, 2, h, w) from 0 to 3, by a seed (N,) for each image."""
    own = torch.Generator()
    chosen = torch.stack([torch.randint(len(PAIRS), size, generator=own.manual_seed(seed)) for seed in seeds.tolist()])
    return torch.tensor(PAIRS)[chosen].permute(0, 3, 1, 2)


def take_pixels(images: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return two images (N, C, h, w) of the chosen pixels of each 2x2 cell of `images` (N, C, H, W)."""
    height, width = pairs.shape[-2:]
    even = images[..., : 2 * height, : 2 * width]
    cells = F.pixel_unshuffle(even, 2).unflatten(1, (images.shape[1], 4))
    first, second = pairs[:, None, :, None].expand(-1, images.shape[1], -1, 1, -1, -1).unbind(2)
    return cells.gather(2, first)[:, :, 0], cells.gather(2, second)[:, :, 0]
