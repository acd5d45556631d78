"""Convolutional pieces that work on images of any height and width and keep no batch statistics."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_SIDE = 4
MAX_STAGES = 12


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes from `height` x `width` down, each half the last (rounded up), until no side is above 4.

    >>> pyramid(40, 24)
    [(40, 24), (20, 12), (10, 6), (5, 3), (3, 2)]
    """
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST_SIDE:
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))  # type: ignore[arg-type]
    return sizes


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm (Wu & He 2018) with groups of 8 channels where that divides, else with one group."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (N, C, H, W) -> (N, C, H, W): pre-activation, He et al. 2016."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # each block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual, of the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))  # type: ignore[no-any-return]


class Downsample(nn.Conv2d):
    """3x3 convolution with stride 2: (N, C, H, W) -> (N, C', ceil(H/2), ceil(W/2))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Nearest-neighbor resize to `size`, then a 3x3 convolution (Odena et al. 2016): no checkerboard, any size."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', H, W) with (H, W) the `size` given."""
        return super().forward(F.interpolate(x, size=self.size, mode="nearest"))


class ConvEncoder(nn.Sequential):
    """Images (N, C, H, W) in [-1, 1] -> features (N, F): a residual stage at each size of the pyramid."""

    def __init__(self, channels: int, size: tuple[int, int], *, width: int, blocks: int) -> None:
        sizes = pyramid(*size)
        widths = [stage_width(width, stage) for stage in range(len(sizes))]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        for stage in range(len(sizes) - 1):
            layers += [ResidualBlock(widths[stage]) for _ in range(blocks)]
            layers.append(Downsample(widths[stage], widths[stage + 1]))
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        layers += [group_norm(widths[-1]), nn.SiLU(), nn.Flatten()]
        super().__init__(*layers)
        self.features = widths[-1] * sizes[-1][0] * sizes[-1][1]


class ConvDecoder(nn.Sequential):
    """Codes (N, D) -> (N, C, H, W), unbounded: the encoder's stages in reverse."""

    def __init__(self, code_dim: int, channels: int, size: tuple[int, int], *, width: int, blocks: int) -> None:
        sizes = pyramid(*size)
        widths = [stage_width(width, stage) for stage in range(len(sizes))]
        layers: list[nn.Module] = [
            nn.Linear(code_dim, widths[-1] * sizes[-1][0] * sizes[-1][1]),
            nn.Unflatten(1, (widths[-1], *sizes[-1])),
        ]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for stage in reversed(range(len(sizes) - 1)):
            layers.append(Upsample(widths[stage + 1], widths[stage], sizes[stage]))
            layers += [ResidualBlock(widths[stage]) for _ in range(blocks)]
        layers += [group_norm(width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]
        super().__init__(*layers)


def stage_width(width: int, stage: int) -> int:
    """Return the channels of a stage: doubled at each halving of the size, up to four times `width`."""
    return width * min(1 << stage, 4)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return float32 (N, num_classes + 1): labels one-hot, with the null class in the last column."""
    return F.one_hot(labels, num_classes + 1).to(torch.float32)
