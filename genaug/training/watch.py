"""Watches a generator while it learns: how near and how varied its samples are, class by class."""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.data import LabeledImages
from genaug.errors import DataError, TrainingWarning, shorten
from genaug.features import STEPS, FeatureExtractor, fit_features
from genaug.images import to_float, to_uint8
from genaug.metrics.fidelity import frechet_distance, kernel_distance
from genaug.models import Model
from genaug.seeding import make_generator

SAMPLES, LEAST, MOST = 5000, 16, 200  # of all classes together, and of one
MOST_COMPARED = 1000  # real images of a class
KERNEL_SUBSETS, LEAST_FOR_KERNEL = 10, 4  # each as large as it can be
COLLAPSED = 0.2  # share of the real variance below which a class counts as collapsed
MOST_NAMED = 10  # classes in a message
WON = 0.99  # share of pairs told apart above which the discriminator counts as having won


@dataclass(frozen=True)
class Observation:
    """What `Watch.observe` found of the classes that have images.

    Args:
        distance: of the samples of each class to its held-out images; where it has fewer than 16 of these, which would
            favor samples of little variety, to its training images too. None of a class without two training images
            (four for the kernel distance).
        diversity: variance of the samples' features over that of the training images of the class; None where these do
            not vary.
    """

    distance: tuple[float | None, ...]
    diversity: tuple[float | None, ...]

    @property
    def intra_class_distance(self) -> float:
        """Mean distance over the classes, each counted alike."""
        found = [value for value in self.distance if value is not None]
        return sum(found) / len(found)

    @property
    def collapsed(self) -> list[int]:
        """Classes whose samples hardly vary."""
        return [index for index, share in enumerate(self.diversity) if share is not None and share < COLLAPSED]


class Watch:
    """Measures a model's samples in the features of a classifier that is trained on the training part, or in others.

    The same latents every time, so that what changes is the model. Where fewer than two classes have images there is
    nothing to classify, and the features are the pixels of the images, shrunk to at most 8 x 8. Of each class at most
    1000 real images, drawn at random, are what samples are compared with, and 200 give the variance.

    The distance is Frechet's, or with features that are given the kernel distance: these may be wider than a class has
    images, where Frechet's distance favors samples of little variety, and the kernel distance has no bias.

    Args:
        images: the data.
        kept: rows (N,) that are trained on.
        held_out: rows (M,) that are not; may be none.
        seed: of classifier, samples and what is compared.
        steps: of the run; a short run gets a classifier of as many steps, at least 100.
        device: where the classifier runs.
        features: what to compare images in, in place of a classifier.
        progress: show a progress bar while the classifier is trained.
    """

    def __init__(
        self,
        images: LabeledImages,
        kept: Tensor,
        held_out: Tensor,
        *,
        seed: int,
        steps: int,
        device: torch.device,
        features: FeatureExtractor | None = None,
        progress: bool = False,
    ) -> None:
        self.seed, self.classes = seed, images.classes
        self.score = "intra_class_distance" if features is None else f"intra_class_kernel_distance_{features.name}"
        self.measure = frechet_distance if features is None else self._kernel_distance
        self.extract = _shrink if features is None else features.extract
        members, self.present = find_members(images, kept, features)
        if features is None and sum(len(rows) > 0 for rows in members) > 1:
            steps = min(STEPS, max(100, steps))
            self.extract = fit_features(
                images, rows=kept, seed=seed, steps=steps, device=device, progress=progress
            ).extract
        self.variance, self.reference = [], []
        self.partly_trained_on = 0  # classes whose samples are compared with training images too
        for index, rows in enumerate(members):
            spared = held_out[images.labels[held_out] == index]
            enough = len(spared) >= LEAST
            self.partly_trained_on += index in self.present and not enough
            own = self.extract(images.images[self._some(rows, index, MOST if enough else MOST_COMPARED)])
            others = self.extract(images.images[self._some(spared, index, MOST_COMPARED)])
            self.variance.append(float(own.var(0, unbiased=False).sum()) if len(own) else math.nan)
            self.reference.append(others if enough else torch.cat([own, others]))
        self.count = min(MOST, max(LEAST, SAMPLES // len(self.present)))
        self._suspected: set[int] = set()
        self._reported: set[int] = set()
        self._won = False

    def _kernel_distance(self, real: Tensor, synthetic: Tensor) -> float:
        size = min(len(real), len(synthetic))
        return kernel_distance(real, synthetic, seed=self.seed, subsets=KERNEL_SUBSETS, subset_size=size)[0]

    def _some(self, rows: Tensor, index: int, most: int) -> Tensor:
        """Return at most `most` of the rows of a class."""
        order = torch.randperm(len(rows), generator=make_generator(self.seed, "watch images", index))
        return rows[order[:most].sort().values]

    def observe(self, model: Model) -> Observation:
        """Draw samples of every class and return how near and how varied they are."""
        distance: list[float | None] = [None] * len(self.reference)
        diversity: list[float | None] = [None] * len(self.reference)
        for index in self.present:
            generator = make_generator(self.seed, "watch", index)
            samples = model.sample(torch.full((self.count,), index), generator=generator)
            found = self.extract(to_uint8(samples))
            distance[index] = self.measure(self.reference[index], found)
            if self.variance[index] > 0:
                diversity[index] = float(found.var(0, unbiased=False).sum()) / self.variance[index]
        return Observation(tuple(distance), tuple(diversity))

    def report(self, observation: Observation, *, step: int, told_apart: float | None) -> None:
        """Warn, once for each, of classes that collapsed at two looks in a row, and of a discriminator that won."""
        collapsed = set(observation.collapsed)
        new = sorted((collapsed & self._suspected) - self._reported)
        self._suspected = collapsed
        self._reported = (self._reported & collapsed) | set(new)
        if new:
            warnings.warn(f"step {step}: {self.describe(observation, new)}", TrainingWarning, stacklevel=2)
        won = told_apart is not None and told_apart > WON
        if won and not self._won:
            warnings.warn(f"step {step}: {describe_won(told_apart)}", TrainingWarning, stacklevel=2)
        self._won = won

    def describe(self, observation: Observation, classes: list[int]) -> str:
        """Return in words that `classes` have collapsed, and what to try."""
        shares = [f"{shorten(self.classes[index], 40)} ({observation.diversity[index]:.2f})" for index in classes]
        more = f" and {len(classes) - MOST_NAMED} more" if len(classes) > MOST_NAMED else ""
        return (
            f"samples of {', '.join(shares[:MOST_NAMED])}{more} hardly vary (variance as a share of that of the "
            "training images); train longer, or try a larger model.minibatch_std, a larger training.batch_size or a "
            "smaller training.learning_rate"
        )


def find_members(
    images: LabeledImages, kept: Tensor, features: FeatureExtractor | None
) -> tuple[list[Tensor], list[int]]:
    """Return the rows (N,) of each class among those in `kept`, and the classes that have enough to be watched.

    Raises:
        DataError: no class has; see `Watch` for `features`.
    """
    least = 2 if features is None else LEAST_FOR_KERNEL
    members = [kept[images.labels[kept] == index] for index in range(max(1, len(images.classes)))]
    present = [index for index, rows in enumerate(members) if len(rows) >= least]
    if not present:
        raise DataError(
            f"data must hold at least {least} training images of some class to watch this family, got at most "
            f"{max(len(rows) for rows in members)}; collect more, or lower training.validation_fraction"
        )
    return members, present


def describe_won(told_apart: float | None) -> str:
    """Return in words that the discriminator tells nearly all pairs apart, and what to try."""
    return (
        f"the discriminator tells {told_apart:.1%} of the pairs apart, from which the generator learns little; try "
        "more of model.augment (color, translation, cutout), a larger model.penalty or a smaller "
        "model.discriminator_rate"
    )


def _shrink(images: Tensor) -> Tensor:
    """Return the pixels of public images (N, C, H, W) in at most 8 x 8 blocks, float32 (N, F)."""
    size = (min(8, images.shape[2]), min(8, images.shape[3]))
    return F.adaptive_avg_pool2d(to_float(images).cpu(), size).flatten(1)
