"""Makers: what an arm of a comparison mixes in, made for each repetition from its training part alone.

These are the rivals of generative models, and controls; the models are in `genaug.evaluate.generators`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genaug import __version__
from genaug.bank import SampleBank
from genaug.bank.files import Provenance
from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, check_count, shorten
from genaug.images import to_float, to_uint8
from genaug.seeding import check_seed, derive_seed, make_generator
from genaug.spec import resolve_counts

Draw = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Replay:
    """Copies of real images: what more images of scarce classes do without anything new in them.

    Of each class whole passes over random orders of its images, then a part of another one.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> bank = Replay()(digits, [3] + 9 * [0], seed=0, device=torch.device("cpu"))
    >>> bank.counts[:2], bank.provenance.source
    ([3, 0], 'Replay()')
    """

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return the copies.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing.
        """

        def copy(index: int, count: int) -> Tensor:
            return train.images[pass_over(train, index, count, seed=seed)]

        return gather(self, train, check_counts(counts, train), seed=seed, draw=copy)


@dataclass(frozen=True)
class Smote:
    """SMOTE on pixels (Chawla et al. 2002), as imbalanced-learn computes it: between an image and a near one.

    Each sample is a point, uniform at random, between a random image of a class and one of the nearest of its class,
    rounded to 8 bits. A class of one image gets copies of it.

    Args:
        neighbors: how many near images to choose from; all others in a class that has no more.

    Raises:
        GenaugError: imbalanced-learn is missing, or `neighbors` is below 1.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> Smote(neighbors=3)(digits, [2] + 9 * [0], seed=0, device=torch.device("cpu")).images([0, 1]).shape
    torch.Size([2, 1, 8, 8])
    """

    neighbors: int = 5

    def __post_init__(self) -> None:
        check_neighbors(self.neighbors)

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return the points between images.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing.
        """

        def blend(index: int, count: int) -> Tensor:
            images = to_float(train.images[rows_of(train, index)].cpu())
            own = derive_seed(seed, "smote", index)
            points = interpolate(images.flatten(1).numpy(), count, neighbors=self.neighbors, seed=own)
            return to_uint8(torch.from_numpy(points).unflatten(1, images.shape[1:]))

        return gather(self, train, check_counts(counts, train), seed=seed, draw=blend)


@dataclass(frozen=True)
class Reserve:
    """More real images, held back for this: what a perfect generator would be worth.

    Of each class as many as are wanted, at random, none twice. It alone looks at other images than the training part.

    Args:
        images: the images in reserve, of which neither the training part nor the test part may hold any.

    >>> from genaug.data import load_data
    >>> digits, reserve = load_data("digits"), Reserve(load_data("digits", split="test"))
    >>> reserve(digits, [3] + 9 * [0], seed=0, device=torch.device("cpu")).counts[:2]
    [3, 0]
    """

    images: LabeledImages

    def __repr__(self) -> str:
        return f"Reserve({len(self.images)} images, sha256 {self.images.fingerprint()[:12]})"

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return images of the reserve.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing; a reserve of other images or classes, or with
                too few images of one.
        """
        if self.images.spec != train.spec:
            raise DataError(f"images must be of the format and classes of train, got {self.images.spec}, {train.spec}")

        def take(index: int, count: int) -> Tensor:
            there = self.images.counts[index]
            if there < count:
                raise DataError(
                    f"images must hold the {count} wanted of class {train.classes[index]!r}, got {there}; hold more in "
                    "reserve, or lower target, cap or every of the arm"
                )
            return self.images.images[pass_over(self.images, index, count, seed=seed)]

        return gather(self, train, check_counts(counts, train, known=False), seed=seed, draw=take)


@dataclass(frozen=True)
class Noise:
    """Random pixels under the labels that are wanted: what samples without any sense do.

    >>> from genaug.data import load_data
    >>> Noise()(load_data("digits"), 10 * [2], seed=0, device=torch.device("cpu")).images([0]).shape
    torch.Size([1, 1, 8, 8])
    """

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return uniform random images.

        Raises:
            DataError: counts that do not fit the classes, or ask for nothing.
        """

        def draw(index: int, count: int) -> Tensor:
            shape = (count, *train.images.shape[1:])
            generator = make_generator(seed, "random pixels", index)
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

        return gather(self, train, check_counts(counts, train, known=False), seed=seed, draw=draw)


def gather(maker: Any, train: LabeledImages, counts: Sequence[int], *, seed: int, draw: Draw) -> SampleBank:
    """Return a bank in memory of what `draw` gives of each class of which samples are wanted.

    Args:
        maker: whose `repr` the bank names as its source.
        train: whose format and classes the samples have.
        counts: samples of each class, as `check_counts` returns them.
        seed: that the samples come from.
        draw: called with class index and number n, it returns uint8 images (n, C, H, W).
    """
    height, width = train.images.shape[2:]
    provenance = Provenance(
        spec=replace(train.spec, height=height, width=width),
        source=repr(maker),
        source_sha256=None,
        seed=check_seed(seed),
        counts=tuple(counts),
        filters=(),
        acceptance=tuple(1.0 if count else None for count in counts),
        versions={"genaug": __version__, "torch": torch.__version__},
    )
    return SampleBank(torch.cat([draw(index, count).cpu() for index, count in enumerate(counts) if count]), provenance)


def check_counts(counts: Sequence[int], train: LabeledImages, *, known: bool = True) -> list[int]:
    """Return the samples wanted of each class as a list of integers.

    Raises:
        DataError: counts that are none of the classes of `train`, or that ask for nothing; where the classes must be
            `known`, for samples of one without images.

    >>> from genaug.data import load_data
    >>> check_counts(10 * [0], load_data("digits"))
    Traceback (most recent call last):
    genaug.errors.DataError: counts must ask for at least one sample, got 0 for every class
    """
    wanted = resolve_counts(list(counts), train.spec)
    if not sum(wanted):
        raise DataError("counts must ask for at least one sample, got 0 for every class")
    pairs = zip(train.classes, wanted, train.counts, strict=True)
    unknown = [name for name, count, there in pairs if known and count and not there]
    if unknown:
        raise DataError(f"counts must be 0 for classes that train has no images of, got more for {shorten(unknown)}")
    return wanted


def rows_of(data: LabeledImages, index: int) -> Tensor:
    """Return the rows (n,) of the images of a class."""
    return torch.nonzero(data.labels == index).flatten().cpu()


def pass_over(data: LabeledImages, index: int, count: int, *, seed: int) -> Tensor:
    """Return `count` rows of images of a class: whole passes over random orders of all, then a part of another one.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> rows = pass_over(digits, 3, 200, seed=0)
    >>> len(rows), len(rows.unique()) == digits.counts[3], digits.labels[rows].unique()
    (200, True, tensor([3]))
    """
    rows, generator = rows_of(data, index), make_generator(seed, "passes", index)
    passes = -(-count // len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(passes)])[:count]


def check_neighbors(neighbors: int) -> None:
    """Check what SMOTE needs before anything is trained.

    Raises:
        GenaugError: imbalanced-learn is missing, or `neighbors` is no integer of at least 1.
    """
    check_count(neighbors, name="neighbors")
    _load_smote()


def interpolate(points: NDArray[np.float32], count: int, *, neighbors: int, seed: int) -> NDArray[np.float32]:
    """Return `count` points (count, D), each between one of `points` (n, D) and one of the nearest to it, by SMOTE.

    Of `neighbors` or fewer points, all others are near; of a single one, its copies are returned.

    Raises:
        GenaugError: imbalanced-learn is missing.

    >>> interpolate(np.array([[0, 0], [1, 1]], dtype=np.float32), 3, neighbors=5, seed=0).shape
    (3, 2)
    """
    if len(points) == 1:
        return points.repeat(count, axis=0)
    smote = _load_smote()(
        sampling_strategy={1: len(points) + count},
        k_neighbors=min(neighbors, len(points) - 1),
        random_state=seed % 2**32,  # NumPy takes no more
    )
    labels = [1] * len(points) + [0]  # the library wants a second class; its points do not count
    grown, _ = smote.fit_resample(np.concatenate([points, points[:1]]), labels)
    added: NDArray[np.float32] = grown[len(labels) :]
    return added


def _load_smote() -> Any:
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError as problem:
        raise GenaugError(
            f"SMOTE needs imbalanced-learn, which cannot be imported ({problem}); "
            "pip install 'genaug[imbalanced-learn]'"
        ) from None
    return SMOTE
