"""The images that an arm trains on, and which of them make the batch of a step."""

import warnings
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.drawing import known_classes
from genaug.data import LabeledImages
from genaug.errors import DataWarning, shorten
from genaug.evaluate.arms import Arm
from genaug.mixing import MixedDataset, balance
from genaug.mixing.choice import match_classes
from genaug.seeding import derive_seed, make_generator
from genaug.training.schedules import ClassSampler


class Batches:
    """Batches of real images and an arm's synthetic ones, as functions of (seed, step).

    Args:
        arm: how they are drawn.
        train: the training part.
        steps: of the whole training.
        batch_size: images of each batch.
        seed: of the draws.
        device: where a maker of synthetic images computes.

    Raises:
        DataError: a source whose images or classes are others.
    """

    def __init__(
        self, arm: Arm, train: LabeledImages, *, steps: int, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self._arm, self._train, self._batch_size = arm, train, batch_size
        self._mixed = _mix(arm, train, seed=seed, device=device)
        self._seed = derive_seed(seed, "classifier batches")
        self.real_counts = torch.tensor(train.counts)
        self.synthetic_counts = torch.tensor(self._mixed.synthetic_counts) if self._mixed else 0 * self.real_counts
        self.labels = train.labels if self._mixed is None else torch.tensor(self._mixed.targets)
        self._real = self._sampler(train.labels)
        self._all = self._sampler(self.labels)
        self._by_class = len(train) + self.labels[len(train) :].argsort(stable=True)  # rows of synthetic images
        self._until = round(arm.until * steps) if len(self._by_class) else 0

    def _sampler(self, labels: Tensor) -> ClassSampler:
        return ClassSampler(labels, exponent=0.0 if self._arm.balanced else 1.0, seed=self._seed)

    def has_synthetic(self, step: int) -> bool:
        """Tell whether the batch of `step` may hold synthetic images."""
        return step < self._until

    def counts(self, step: int) -> Tensor:
        """Return how often each class (C,) is drawn in batches around `step`.

        These are counts of a data set of the real size, or of one with the synthetic images where these are added to
        it.
        """
        real = self.real_counts.double()
        if self._arm.balanced:
            present = (real > 0).double()
            return present * real.sum() / present.sum()
        added = self.has_synthetic(step) and self._arm.replace is None
        return real + self.synthetic_counts if added else real

    def rows(self, step: int) -> Tensor:
        """Return the rows of the batch: real images, and from the number of these on synthetic ones."""
        if not self.has_synthetic(step):
            return self._real.rows(step, batch_size=self._batch_size)
        if self._arm.replace is None:
            return self._all.rows(step, batch_size=self._batch_size)
        return self._replace(self._real.rows(step, batch_size=self._batch_size), step, self._arm.replace)

    def _replace(self, rows: Tensor, step: int, share: float) -> Tensor:
        """Return rows of which a share is replaced by synthetic images of the same classes, where there are some."""
        draws = torch.rand((2, len(rows)), generator=make_generator(self._seed, "replace", step), dtype=torch.float64)
        labels = self._train.labels[rows]
        counts = self.synthetic_counts[labels]
        starts = self.synthetic_counts.cumsum(0) - self.synthetic_counts
        place = starts[labels] + (draws[1] * counts).long()
        chosen = (draws[0] < share) & (counts > 0)
        return torch.where(chosen, self._by_class[place.clamp(max=len(self._by_class) - 1)], rows)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, C, H, W) and labels (N,) of the batch of `step`.

        Where a bank has more samples than are wanted, others take part in every epoch.
        """
        rows = self.rows(step)
        synthetic = rows >= len(self._train)
        if self._mixed is None or not synthetic.any():
            return self._train.images[rows], self._train.labels[rows]
        self._mixed.set_epoch(step * self._batch_size // len(self.labels))
        images = torch.empty((len(rows), *self._train.images.shape[1:]), dtype=torch.uint8)
        images[~synthetic] = self._train.images[rows[~synthetic]]
        images[synthetic] = torch.stack([image for image, _ in self._mixed.__getitems__(rows[synthetic].tolist())])
        return images, self.labels[rows]


def _mix(arm: Arm, train: LabeledImages, *, seed: int, device: torch.device) -> MixedDataset | None:
    if arm.source is None:
        return None
    source, counts = arm.source, count_wanted(arm, train)
    if not sum(counts):
        return None
    if is_maker(source):
        source = source(train, counts, seed=seed, device=device)
    counts = _there_are(source, train, counts, repeat=arm.every is None)
    totals = [real + extra for real, extra in zip(train.counts, counts, strict=True)]
    return MixedDataset(train, source, target=totals, cap=max(totals), seed=seed)


def is_maker(source: Any) -> bool:
    """Tell whether a source is a function that makes a bank for each seed."""
    return callable(source) and not hasattr(source, "sample")


def count_wanted(arm: Arm, train: LabeledImages) -> list[int]:
    """Return how many synthetic images of each class the arm asks for."""
    if arm.every is None:
        return balance(train.counts, target=arm.target, cap=arm.cap)
    present = [count for count in train.counts if count]
    each = max(1, round(arm.every * sum(present) / len(present)))
    return [each if count else 0 for count in train.counts]


def _there_are(source: Any, train: LabeledImages, counts: list[int], *, repeat: bool) -> list[int]:
    """Return how many of the wanted samples a source can give: of a bank all of a class, where they may not repeat."""
    own = source.counts if isinstance(source, SampleBank) else None
    known, matched = set(known_classes(source)), match_classes(train.spec.class_names, source.spec)
    pairs = list(zip(counts, matched, strict=True))
    missing = [train.classes[label] for label, (count, index) in enumerate(pairs) if count and index not in known]
    if missing:
        warnings.warn(f"source has no samples of {shorten(missing)}, so none are mixed in", DataWarning, stacklevel=5)
    if own is None or repeat:
        return [count if index in known else 0 for count, index in pairs]
    return [min(count, own[index]) for count, index in pairs]
