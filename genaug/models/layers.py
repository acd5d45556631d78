"""Convolutional pieces that work on images of any height and width and keep no batch statistics."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_SIDE = 4


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes from `height` x `width` down, each half the last (rounded up), until no side is above 4.

    >>> pyramid(40, 24)
    [(40, 24), (20, 12), (10, 6), (5, 3), (3, 2)]
    """
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST_SIDE:
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))  # type: ignore[arg-type]
    return sizes


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), (N, C, H, W) -> (N, C, H, W): pre-activation (He et al. 2016), no normalization.

    The last convolution's weights start at zero, so that a deep stack starts as the identity but for constants, and
    needs no normalization to train (Zhang et al. 2019); on a CPU that saves about a quarter of a step.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual, of the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))  # type: ignore[no-any-return]


class Downsample(nn.Conv2d):
    """3x3 convolution with stride 2: (N, C, H, W) -> (N, C', ceil(H/2), ceil(W/2))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """3x3 convolution, then pixel shuffle (Shi et al. 2016): (N, C, h, w) -> (N, C', H, W).

    (H, W) is the `size` given: twice (h, w), or one less where a side is odd. Of the 4 C' channels the first C' make
    the upper left pixels, the next the upper right, lower left and lower right ones: with the channels last that moves
    whole rows of memory, several times as fast as `F.pixel_shuffle`, which has the four side by side. The four kernels
    of each channel start equal, which is nearest-neighbor resizing: no checkerboard at the start (ICNR, Aitken et al.
    2017).
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, 4 * outputs, 3, padding=1)
        self.size = size
        with torch.no_grad():
            self.weight.copy_(self.weight[::4].repeat(4, 1, 1, 1))
            self.bias.copy_(self.bias[::4].repeat(4))  # type: ignore[union-attr, index]

    def forward(self, x: Tensor) -> Tensor:
        """Return the image of twice the size, cut to `size`."""
        count, _, height, width = x.shape
        channels = self.out_channels // 4
        pixels = super().forward(x).permute(0, 2, 3, 1).reshape(count, height, width, 2, 2, channels)
        image = pixels.transpose(2, 3).reshape(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        return image[..., : self.size[0], : self.size[1]]


class ConvEncoder(nn.Module):
    """Images (N, C, H, W) in [-1, 1] -> a map (N, M, h, w) halfway and features (N, F).

    A residual stage at each size of the pyramid but the full one, where blocks would cost the most and were not worth
    it. The map is the first stage below full size of at most 64 positions.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, width: int, blocks: int) -> None:
        super().__init__()
        sizes, widths = pyramid(*size), stage_widths(size, width)
        stages = [nn.Sequential(nn.Conv2d(channels, width, 3, padding=1))]
        for inputs, outputs in pairwise(widths):
            stages.append(nn.Sequential(Downsample(inputs, outputs), *residual_blocks(blocks, outputs)))
        split = map_stage(sizes) + 1
        self.to_map = nn.Sequential(*stages[:split])
        self.to_features = nn.Sequential(*stages[split:], nn.SiLU(), nn.Flatten())
        self.features = widths[-1] * math.prod(sizes[-1])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the features."""
        maps = self.to_map(images)
        return maps, self.to_features(maps)


class ConvDecoder(nn.Module):
    """Codes (N, D) -> a map (N, M, h, w) -> (N, C, H, W), unbounded: the encoder's stages in reverse."""

    def __init__(self, code_dim: int, channels: int, size: tuple[int, int], *, width: int, blocks: int) -> None:
        super().__init__()
        sizes, widths = pyramid(*size), stage_widths(size, width)
        last = (widths[-1], *sizes[-1])
        stages = [nn.Sequential(nn.Linear(code_dim, math.prod(last)), nn.Unflatten(1, last))]
        for stage in reversed(range(len(sizes))):
            blocks_here = residual_blocks(blocks if stage > 0 else 0, widths[stage])
            up = [Upsample(widths[stage + 1], widths[stage], sizes[stage])] if stage + 1 < len(sizes) else []
            stages.append(nn.Sequential(*up, *blocks_here))
        split = 1 + len(sizes) - map_stage(sizes)
        self.to_map = nn.Sequential(*stages[:split])
        self.to_images = nn.Sequential(*stages[split:], nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))
        self.map_shape = (widths[map_stage(sizes)], *sizes[map_stage(sizes)])

    def forward(self, codes: Tensor) -> Tensor:
        """Return the images of codes (N, D), with nothing added at the map."""
        return self.to_images(self.to_map(codes))  # type: ignore[no-any-return]


def map_stage(sizes: list[tuple[int, int]]) -> int:
    """Return the first stage below the full size that has at most 64 positions.

    >>> map_stage(pyramid(28, 28))  # 7 x 7
    2
    """
    return next((stage for stage in range(1, len(sizes)) if math.prod(sizes[stage]) <= 64), len(sizes) - 1)


def residual_blocks(count: int, channels: int) -> list[nn.Module]:
    """Return `count` new residual blocks."""
    return [ResidualBlock(channels) for _ in range(count)]


def stage_widths(size: tuple[int, int], width: int) -> list[int]:
    """Return the channels of each stage: doubled at each halving of the size, up to four times `width`."""
    return [width * min(1 << stage, 4) for stage in range(len(pyramid(*size)))]


def lay_out_channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions with the channels last, which CPUs and GPUs compute faster with."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return float32 (N, num_classes + 1): labels one-hot, with the null class in the last column."""
    return F.one_hot(labels, num_classes + 1).to(torch.float32)
