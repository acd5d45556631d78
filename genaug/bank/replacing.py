"""Samples in the place of rows of a batch: what the transform and the loader that do it share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import check_source
from genaug.bank.sample_bank import SampleBank
from genaug.errors import DataError, GenaugError, shorten
from genaug.images import cast_like, check_images, to_uint8
from genaug.spec import DataSpec

Classes = Mapping[Any, float] | Sequence[Any] | None


@dataclass(frozen=True)
class Plan:
    """Which rows of a batch are replaced (n,), by samples of which classes (n,), drawn with which seed."""

    rows: Tensor
    classes: Tensor
    seed: int


class Replacement:
    """Replaces a share of the rows of a batch by samples of a source.

    Args:
        source: a bank, or a model with `spec` and `sample(labels, *, generator=None)`.
        fraction: share of the rows that are replaced, on average where it is no whole number of them.
        classes: None replaces a row by a sample of its own class, where the source has any. Else names or indices of
            classes that the samples are drawn from, equally or, in a dict, by weight.
        transform: called with the samples, uint8 (n, C, H, W), gray ones with three channels for a batch in color;
            returns them as the rows of the batch are.

    Raises:
        GenaugError: a `fraction` outside [0, 1].
        DataError: a source of another kind; classes that it does not know or has no samples of; unusable weights.
    """

    def __init__(
        self, source: Any, fraction: float, *, classes: Classes = None, transform: Callable[[Tensor], Tensor] | None
    ) -> None:
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
            raise GenaugError(f"fraction must be from 0 to 1, got {shorten(fraction)}")
        if transform is not None and not callable(transform):
            raise GenaugError(f"transform must be a function of a batch of images or None, got {shorten(transform)}")
        self.spec = check_source(source)
        self.source, self.fraction, self.transform = source, float(fraction), transform
        counts = source.counts if isinstance(source, SampleBank) else [1] * self.spec.num_classes
        self._has = torch.tensor([count > 0 for count in counts])
        self.weights = None if classes is None else _weigh(classes, self.spec, self._has)
        self._checked = False

    def plan(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Plan:
        """Draw what to replace in a batch of class indices (N,), or of one-hot or soft labels (N, num_classes).

        Without `generator` torch's global one is drawn from.

        Raises:
            DataError: labels that the source does not know.
        """
        classes = self._to_classes(labels)
        if self.weights is None:
            candidates = self._has[classes].nonzero().flatten()
        else:
            candidates = torch.arange(len(classes))
        count = int(self.fraction * len(candidates) + float(torch.rand((), generator=generator)))
        rows = candidates[torch.randperm(len(candidates), generator=generator)[:count]].sort().values
        if self.weights is None or not count:
            wanted = classes[rows]
        else:
            wanted = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return Plan(rows, wanted, int(torch.randint(2**62, (), generator=generator)))

    def draw(self, plan: Plan) -> Tensor:
        """Return the samples (n, C, H, W) of a plan, as they come from the source; they depend on the plan alone."""
        generator = torch.Generator().manual_seed(plan.seed)
        samples: Tensor = self.source.sample(plan.classes, generator=generator)
        return samples

    def place(self, images: Tensor, labels: Tensor, plan: Plan, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of images and labels with the samples in their rows; the labels themselves where none changes.

        Raises:
            DataError: samples that are not as the rows of the batch are.
        """
        if not len(plan.rows):
            return images, labels
        plain = images.as_subclass(Tensor)
        new = torch.empty_like(plain, pin_memory=plain.is_pinned()).copy_(plain)
        new[plan.rows.to(images.device)] = self._make(samples, plain)
        new = new.as_subclass(type(images))
        if labels.ndim == 1 and self.weights is None:
            return new, labels
        rows, classes = plan.rows.to(labels.device), plan.classes.to(labels.device)
        changed = labels.clone()
        if labels.ndim == 1:
            changed[rows] = classes.to(labels.dtype)
        else:
            changed[rows] = torch.nn.functional.one_hot(classes, labels.shape[1]).to(labels.dtype)
        return new, changed

    def _to_classes(self, labels: Tensor) -> Tensor:
        if labels.ndim == 2 and labels.shape[1] != self.spec.num_classes:
            raise DataError(
                f"labels must have {self.spec.num_classes} columns, as source has classes, got {labels.shape[1]}"
            )
        classes = (labels if labels.ndim == 1 else labels.float().argmax(1)).to("cpu", torch.int64)
        self.spec.check_labels(classes)
        return classes

    def _make(self, samples: Tensor, images: Tensor) -> Tensor:
        if samples.shape[1] == 1 and images.shape[1] == 3:
            samples = samples.expand(-1, 3, -1, -1)
        if self.transform is not None:
            made = self.transform(to_uint8(samples).to(images.device))
            wanted = (len(samples), *images.shape[1:])
            if not isinstance(made, Tensor) or made.shape != wanted or made.dtype != images.dtype:
                got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
                raise DataError(
                    f"transform must make {images.dtype} {wanted} of the samples, as the batch is, got {got}; "
                    "give it what real images go through, such as a resize, ToDtype and Normalize"
                )
            return made.as_subclass(Tensor).to(images.device)
        if not self._checked:  # a pipeline normalizes all batches or none
            self._check_batch(images)
            self._checked = True
        if samples.shape[1:] != images.shape[1:]:
            raise DataError(
                f"source must have images of the size of the batch ({_size(images)}), got {_size(samples)}; "
                "pass transform=, which brings samples to it"
            )
        return cast_like(samples, images)

    def _check_batch(self, images: Tensor) -> None:
        try:
            check_images(images, rounded=True)
        except DataError as problem:
            raise DataError(
                f"{problem}; or pass transform=, which does to uint8 samples what was done to real images: samples "
                "normalized in another way would teach a classifier to tell them apart"
            ) from None


def _size(images: Tensor) -> str:
    return "x".join(map(str, images.shape[1:]))


def _weigh(classes: Mapping[Any, float] | Sequence[Any], spec: DataSpec, has: Tensor) -> Tensor:
    """Return a weight for each class of `spec` from names or indices, with or without weights."""
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)) or not len(classes):
        raise DataError(f"classes must be a list of names or indices, or a dict to weights, got {shorten(classes)}")
    given = classes if isinstance(classes, Mapping) else dict.fromkeys(classes, 1.0)
    weights = torch.zeros(spec.num_classes, dtype=torch.float64)
    for key, weight in given.items():
        index = spec.class_names.index(key) if key in spec.class_names else key
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < spec.num_classes:
            raise DataError(f"classes must be of the source, got {shorten(key)}; it has {shorten(spec.class_names)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise DataError(f"weights of classes must be numbers of at least 0, got {shorten(weight)}")
        if weight and not has[index]:
            raise DataError(f"source must have samples of classes, it has none of {spec.class_names[index]!r}")
        weights[index] = weight
    if not weights.sum():
        raise DataError(f"classes must have a weight above 0, got {shorten(classes)}")
    return weights
