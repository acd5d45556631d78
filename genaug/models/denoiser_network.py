"""The network of the `denoiser` family: a residual U-Net without biases, for images of any size."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.models.layers import lay_out_channels_last


class PlainBlock(nn.Module):
    """x + conv(relu(conv(x))) without biases, (N, C, H, W) -> (N, C, H, W); the last convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual."""
        return x + self.conv2(F.relu(self.conv1(x)))  # type: ignore[no-any-return]


class NoiseNet(nn.Module):
    """Images (N, C, H, W) and noise levels (N,) -> the noise in the images (N, C, H, W).

    A U-Net with residual blocks (as DRUNet: Zhang et al. 2022) on pixels that were unshuffled by two, which makes it
    four times as cheap (FFDNet: Zhang et al. 2018). Without any bias, so that f(a x, a s) = a f(x, s) for a > 0: what
    it learned of one level of noise holds for levels that it never saw (Mohan et al. 2020, section 4).

    The noise level, in the units of the images, is one more channel; 0 stands for "unknown". Sides of any length are
    padded by their edge to a multiple of `stride`.

    Args:
        channels: of the images.
        width: channels at half the size; doubled at each of the further halvings.
        levels: sizes that the network works at, the first of them half the size of the images.
        blocks: residual blocks on the way down, on the way up, and at the smallest size.
    """

    def __init__(self, channels: int, *, width: int, levels: int, blocks: int) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.stride = 2**levels
        self.reach = _count_reach(levels, blocks)
        self.enter = nn.Conv2d(4 * channels + 1, width, 3, padding=1, bias=False)
        self.downs = nn.ModuleList(_make_stage(blocks, here) for here in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.middle = _make_stage(blocks, widths[-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(_make_stage(blocks, here) for here in widths[:-1])
        self.leave = nn.Conv2d(width, 4 * channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.leave.weight)  # no noise at first: images stay as they are
        lay_out_channels_last(self)

    def forward(self, images: Tensor, noise_levels: Tensor) -> Tensor:
        """Return the noise, float32."""
        height, width = images.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        pixels = F.pixel_unshuffle(F.pad(images, padding, mode="replicate"), 2)
        level = noise_levels.to(pixels.dtype).reshape(-1, 1, 1, 1).expand(-1, 1, *pixels.shape[-2:])
        h = self.enter(torch.cat([pixels, level], 1))
        skips = []
        for down, shrink in zip(self.downs, self.shrink, strict=True):
            h = down(h)
            skips.append(h)
            h = shrink(h)
        h = self.middle(h)
        for grow, up in zip(reversed(self.grow), reversed(self.ups), strict=True):
            h = up(grow(h) + skips.pop())
        return F.pixel_shuffle(self.leave(h), 2)[..., :height, :width].float()


def _make_stage(blocks: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(PlainBlock(channels) for _ in range(blocks)))


def _count_reach(levels: int, blocks: int) -> int:
    """Return how many pixels away, at most, a pixel of the input changes one of the output.

    A 3x3 convolution reaches one position to each side, of 2, 4, 8, ... pixels; each change of size less than one
    position of the larger one.
    """
    reach = 2 + 2  # the first and last convolution, at half the size
    for level in range(levels):
        side = 2 << level
        passes = 1 if level == levels - 1 else 2
        reach += passes * 2 * blocks * side + side
    return reach
