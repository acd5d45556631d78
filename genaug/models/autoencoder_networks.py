"""Encoders and decoders of the autoencoder: convolutional ones, and dense ones."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from genaug.models.layers import ConvDecoder, ConvEncoder

Shape = tuple[int, int, int]


def make_convolutional(shape: Shape, *, latent_dim: int, width: int, blocks: int) -> tuple[nn.Sequential, nn.Module]:
    """Return an encoder of images of `shape` (C, H, W) in [-1, 1] into codes (N, D), and a decoder into logits."""
    channels, size = shape[0], shape[1:]
    features = _Features(channels, size, width=width, blocks=blocks)
    encoder = nn.Sequential(features, nn.Linear(features.features, latent_dim))
    return encoder, ConvDecoder(latent_dim, channels, size, width=width, blocks=blocks)


class _Features(ConvEncoder):
    """The features (N, F) alone of a `ConvEncoder`."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images)[1]


def make_dense(shape: Shape, *, latent_dim: int, hidden: Sequence[int]) -> tuple[nn.Sequential, nn.Module]:
    """Return what `make_convolutional` does, with linear layers through `hidden` units, and back in reverse."""
    widths = (math.prod(shape), *hidden, latent_dim)
    encoder = nn.Sequential(nn.Flatten(), *_stack(widths))
    return encoder, nn.Sequential(*_stack(widths[::-1]), nn.Unflatten(1, shape))


def _stack(widths: Sequence[int]) -> list[nn.Module]:
    """Return linear layers from each width to the next, with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return layers[:-1]
