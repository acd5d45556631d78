"""What a source draws and reconstructs, to be measured beside real images of the same classes."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import check_source, take_samples
from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, check_count, shorten
from genaug.evaluate.parts import check_parts
from genaug.images import to_float
from genaug.progress import progress_bar
from genaug.seeding import make_generator

LEAST = 4  # images on each side of a distance
MAX_SAMPLES = 10_000
CHUNK = 500  # images drawn at once; fixed, since a model's samples depend on the size of the batch


def check_fit(source: Any, *, train: LabeledImages, test: LabeledImages, name: str) -> None:
    """Raise a `DataError` unless both parts and the samples of `source` are of one format and the same classes.

    The parts must hold images, and share none; errors call them `name` where the source does not fit them.
    """
    spec = check_source(source)
    check_parts(train, test)
    sides = [(mine, theirs) for mine, theirs in ((spec.height, test.spec.height), (spec.width, test.spec.width))]
    if spec.channels != test.spec.channels or any(mine not in (None, theirs) for mine, theirs in sides):
        raise DataError(
            f"source and {name} must have images of one size, got {spec.size} and {test.spec.size}; load the data with "
            "the model's size (resize, --resize; grayscale, --grayscale)"
        )
    if spec.class_names != test.spec.class_names:
        raise DataError(
            f"source and {name} must have the same classes in the same order, got {shorten(list(spec.class_names))} "
            f"and {shorten(list(test.spec.class_names))}; take the data that the source was made from"
        )


def choose_labels(test: LabeledImages, *, samples: int | None, seed: int) -> Tensor:
    """Return the labels (samples,) of samples: those of `test` in shuffled order, over and over.

    Raises:
        GenaugError: fewer than 4 samples or held-out images.
    """
    count = min(len(test), MAX_SAMPLES) if samples is None else samples
    count = check_count(count, name="samples", least=LEAST)
    if len(test) < LEAST:
        raise GenaugError(f"test must hold at least {LEAST} images to measure distances to, got {len(test)}")
    order = torch.randperm(len(test), generator=make_generator(seed, "fidelity labels"))
    return test.labels[order.repeat(-(-count // len(test)))[:count]]


def match_rows(available: Tensor, wanted: Tensor, *, seed: int) -> Tensor:
    """Return a row of `available` labels for each of those `wanted`, none twice: of a class with too few, all it has.

    >>> match_rows(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1, 0]), seed=0)[1:2]
    tensor([0])
    """
    rows = torch.full_like(wanted, -1)
    for label in wanted.unique().tolist():
        places = torch.nonzero(wanted == label).flatten()
        members = torch.nonzero(available == label).flatten()
        order = torch.randperm(len(members), generator=make_generator(seed, "fidelity training images", label))
        rows[places[: len(members)]] = members[order[: len(places)]]
    return rows[rows >= 0]


def keep_shares(labels: Tensor, like: Tensor) -> Tensor:
    """Return a bool mask of the first of each class in `labels` (N,), as many as the shares of classes in `like` allow.

    >>> keep_shares(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 0, 1])).tolist()
    [True, True, False, False]
    """
    wanted = like.bincount().tolist()
    have = labels.bincount(minlength=len(wanted)).tolist()
    share = min([Fraction(1), *(Fraction(n, count) for n, count in zip(have, wanted, strict=False) if count)])
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for label, count in enumerate(wanted):
        kept[torch.nonzero(labels == label).flatten()[: math.floor(share * count)]] = True
    return kept


def draw_samples(
    source: Any, labels: Tensor, *, seed: int, progress: bool, rows: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield samples (n, C, H, W) of `labels` in chunks, as uint8 on the CPU, which is what real images are.

    Of a bank, `rows` names them; else they are drawn.

    Raises:
        DataError: samples of another number, size or range than asked for.
    """
    with progress_bar("samples", total=len(labels), enabled=progress) as update, torch.no_grad():
        for number, chunk in enumerate(labels.split(CHUNK)):
            if rows is not None:
                images = source.images(rows[number * CHUNK :][: len(chunk)])
            else:
                images = source.sample(chunk, generator=make_generator(seed, "fidelity samples", number))
            yield take_samples(source, images, count=len(chunk))
            update(len(chunk))


def can_reconstruct(source: Any) -> bool:
    """Tell whether `source` has `encode` and `decode`."""
    return callable(getattr(source, "encode", None)) and callable(getattr(source, "decode", None))


def reconstruction_errors(source: Any, data: LabeledImages) -> Tensor | None:
    """Return the mean squared error (N,) of the reconstruction of each image, on the [0, 1] scale; on the CPU.

    With its label an image is encoded and decoded again. None where `source` cannot.
    """
    if not can_reconstruct(source):
        return None
    errors = []
    for images, labels in zip(data.images.split(CHUNK), data.labels.split(CHUNK), strict=True):
        made = source.decode(source.encode(images, labels), labels).cpu()
        errors.append((made - to_float(images)).square().flatten(1).mean(1))
    return torch.cat(errors)
