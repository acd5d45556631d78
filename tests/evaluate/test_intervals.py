"""The interval of a paired difference: against closed forms, and how often it covers the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genaug.evaluate import intervals
from genaug.evaluate.intervals import paired_difference


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mean_is_that_of_the_metric() -> None:
    labels = torch.tensor([0] * 30 + [2] * 10)  # class 1 has no test images
    ours, rival = (torch.rand(4, 40, generator=seeded(seed)) < share for seed, share in ((0, 0.8), (1, 0.5)))
    recall = {c: (ours[:, labels == c].double() - rival[:, labels == c].double()).mean(1) for c in (0, 2)}
    balanced = paired_difference(ours, rival, labels)
    assert balanced.mean == pytest.approx(float((recall[0] + recall[2]).mean() / 2))
    plain = paired_difference(ours, rival, labels, metric="accuracy")
    assert plain.mean == pytest.approx(float((ours.double() - rival.double()).mean()))
    assert plain != balanced


def test_the_order_of_images_does_not_matter_for_the_mean() -> None:
    labels = torch.tensor([0, 1] * 20)
    ours, rival = (torch.rand(3, 40, generator=seeded(seed)) < 0.6 for seed in (2, 3))
    order = torch.randperm(40, generator=seeded(4))
    shuffled = paired_difference(ours[:, order], rival[:, order], labels[order])
    assert shuffled.mean == pytest.approx(paired_difference(ours, rival, labels).mean)


def test_with_very_many_images_it_is_about_the_interval_of_the_paired_t_test() -> None:
    # a seed's classifiers get every image of a random share right or wrong: images differ in nothing
    gaps = torch.tensor([0.02, 0.05, 0.01, 0.04, 0.06])
    labels = torch.zeros(40_000, dtype=torch.int64)
    rival = torch.zeros(5, 40_000, dtype=torch.bool)
    ours = torch.rand(5, 40_000, generator=seeded(0)) < gaps[:, None]
    found = paired_difference(ours, rival, labels)
    values = ours.double().mean(1).numpy()
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    # the percentiles of means of five values, whose tails are those of a sum, not of a t
    assert found.high - found.low == pytest.approx(high - low, rel=0.12)
    assert found.mean == pytest.approx(values.mean())


def test_seeds_that_agree_leave_the_spread_over_images_of_each_class() -> None:
    labels = torch.tensor([0] * 400 + [1] * 100)
    ours = torch.cat([torch.arange(400) < 200, torch.arange(100) < 30]).expand(3, 500)
    found = paired_difference(ours, torch.zeros(3, 500, dtype=torch.bool), labels)
    error = math.sqrt(0.5 * 0.5 / 400 + 0.3 * 0.7 / 100) / 2  # of the mean of two binomial shares
    assert found.mean == pytest.approx(0.4)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


@pytest.mark.parametrize(("seeds", "deviation"), [(2, 0.3), (3, 0.3), (5, 1.0), (5, 0.0)])
def test_it_covers_the_true_difference_about_as_often_as_it_says(seeds: int, deviation: float) -> None:
    """Images of random difficulty, classifiers of random skill: a probit model whose expectation is known."""
    true = stats.norm.cdf(0.3 / math.sqrt(2 + deviation**2)) - 0.5
    labels, generator, hits = torch.arange(150) % 3, seeded(seeds), 0
    for _ in range(150):
        base, noise = (torch.randn(shape, generator=generator) for shape in ((150,), (2, seeds, 150)))
        skill = deviation * torch.randn((2, seeds, 1), generator=generator) + torch.tensor([0.3, 0.0])[:, None, None]
        found = paired_difference(*(base + noise + skill > 0), labels)
        hits += found.low <= true <= found.high
    assert stats.binomtest(hits, 150, 0.95).pvalue > 1e-3 or hits / 150 > 0.95


def test_it_is_the_same_every_time_and_leaves_global_randomness_alone() -> None:
    labels = torch.arange(30) % 3
    ours, rival = (torch.rand(3, 30, generator=seeded(seed)) < 0.5 for seed in (5, 6))
    assert paired_difference(ours, rival, labels) == paired_difference(ours, rival, labels)
    same = paired_difference(ours, ours, labels)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    turned = paired_difference(rival, ours, labels)
    assert np.isclose(turned.mean, -paired_difference(ours, rival, labels).mean)


def test_counts_of_values_have_the_distribution_of_images_that_are_drawn_one_by_one() -> None:
    generator = seeded(7)
    counts = torch.tensor([40, 1, 300, 25, 1])
    terms = torch.randint(-3, 4, (int(counts.sum()),), generator=generator).double()
    found = intervals._resample_images(terms, counts, seeded(0))
    classes = list(terms.split(counts.tolist()))
    classes = [classes[0], classes[2], classes[3], torch.cat([classes[1], classes[4]])]  # those of one image together
    widening = stats.t.ppf(0.975, len(terms) - 4) / stats.norm.ppf(0.975)
    one_by_one = torch.zeros(len(found), dtype=torch.float64)
    for own in classes:
        drawn = own[torch.randint(len(own), (len(found), len(own)), generator=generator)]
        stretch = widening * math.sqrt(len(own) / (len(own) - 1))
        one_by_one += len(own) * own.mean() + stretch * (drawn.sum(1) - len(own) * own.mean())
    assert stats.ks_2samp(one_by_one.numpy(), found.numpy()).pvalue > 1e-3


def test_many_images_cost_no_more_than_their_few_values() -> None:
    # how often each value is drawn depends on nothing else, so the order of images does not matter for the interval
    labels = torch.arange(150_000) % 3
    ours, rival = (torch.rand(3, 150_000, generator=seeded(seed)) < 0.6 for seed in (2, 3))
    order = torch.randperm(150_000, generator=seeded(4))
    found = paired_difference(ours, rival, labels)
    assert paired_difference(ours[:, order], rival[:, order], labels[order]) == found
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("images", [2, 3, 5])
def test_few_images_of_a_class_do_not_make_it_sure(images: int) -> None:
    """Two arms that are as good as each other: verdicts of a gain or a loss are rare, however few the images."""
    labels, generator, wrong = torch.arange(8).repeat_interleave(images), seeded(images), 0
    for _ in range(100):
        ours, rival = torch.rand(2, 1, 8 * images, generator=generator) < 0.6
        found = paired_difference(ours.expand(4, -1), rival.expand(4, -1), labels)
        wrong += found.low > 0 or found.high < 0
    assert stats.binomtest(wrong, 100, 0.05, alternative="greater").pvalue > 1e-3


def test_a_single_class_of_one_image_is_drawn_with_another() -> None:
    labels = torch.tensor([0] * 20 + [1] * 5 + [2])
    ours = torch.rand(3, 26, generator=seeded(9)) < 0.7
    found = paired_difference(ours, torch.zeros(3, 26, dtype=torch.bool), labels)
    recalls = [ours[:, labels == label].double().mean() for label in range(3)]
    assert found.mean == pytest.approx(float(sum(recalls) / 3))
    assert found.low < found.mean < found.high
