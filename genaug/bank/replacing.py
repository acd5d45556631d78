"""Samples in the place of rows of a batch: what the transform and the loader that do it share."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import check_source, known_classes
from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.images import cast_like, check_images, to_uint8, warn_of_scale
from genaug.spec import DataSpec

Classes = Mapping[Any, float] | Iterable[Any] | None


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
        classes: None replaces a row by a sample of its own class (of soft labels the largest), where the source has
            any, and leaves labels as they are. Else names or indices of
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
        self.fraction = check_share(fraction, name="fraction")
        if transform is not None and not callable(transform):
            raise GenaugError(f"transform must be a function of a batch of images or None, got {shorten(transform)}")
        self.spec = check_source(source)
        self.source, self.transform = source, transform
        self._has = torch.zeros(self.spec.num_classes, dtype=torch.bool)
        self._has[known_classes(source)] = True
        self.weights = None if classes is None else _weigh(classes, self.spec, self._has)
        self._checked = False

    def plan(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Plan:
        """Draw what to replace in a batch of class indices (N,), or of one-hot or soft labels (N, num_classes).

        Without `generator` torch's global one is drawn from.

        Raises:
            DataError: labels that the source does not know.
        """
        if self.weights is None:
            classes = self._to_classes(labels)
            candidates = self._has[classes].nonzero().flatten()
        else:
            self._check_columns(labels)
            candidates = torch.arange(len(labels))
        count = int(self.fraction * len(candidates) + float(torch.rand((), generator=generator, dtype=torch.float32)))
        rows = candidates[torch.randperm(len(candidates), generator=generator)[:count]].sort().values
        if self.weights is None:
            wanted = classes[rows]
        else:
            drawn = torch.multinomial(self.weights, max(count, 1), replacement=True, generator=generator)
            wanted = drawn[:count]  # it cannot draw none
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
        if self.weights is None:
            return new, labels
        rows, classes = plan.rows.to(labels.device), plan.classes.to(labels.device)
        changed = labels.clone()
        if labels.ndim == 1:
            changed[rows] = classes.to(labels.dtype)
        else:
            changed[rows] = torch.nn.functional.one_hot(classes, labels.shape[1]).to(labels.dtype)
        return new, changed

    def _check_columns(self, labels: Tensor) -> None:
        if labels.ndim == 2 and labels.shape[1] != self.spec.num_classes:
            raise DataError(
                f"labels must have {self.spec.num_classes} columns, as source has classes, got {labels.shape[1]}"
            )

    def _to_classes(self, labels: Tensor) -> Tensor:
        self._check_columns(labels)
        classes = (labels if labels.ndim == 1 else labels.float().argmax(1)).to("cpu", torch.int64)
        self.spec.check_labels(classes)
        return classes

    def _make(self, samples: Tensor, images: Tensor) -> Tensor:
        if samples.shape[1] == 1 and images.shape[1] == 3:
            samples = samples.expand(-1, 3, -1, -1).contiguous()  # which can be changed in place
        if self.transform is not None:
            made = self.transform(to_uint8(samples).to(images.device))
            wanted = (len(samples), *images.shape[1:])
            if not isinstance(made, Tensor) or made.shape != wanted or made.dtype != images.dtype:
                got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
                raise DataError(
                    f"transform must make {images.dtype} {wanted} of the samples, as the batch is, got {got}; "
                    "give it what real images go through, such as a resize, ToDtype and Normalize"
                )
            if not self._checked:  # once, since a GPU is waited for
                warn_of_scale(made, images)
                self._checked = True
            return made.as_subclass(Tensor).to(images.device)
        if not self._checked or images.device.type == "cpu":  # a GPU would be waited for at each batch
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
            check_images(images, overshoot=True)
        except DataError as problem:
            raise DataError(
                f"{problem}; or pass transform=, which does to uint8 samples what was done to real images: samples "
                "normalized in another way would teach a classifier to tell them apart"
            ) from None


def _size(images: Tensor) -> str:
    return "x".join(map(str, images.shape[1:]))


def _weigh(classes: Mapping[Any, float] | Iterable[Any], spec: DataSpec, has: Tensor) -> Tensor:
    """Return a weight for each class of `spec` from names or indices, with or without weights."""
    listed = isinstance(classes, Iterable) and not isinstance(classes, str)
    given = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(classes if listed else (), 1.0)
    if not given:
        raise DataError(f"classes must be a list of names or indices, or a dict to weights, got {shorten(classes)}")
    weights, seen = torch.zeros(spec.num_classes, dtype=torch.float64), set()
    for key, weight in given.items():
        index = _find_class(key, spec)
        if index in seen:
            raise DataError(f"classes must not repeat, got {shorten(list(given))}")
        seen.add(index)
        number = -1.0 if isinstance(weight, bool) or not isinstance(weight, Real) else float(weight)
        if not 0.0 <= number < float("inf"):
            raise DataError(f"weights of classes must be numbers of at least 0, got {shorten(weight)}")
        if weight and not has[index]:
            raise DataError(f"source must have samples of classes, it has none of {spec.class_names[index]!r}")
        weights[index] = number
    if not weights.sum():
        raise DataError(f"classes must have a weight above 0, got {shorten(classes)}")
    return weights


def _find_class(key: Any, spec: DataSpec) -> int:
    """Return the index of a class given by name or index."""
    if isinstance(key, str):
        index = spec.class_names.index(key) if key in spec.class_names else -1
    else:
        try:
            index = -1 if isinstance(key, bool) else operator.index(key)
        except TypeError:
            index = -1
    if not 0 <= index < spec.num_classes:
        raise DataError(f"classes must be of the source, got {shorten(key)}; it has {shorten(spec.class_names)}")
    return index
