"""Blur against scipy.ndimage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from genaug.degradations import GaussianBlur, MotionBlur, degrade
from genaug.degradations.base import Draws


def make_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.floats(0, 6))
def test_gaussian(channels: int, height: int, width: int, sigma: float) -> None:
    images = make_images(2, channels, height, width)
    result = degrade(images, [GaussianBlur(sigma)], seeds=torch.tensor([0, 1]))
    sigma = float(np.float32(sigma))  # on which depends where the Gaussian ends
    expected = ndimage.gaussian_filter(images.double().numpy(), sigma, axes=(2, 3))
    assert np.allclose(result.numpy(), expected, atol=1e-6)  # sums of float32


def test_each_image_has_its_own_sigma() -> None:
    images, seeds = make_images(6, 1, 20, 30), torch.arange(6)
    result = degrade(images, [GaussianBlur((0, 4))], seeds=seeds)
    for image, sigma, blurred in zip(images, Draws(seeds).number((0.0, 4.0)).flatten().tolist(), result, strict=True):
        expected = ndimage.gaussian_filter(image[0].double().numpy(), sigma)
        assert np.allclose(blurred[0].numpy(), expected, atol=1e-6)


def make_line(length: int, angle: float) -> np.ndarray:
    """Weights of a line: one minus the distance of each pixel to the nearest point of a segment, if positive."""
    end, radius = (length - 1) / 2 * np.array([-math.sin(angle), math.cos(angle)]), length // 2 + 1
    weights = np.zeros((2 * radius + 1, 2 * radius + 1))
    for y, x in np.ndindex(weights.shape):
        point = np.array([y - radius, x - radius])
        share = np.clip((point + end) @ (2 * end) / max(4 * end @ end, 1e-9), 0, 1)
        weights[y, x] = max(0, 1 - np.linalg.norm(point - (2 * share - 1) * end))
    return weights / weights.sum()


@pytest.mark.parametrize("size", [(24, 20), (1, 7), (5, 1), (1, 1)])
@pytest.mark.parametrize("length", [1, 2, 5, (3, 11)])
def test_motion(size: tuple[int, int], length: int | tuple[int, int]) -> None:
    images, seeds = make_images(5, 2, *size), torch.arange(5)
    result = degrade(images, [MotionBlur(length)], seeds=seeds)
    draws = Draws(seeds)
    lengths = draws.whole_number(length).flatten().int().tolist()
    angles = draws.number((0.0, math.pi)).flatten().tolist()
    assert len(set(angles)) == 5
    for image, blurred, own, angle in zip(images, result, lengths, angles, strict=True):
        for channel, other in zip(image.double().numpy(), blurred.numpy(), strict=True):
            assert np.allclose(other, ndimage.correlate(channel, make_line(own, angle)), atol=1e-6)


@pytest.mark.parametrize("blur", [GaussianBlur(0), MotionBlur(1)])
def test_the_least_blur_changes_nothing(blur: GaussianBlur | MotionBlur) -> None:
    images = make_images(2, 3, 6, 5)
    assert torch.equal(degrade(images, [blur], seeds=torch.tensor([0, 1])), images)


@pytest.mark.parametrize("blur", [GaussianBlur(3), GaussianBlur(100), MotionBlur(9), MotionBlur(101)])
def test_flat_images_stay_as_they_are(blur: GaussianBlur | MotionBlur) -> None:
    images = torch.full((2, 1, 6, 5), 0.7)
    torch.testing.assert_close(degrade(images, [blur], seeds=torch.tensor([0, 1])), images, rtol=0, atol=1e-5)
