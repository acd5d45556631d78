"""An interval for the difference of two arms, over seeds and over test images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genaug.errors import GenaugError, check_choice
from genaug.seeding import make_generator

CONFIDENCE = 0.95
RESAMPLES = 20_000
WEIGHTINGS = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences of an arm to the rival over seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "gain" or "loss" where the interval leaves out 0, else "no measurable gain"."""
        return "gain" if self.low > 0 else "loss" if self.high < 0 else "no measurable gain"

    @property
    def points(self) -> str:
        """In words, as percentage points.

        >>> Difference(mean=-0.01, low=-0.03, high=0.01).points
        '-1.0 (-3.0 to +1.0)'
        """
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def paired_difference(ours: Tensor, rival: Tensor, labels: Tensor, *, metric: str = "balanced_accuracy") -> Difference:
    """Return the mean paired difference in a metric, with its 95 % interval from a hierarchical bootstrap.

    A resample draws seeds with replacement and, within each class, test images with replacement: the same images for
    both arms and for all seeds, since all were tested on the same ones. It gives the metric of these images, as the
    mean over all seeds, plus the mean of how far the drawn seeds lie from that over all images (both ways at once, as
    in Owen 2007, "The pigeonhole bootstrap", but added up). The interval reaches from the 2.5th to the 97.5th
    percentile of 20,000 resamples. Few seeds drawn anew vary too little, so their deviations are stretched by
    sqrt(S / (S - 1)) t / z, with the quantiles of Student's t of S - 1 degrees of freedom and of the normal
    distribution: for a test part without end it is about the interval of the paired t test. With two seeds, of which
    only three draws differ, it is shorter, about 0.7 of that.

    Args:
        ours: whether each test image was recognized, bool (S, N): a row for each seed.
        rival: the same of the other arm, for the same seeds and images.
        labels: classes of the test images (N,).
        metric: "accuracy", or "balanced_accuracy", the mean recall of the classes with test images.

    Raises:
        GenaugError: another metric, or fewer than two seeds.

    >>> labels = torch.tensor([0, 1]).repeat_interleave(50)
    >>> paired_difference(torch.ones(3, 100, dtype=torch.bool), torch.zeros(3, 100, dtype=torch.bool), labels)
    Difference(mean=1.0, low=1.0, high=1.0)
    """
    check_choice(metric, WEIGHTINGS, name="metric")
    if len(ours) < 2:
        raise GenaugError(f"seeds must be at least 2 for an interval, got {len(ours)}")
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    share = counts / counts.sum() if metric == "accuracy" else torch.full((len(counts),), 1 / len(counts))
    gaps = (ours.double() - rival.double())[:, order]
    weights = (share.double() / counts).repeat_interleave(counts)  # of each image
    values = gaps @ weights  # of each seed
    generator = make_generator(0, "bootstrap")
    means = _resample_images(gaps.mean(0) * weights, counts, generator) + _resample_seeds(values, generator)
    low, high = torch.quantile(means, torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).double()).tolist()
    mean, low, high = (round(value, 12) for value in (float(values.mean()), low, high))  # sums of shares end in dust
    return Difference(mean, low, high)


def _resample_images(terms: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return sums (RESAMPLES,) of terms (N,), sorted by class, of images drawn anew within each class.

    Classes of one image say nothing of their spread: they are drawn from together (collapsed strata: Cochran 1977,
    section 5A.12), a single one with the smallest other class. Deviations from the mean of n images are stretched by
    sqrt(n / (n - 1)) t / z, as those of seeds; t has the degrees of freedom of all classes together.

    Terms have few values. How often each is drawn is multinomial, at a cost that does not grow with their number.
    """
    ids = torch.arange(len(counts))
    ids[counts == 1] = len(counts)
    if int((counts == 1).sum()) == 1 and len(counts) > 1:
        ids[counts == 1] = int(torch.where(counts == 1, counts.max() + 1, counts).argmin())
    ids = ids.repeat_interleave(counts)
    widening = _widen(len(terms) - len(ids.unique()))
    draws = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    sums = np.zeros(RESAMPLES)
    for index in ids.unique():
        own = terms[ids == index]
        n, mean = len(own), own.mean()
        values, times = own.unique(return_counts=True)
        values = mean + widening * (n / max(1, n - 1)) ** 0.5 * (values - mean)
        sums += draws.multinomial(n, times.double() / n, size=RESAMPLES) @ values.numpy()
    return torch.from_numpy(sums)


def _resample_seeds(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return means (RESAMPLES,) of the stretched deviations of the values (S,) of seeds drawn anew."""
    seeds = len(values)
    factor = (seeds / (seeds - 1)) ** 0.5 * _widen(seeds - 1)
    drawn = torch.randint(seeds, (RESAMPLES, seeds), generator=generator)
    deviations: Tensor = factor * (values - values.mean())
    return deviations[drawn].mean(1)


def _widen(freedom: int) -> float:
    """Return the quantile of Student's t with these degrees of freedom over that of the normal distribution."""
    from scipy.stats import norm, t

    quantile = (1 + CONFIDENCE) / 2
    return float(t.ppf(quantile, max(1, freedom)) / norm.ppf(quantile))
