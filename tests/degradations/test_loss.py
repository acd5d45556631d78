"""JPEG against OpenCV, lower resolution against PIL's resampling."""

from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from genaug.degradations import Downsample, Jpeg, degrade
from genaug.degradations.base import Draws
from genaug.errors import DataError


def make_levels(*shape: int) -> torch.Tensor:
    """Smooth images with some noise, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(*shape[:2], 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    return (255 * smooth + 20 * torch.rand(shape, generator=generator)).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def cv2() -> Any:
    return pytest.importorskip("cv2")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 40), (17, 9), (1, 5), (1, 1)])
@pytest.mark.parametrize("quality", [5, 50, 100, (10, 90)])
def test_jpeg(cv2: Any, channels: int, size: tuple[int, int], quality: int | tuple[int, int]) -> None:
    levels, seeds = make_levels(3, channels, *size), torch.arange(3)
    result = degrade(levels, [Jpeg(quality)], seeds=seeds) * 255
    qualities = Draws(seeds).whole_number(quality).flatten().int().tolist()
    for image, own, coded in zip(levels, qualities, result, strict=True):
        file = cv2.imencode(".jpg", image.permute(1, 2, 0).numpy()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, own])[1]
        expected = cv2.imdecode(file, cv2.IMREAD_UNCHANGED).reshape(*size, channels)[..., ::-1]  # BGR there
        assert np.abs(coded.permute(1, 2, 0).numpy() - expected).max() < 1.01  # codecs may round differently


def test_worse_quality_loses_more() -> None:
    levels, seeds = make_levels(4, 3, 48, 48), torch.arange(4)
    errors = [
        float((degrade(levels, [Jpeg(quality)], seeds=seeds) - levels / 255).square().mean()) for quality in (5, 30, 95)
    ]
    assert errors == sorted(errors, reverse=True)


def test_jpeg_clips_and_rounds_first() -> None:
    images, seeds = torch.tensor([-1 / 600, 1 + 1 / 600, 0.5]).view(3, 1, 1, 1).expand(3, 1, 8, 8), torch.arange(3)
    result = degrade(images, [Jpeg(100)], seeds=seeds)
    torch.testing.assert_close(result[:, 0, 0, 0], torch.tensor([0, 1, 128 / 255]))


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 4, 8, 8), (1, 1, 1, 65501)])
def test_jpeg_cannot_hold_every_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"^images must be gray or RGB .* 65500 pixels, for jpeg, got shape \(1, "):
        degrade(torch.zeros(shape), [Jpeg(90)], seeds=torch.tensor([0]))


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (3, 40), (1, 9), (1, 1)])
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_downsample(size: tuple[int, int], factor: int) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    result = degrade(images, [Downsample(factor)], seeds=torch.tensor([0, 1]))
    small = tuple(-(-side // factor) for side in reversed(size))
    for channel, other in zip(images.flatten(0, 1).numpy(), result.flatten(0, 1).numpy(), strict=True):
        image = PIL.Image.fromarray(channel).resize(small, PIL.Image.Resampling.BICUBIC)
        expected = np.array(image.resize(tuple(reversed(size)), PIL.Image.Resampling.BICUBIC))
        assert np.allclose(other, expected, atol=1e-5)  # sums of float32 with weights of both signs
