"""Data sets of synthetic samples, alone or mixed with real ones."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genaug.bank import SampleBank
from genaug.bank.drawing import Counts, check_source
from genaug.errors import DataError, shorten
from genaug.mixing.checking import check_hidden_names, check_items, check_made
from genaug.mixing.choice import as_bank, check_fit, check_supply, choose_rows, choose_samples
from genaug.mixing.kinds import ImageKind, add_source
from genaug.mixing.probe import Pipeline, describe_pipeline, find_settings
from genaug.mixing.real import Keys, describe_leaves, describe_real, fetch
from genaug.mixing.targets import Target
from genaug.seeding import check_seed, unchanged_random_state
from genaug.spec import resolve_counts, spread


class SyntheticDataset(Dataset[tuple[Any, int]]):
    """A map-style data set of synthetic samples (image, label), sorted by class; the same on every reading.

    Args:
        source: a bank, or a model, which is drawn from once, into memory.
        counts: samples a class: one number for all, a dict by class name, or a list. Where a bank has fewer, its
            samples repeat, with a warning.
        seed: decides which samples of a bank are taken, or what a model draws.
        transform: called with each uint8 image (C, H, W).

    Raises:
        DataError: wrong counts, a bank without samples of a class, a source of another kind.
        GenaugError: a seed that is no integer.

    >>> from types import SimpleNamespace
    >>> from genaug.spec import DataSpec
    >>> def noise(labels, *, generator=None):
    ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
    >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
    >>> samples = SyntheticDataset(source, {"a": 1, "b": 2}, seed=0)
    >>> image, label = samples[2]
    >>> len(samples), image.shape, image.dtype, label
    (3, torch.Size([1, 4, 4]), torch.uint8, 1)
    """

    def __init__(
        self, source: Any, counts: Counts, *, seed: int, transform: Callable[[Tensor], Any] | None = None
    ) -> None:
        spec, seed = check_source(source), check_seed(seed)
        self.counts = resolve_counts(counts, spec)
        self.classes = list(spec.class_names)
        self.transform = transform
        self._bank = as_bank(source, self.counts, seed=seed)
        self._rows = torch.zeros(0, dtype=torch.int64)
        if self._bank is not None:
            wanted = list(enumerate(self.counts))
            check_supply(self._bank, wanted)
            self._rows = choose_rows(self._bank, wanted, seed=seed, keys=("synthetic",))
        self.targets: list[int] = np.repeat(np.arange(len(self.counts)), self.counts).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Return the samples at `indices`, read at once."""
        numbers = _check_indices(indices, len(self)).tolist()
        if self._bank is None or not numbers:
            return []
        images: Any = self._bank.images(self._rows[numbers]).unbind()
        if self.transform is not None:
            images = map(self.transform, images)
        return list(zip(images, [self.targets[number] for number in numbers], strict=True))


class MixedDataset(Dataset[Any]):
    """A real data set followed by synthetic samples of its scarce classes, which come out just as the real ones do.

    Real items are returned as they are. Synthetic ones take the same form (PIL image, tensor or array; tuple or dict),
    and go through the data set's own transform, its attribute `transform` or `transforms`, also where `real` is inside
    Subset or ConcatDataset. What a data set does elsewhere cannot be followed: pass it as `transform`. A warning tells
    where something unseen draws at random.

    Args:
        real: a map-style data set of (image, label), or of dicts with both, such as a Hugging Face `Dataset`.
        source: a bank, or a model, which is drawn from once, into memory.
        target: total to fill classes up to, see `balance`.
        cap: at most this many synthetic samples for each real one of a class.
        transform: for synthetic images (PIL or uint8, held as the real ones are), where `real` has no transform.
        seed: decides which samples are taken in which epoch.
        return_source: append to each item whether it is synthetic: a bool, or "synthetic" in a dict.
        image_key: key of the image, where items are dicts and it is not plain which it is.
        label_key: key of the label, likewise.
        labels: class index of every real item, before a `target_transform`, where `real` cannot list them; without it
            all items are read once.

    Raises:
        DataError: items of `real` that synthetic ones cannot be made like; two transforms, or none where real images
            are normalized, or one that makes other images than real ones are; classes, sizes or channels of `source`
            that differ; no samples of a class that needs some.
        GenaugError: a seed that is no integer.

    Attributes:
        classes: names of the classes: those of `real`, or where it names none of `source`.
        targets: class index of every item.
        counts: items of each class, of which `synthetic_counts` are synthetic.

    >>> from types import SimpleNamespace
    >>> from genaug.spec import DataSpec
    >>> def noise(labels, *, generator=None):
    ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
    >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
    >>> real = [(torch.zeros(1, 4, 4), 0)] * 6 + [(torch.ones(1, 4, 4), 1)] * 2
    >>> mixed = MixedDataset(real, source)
    >>> len(mixed), mixed.counts, mixed.synthetic_counts, mixed[-1][0].dtype
    (10, [6, 4], [0, 2], torch.float32)
    """

    def __init__(
        self,
        real: Any,
        source: Any,
        *,
        target: Target = "median",
        cap: float = 5.0,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        return_source: bool = False,
        image_key: str | None = None,
        label_key: str | None = None,
        labels: Any = None,
    ) -> None:
        check_source(source)
        seed = check_seed(seed)
        self._keys = Keys(image_key, label_key)
        known = describe_real(real, labels=labels, image_key=image_key, label_key=label_key)
        check_items(known, given=labels is not None, ranges=transform is None)
        check_hidden_names(real, known.class_names, source.spec.class_names)
        self._own_transform = transform
        self._leaves = [(leaf, int(indices[0])) for leaf, indices, _ in known.leaves]
        self._settings = [(leaf, name) for leaf, _ in self._leaves for name in find_settings(leaf)]
        self._set = self._read_settings()
        self._pipeline = _with_transform(known.pipeline, transform)
        choice = choose_samples(
            source,
            self._pipeline.image,
            labels=known.labels,
            class_names=known.class_names,
            target=target,
            cap=cap,
            seed=seed,
            transformed=self._pipeline.call != "none",
        )
        self.classes, self._wanted, self._bank = choice.classes, choice.wanted, choice.bank
        if transform is not None and self._bank is not None and len(self._bank):
            rows = spread(len(self._bank), min(len(self._bank), 8))
            with unchanged_random_state():
                check_made(known, list(map(transform, self._pipeline.image.make(self._bank.images(rows)))))
        self.synthetic_counts = choice.synthetic_counts
        self.counts = [real + extra for real, extra in zip(choice.real_counts, self.synthetic_counts, strict=True)]
        self._synthetic: NDArray[np.int64] = np.repeat(np.arange(len(self.classes)), self.synthetic_counts)
        self.targets: list[int] = known.labels + self._synthetic.tolist()
        self.real = real
        self.return_source = return_source
        self._seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._rows: tuple[int, Tensor] | None = None

    @property
    def transform(self) -> Callable[..., Any] | None:
        """The transform that synthetic images go through: that of `real`, or the one given for them.

        Where `real` has an attribute `transform`, one that is set here is set there, for real images too: as timm's
        `create_loader` does.
        """
        self._follow()
        return self._pipeline.transform

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | None) -> None:
        if not hasattr(self.real, "transform"):
            raise DataError(
                f"transform can be set where real has one of its own, got {type(self.real).__name__}; set it on the "
                "data sets inside real before MixedDataset is made"
            )
        if transform is not None and not callable(transform):
            raise DataError(f"transform must be a function of an image or None, got {shorten(transform)}")
        before, self.real.transform = self.real.transform, transform
        try:
            pipeline = describe_pipeline(self.real, **self._keys._asdict())
            if pipeline.transform is not transform:
                raise DataError(f"transform must be called by real, which {type(self.real).__name__} does not do")
            if self._bank is not None:
                check_fit(pipeline.image, self._bank.spec, transformed=pipeline.call != "none")
        except BaseException:
            self.real.transform = before
            raise
        self._pipeline, self._own_transform, self._set = pipeline, None, self._read_settings()

    def set_epoch(self, epoch: int) -> None:
        """Take the synthetic samples of this epoch; workers that are kept between epochs see it too.

        In every epoch, those of a class are the start of another permutation of its samples in the bank.
        """
        self._epoch.fill_(operator.index(epoch))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self.real):
            return self.__getitems__([index])[0]
        item = self.real[index]
        return add_source(item, False) if self.return_source else item

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items at `indices`: synthetic images read at once, real items too where `real` can do that."""
        numbers = _check_indices(indices, len(self))
        synthetic = numbers >= len(self.real)
        if not len(numbers):
            return []
        items = fetch(self.real, numbers[~synthetic])
        items += self._make(numbers[synthetic] - len(self.real))
        if self.return_source:
            split = len(numbers) - int(synthetic.sum())
            items = [add_source(item, place >= split) for place, item in enumerate(items)]
        order = np.argsort(np.argsort(synthetic, kind="stable"), kind="stable")  # real ones stand first in `items`
        return [items[place] for place in order.tolist()]

    def _make(self, numbers: NDArray[np.int64]) -> list[Any]:
        """Return the synthetic items with these numbers, counted from 0."""
        if self._bank is None or not len(numbers):
            return []
        images = self._bank.images(self._epoch_rows(self._bank)[torch.from_numpy(numbers)])
        self._follow()
        return self._pipeline.make(images, self._synthetic[numbers])

    def _follow(self) -> None:
        """Take over transforms that were set on real, or in it, since it was described."""
        if self._read_settings() == self._set:
            return
        pipeline = _with_transform(describe_leaves(self._leaves, self._keys), self._own_transform)
        if self._bank is not None:
            check_fit(pipeline.image, self._bank.spec, transformed=pipeline.call != "none")
        self._pipeline, self._set = pipeline, self._read_settings()

    def _read_settings(self) -> list[Any]:
        return [getattr(leaf, name) for leaf, name in self._settings]

    def _epoch_rows(self, bank: SampleBank) -> Tensor:
        epoch = int(self._epoch)
        if self._rows is None or self._rows[0] != epoch:
            self._rows = epoch, choose_rows(bank, self._wanted, seed=self._seed, keys=("mixing", epoch))
        return self._rows[1]


def _check_indices(indices: Sequence[int], length: int) -> NDArray[np.int64]:
    """Return indices as int64 numbers from 0 on; negative ones count from the end."""
    numbers = np.array(list(map(operator.index, indices)), dtype=np.int64)
    if len(numbers) and not (numbers.min() >= -length and numbers.max() < length):
        raise IndexError(f"indices must be from {-length} to {length - 1}, got {shorten(numbers.tolist())}")
    return np.where(numbers < 0, numbers + length, numbers)


def _with_transform(pipeline: Pipeline, transform: Callable[[Any], Any] | None) -> Pipeline:
    if transform is None:
        return pipeline
    if pipeline.call != "none":
        raise DataError(
            "transform must not be given where real has its own, which is applied to synthetic samples too; "
            "leave it out, or take the one of real away"
        )
    whole_numbers = {"pil": None, "tensor": torch.uint8, "array": np.uint8}
    image: ImageKind = replace(pipeline.image, dtype=whole_numbers[pipeline.image.family])
    return replace(pipeline, image=image, call="image", transform=transform)
