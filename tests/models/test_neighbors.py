"""Neighbor2Neighbor: which pixels it takes, and its loss."""

import numpy as np
import pytest
import torch

from genaug.models.neighbors import PAIRS, choose_pairs, neighbor_loss, take_pixels

SEEDS = torch.tensor([3, 8])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pairs_share_a_side() -> None:
    places = {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1)}
    distances = [np.abs(np.subtract(places[one], places[other])).sum() for one, other in PAIRS]
    assert distances == [1] * 8
    assert len(set(PAIRS)) == 8


def test_all_pairs_are_drawn_equally_often_and_by_the_seed_alone() -> None:
    pairs = choose_pairs(SEEDS, (100, 80))
    assert pairs.shape == (2, 2, 100, 80)
    assert torch.equal(choose_pairs(SEEDS[1:], (100, 80)), pairs[1:])
    assert not torch.equal(pairs[0], pairs[1])
    codes = (4 * pairs[:, 0] + pairs[:, 1]).flatten()
    values, counts = codes.unique(return_counts=True)
    assert values.tolist() == sorted(4 * one + other for one, other in PAIRS)
    expected = codes.numel() / 8
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 2)])
def test_pixels_are_those_of_their_cell(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=seeded(0))
    rows, columns = size[0] // 2, size[1] // 2
    pairs = choose_pairs(SEEDS, (rows, columns))
    for which, taken in enumerate(take_pixels(images, pairs)):
        assert taken.shape == (2, 3, rows, columns)
        for index in np.ndindex(2, rows, columns):
            image, row, column = index
            down, right = divmod(int(pairs[image, which, row, column]), 2)
            assert torch.equal(taken[image, :, row, column], images[image, :, 2 * row + down, 2 * column + right])


def test_loss_is_its_definition() -> None:
    noisy = torch.rand(2, 1, 6, 6, generator=seeded(0))
    first, second = take_pixels(noisy, choose_pairs(SEEDS, (3, 3)))
    halved = take_pixels(0.5 * noisy, choose_pairs(SEEDS, (3, 3)))
    difference = 0.5 * first - second
    expected = (difference**2).mean() + 3.0 * ((difference - (halved[0] - halved[1])) ** 2).mean()
    found = neighbor_loss(lambda y: 0.5 * y, noisy, seeds=SEEDS, consistency=3.0)
    torch.testing.assert_close(found, expected)


def test_no_gradient_flows_through_the_whole_image() -> None:
    noisy, factor = torch.rand(2, 1, 6, 6, generator=seeded(0)), torch.tensor(0.7, requires_grad=True)
    first, second = take_pixels(noisy, choose_pairs(SEEDS, (3, 3)))
    neighbor_loss(lambda y: factor * y, noisy, seeds=SEEDS, consistency=2.0).backward()
    difference = 0.7 * first - second
    consistent = difference - 0.7 * (first - second)
    expected = 2 * (difference * first).mean() + 2.0 * 2 * (consistent * first).mean()
    assert factor.grad is not None
    torch.testing.assert_close(factor.grad, expected)


def test_it_finds_the_mean_without_a_clean_image() -> None:
    """Of restorers that blend a pixel with the mean, the best one for clean images minimizes it too."""
    noisy = 0.5 + 0.2 * torch.randn(4, 1, 64, 64, generator=seeded(0))
    seeds = torch.arange(4)
    losses = [
        float(neighbor_loss(lambda y, kept=kept: kept * y + (1 - kept) * 0.5, noisy, seeds=seeds, consistency=0.0))
        for kept in (0.0, 0.25, 0.5, 1.0)
    ]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(0.2**2, rel=0.1)
