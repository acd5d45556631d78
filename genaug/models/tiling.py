"""Large images through a network piece by piece, without seams."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten


def run_in_tiles(
    run: Callable[[Tensor], Tensor], images: Tensor, *, tile: int, margin: int, stride: int, device: torch.device
) -> Tensor:
    """Return what `run` makes of images (N, C, H, W), computed in tiles: float32, on the images' device.

    Each tile is run with `margin` more pixels on every side, as far as the image has them, and only its own are kept.
    Where no pixel farther off than `margin` counts, that is what the whole image would give, but for rounding, since
    tiles begin at multiples of the network's `stride`. Memory beyond input and result is that of one tile with margins.

    Args:
        run: images (N, C, h, w) -> (N, C, h, w).
        images: of any size.
        tile: longest side of a tile; rounded up to a multiple of `stride`.
        margin: how far the network sees.
        stride: of the network.
        device: where `run` computes.

    Raises:
        GenaugError: a `tile` that is no integer of at least 1.

    >>> images = torch.rand(1, 1, 20, 30)
    >>> twice = run_in_tiles(lambda x: 2 * x, images, tile=8, margin=2, stride=2, device=torch.device("cpu"))
    >>> torch.equal(twice, 2 * images)
    True
    """
    if type(tile) is not int or tile < 1:
        raise GenaugError(
            f"tile must be an integer of at least 1, the longest side of a tile in pixels, got {shorten(tile)}"
        )
    step, margin = -(-tile // stride) * stride, -(-margin // stride) * stride
    height, width = images.shape[-2:]
    if height <= step and width <= step:
        return run(images.to(device)).to(images.device)
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for rows, wide_rows in _cut(height, step, margin):
        for columns, wide_columns in _cut(width, step, margin):
            part = run(images[..., wide_rows, wide_columns].to(device))
            top, left = rows.start - wide_rows.start, columns.start - wide_columns.start
            own = part[..., top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
            result[..., rows, columns] = own.to(images.device)
    return result


def _cut(length: int, step: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Return the parts of a side, alone and with their margins."""
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), slice(max(0, start - margin), min(length, stop + margin))
