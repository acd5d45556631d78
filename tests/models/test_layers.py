"""Layers against plain operations of torch, at odd and even sizes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genaug.models.layers import (
    ConvDecoder,
    ConvEncoder,
    Downsample,
    ResidualBlock,
    Upsample,
    map_stage,
    pyramid,
    stage_widths,
)

SIZES = [(8, 8), (28, 28), (40, 24), (32, 32), (64, 64), (5, 17), (1, 3), (1, 1), (4, 4), (2, 7), (129, 1)]
CORNERS = list(itertools.product((1, 2, 3, 4), (1, 2, 5), (0, 1), (0, 1)))

pytestmark = pytest.mark.global_rng  # new layers draw their weights from torch's global generator


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.default_generator.manual_seed(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomize(module: nn.Module) -> None:
    """Give every parameter values of which no two are alike."""
    generator = seeded(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("size", SIZES)
def test_pyramid_halves_rounding_up(size):
    sizes = pyramid(*size)
    assert sizes[0] == size
    assert max(sizes[-1]) <= 4
    for (h, w), (half_h, half_w) in itertools.pairwise(sizes):
        assert (half_h, half_w) == (math.ceil(h / 2), math.ceil(w / 2))


# --- resizing


@pytest.mark.parametrize(("h", "w", "odd_h", "odd_w"), CORNERS)
def test_at_the_start_upsampling_is_a_plain_convolution_resized_to_the_nearest(h, w, odd_h, odd_w):
    size = (2 * h - odd_h, 2 * w - odd_w)
    layer = Upsample(3, 5, size)
    assert layer.weight.shape == (20, 3, 3, 3)
    plain = nn.Conv2d(3, 5, 3, padding=1)
    with torch.no_grad():
        plain.weight.copy_(layer.weight[:5])
        plain.bias.copy_(layer.bias[:5])
    assert len({tuple(kernel.flatten().tolist()) for kernel in plain.weight}) == 5  # one for each output channel
    x = torch.randn(2, 3, h, w, generator=seeded())
    torch.testing.assert_close(layer(x), F.interpolate(plain(x), size=size, mode="nearest"))


@pytest.mark.parametrize(("h", "w", "odd_h", "odd_w"), CORNERS)
def test_upsampling_lays_each_channel_out_in_squares_of_two_by_two(h, w, odd_h, odd_w):
    layer = Upsample(3, 2, (2 * h - odd_h, 2 * w - odd_w))
    randomize(layer)
    x = torch.randn(2, 3, h, w, generator=seeded())
    maps = F.conv2d(x, layer.weight, layer.bias, padding=1)
    expected = torch.zeros(2, 2, 2 * h, 2 * w)
    for channel, i, j, down, right in itertools.product(range(2), range(h), range(w), range(2), range(2)):
        expected[:, channel, 2 * i + down, 2 * j + right] = maps[:, 2 * (2 * down + right) + channel, i, j]
    torch.testing.assert_close(layer(x), expected[:, :, : 2 * h - odd_h, : 2 * w - odd_w])


@pytest.mark.parametrize("size", SIZES)
def test_upsampling_gives_the_size_that_downsampling_took(size):
    small = Downsample(3, 4)(torch.zeros(1, 3, *size))
    assert small.shape == (1, 4, math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    assert Upsample(4, 3, size)(small).shape == (1, 3, *size)


# --- stages


def test_a_block_starts_with_nothing_of_its_input_in_the_residual():
    block = ResidualBlock(8)
    x = torch.randn(2, 8, 5, 7, generator=seeded())
    torch.testing.assert_close(block(x), x + block.conv2.bias[:, None, None])
    randomize(block)
    hidden = F.conv2d(F.silu(x), block.conv1.weight, block.conv1.bias, padding=1)
    expected = x + F.conv2d(F.silu(hidden), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_map_is_the_first_stage_below_the_full_size_of_at_most_64_positions(size):
    sizes = pyramid(*size)
    fitting = [stage for stage in range(1, len(sizes)) if sizes[stage][0] * sizes[stage][1] <= 64]
    assert map_stage(sizes) == (fitting[0] if fitting else 0)
    assert fitting or len(sizes) == 1  # only what is of one stage has its map at full size


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("size", SIZES)
def test_encoder_and_decoder_meet_in_a_map(size, blocks):
    encoder = ConvEncoder(2, size, width=4, blocks=blocks)
    decoder = ConvDecoder(6, 2, size, width=4, blocks=blocks)
    images = torch.rand(3, 2, *size, generator=seeded())
    maps, features = encoder(images)
    position = pyramid(*size)[map_stage(pyramid(*size))]
    assert maps.shape == (3, stage_widths(size, 4)[map_stage(pyramid(*size))], *position)
    assert features.shape == (3, encoder.features)
    torch.testing.assert_close(encoder.to_map(images), maps)
    torch.testing.assert_close(encoder.to_features(maps), features)
    codes = torch.randn(3, 6, generator=seeded())
    half = decoder.to_map(codes)
    assert half.shape == maps.shape == (3, *decoder.map_shape)
    assert decoder(codes).shape == images.shape
    torch.testing.assert_close(decoder.to_images(half), decoder(codes))
    # blocks at every size but the full one, in both alike
    found = [sum(isinstance(module, ResidualBlock) for module in part.modules()) for part in (encoder, decoder)]
    assert found == [blocks * (len(pyramid(*size)) - 1)] * 2
    widths = [module.conv1.in_channels for module in encoder.modules() if isinstance(module, ResidualBlock)]
    assert min(widths, default=8) > 4  # the full size is the only one of this width


def test_no_images_are_enlarged_too():
    assert Upsample(3, 5, (7, 8))(torch.zeros(0, 3, 4, 4)).shape == (0, 5, 7, 8)
