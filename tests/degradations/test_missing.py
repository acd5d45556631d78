"""Missing parts, counted."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from genaug.degradations import Degradation, MissingPixels, MissingRectangles, degrade

SEEDS = torch.arange(300)


def find_holes(degradation: Degradation, *, size: tuple[int, int], value: float = 0.0) -> np.ndarray:
    """Which pixels (300, H, W) are missing of images of the value 0.5, in all channels."""
    result = degrade(torch.full((len(SEEDS), 3, *size), 0.5), [degradation], seeds=SEEDS).numpy()
    assert np.isin(result, np.array([0.5, value], dtype=np.float32)).all()
    assert (result == result[:, :1]).all()
    return result[:, 0] == np.float32(value)


@pytest.mark.parametrize("size", [(20, 30), (7, 7), (1, 9), (9, 1), (1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_one_rectangle(size: tuple[int, int], share: float) -> None:
    holes = find_holes(MissingRectangles(count=1, size=share, value=0.25), size=size, value=0.25)
    sides = [max(1, round(share * side)) for side in size]
    places = []
    for hole in holes:
        (box,) = ndimage.find_objects(hole.astype(int))
        assert hole[box].all()
        assert [part.stop - part.start for part in box] == sides
        places.append([part.start for part in box])
    for starts, side, length in zip(np.array(places).T, size, sides, strict=True):
        counts = np.bincount(starts, minlength=side - length + 1)
        assert len(counts) == side - length + 1
        assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4


def test_heights_and_widths_have_their_own_sizes() -> None:
    holes = find_holes(MissingRectangles(count=1, size=(0.2, 0.6)), size=(40, 40))
    boxes = [ndimage.find_objects(hole.astype(int))[0] for hole in holes]
    heights, widths = np.array([[part.stop - part.start for part in box] for box in boxes]).T
    for lengths in (heights, widths):
        assert lengths.min() >= 8
        assert lengths.max() <= 24
        assert abs(lengths.mean() - 16) < 5 * 16 / math.sqrt(12 * len(SEEDS))  # uniform over 16 pixels
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 5 / math.sqrt(len(SEEDS))


def test_number_of_rectangles() -> None:
    holes = find_holes(MissingRectangles(count=(0, 3), size=0), size=(60, 60))  # of one pixel each; few overlap
    counts = holes.sum((1, 2))
    assert set(counts) == {0, 1, 2, 3}
    assert abs(counts.mean() - 1.5) < 5 * math.sqrt(5 / 4 / len(SEEDS))  # variance of four equally likely numbers
    assert not find_holes(MissingRectangles(count=0, size=0.5), size=(8, 8)).any()


@pytest.mark.parametrize("fraction", [0.0, 0.2, 1.0])
def test_pixels(fraction: float) -> None:
    holes = find_holes(MissingPixels(fraction, value=1.0), size=(20, 30), value=1.0)
    error = math.sqrt(fraction * (1 - fraction) / holes.size)
    assert abs(holes.mean() - fraction) <= 5 * error


def test_each_image_has_its_own_fraction_of_pixels() -> None:
    shares = find_holes(MissingPixels((0.2, 0.8)), size=(64, 64)).mean((1, 2))
    assert stats.kstest(shares, stats.uniform(0.2, 0.6).cdf).pvalue > 1e-4
