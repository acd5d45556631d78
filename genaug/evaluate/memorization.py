"""Does a source copy its training images? Distances of samples to them, beside those of held-out images."""

from collections.abc import Sequence
from math import fsum
from typing import Any

import torch

from genaug.bank.drawing import name_source
from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError, shorten
from genaug.evaluate.copies import ClassCopies, CopyAudit, CopyFigures
from genaug.evaluate.drawing import check_fit
from genaug.evaluate.nearest import (
    PIXELS,
    Compared,
    Space,
    choose_rows,
    choose_samples,
    compare,
    make_cells,
    make_spaces,
    read_rows,
    read_samples,
)
from genaug.features import STEPS, FeatureExtractor, find_features, fit_features
from genaug.features.extractor import describe_features
from genaug.filters.copies import QUANTILE
from genaug.metrics.memorization import cell_scores
from genaug.metrics.proportions import Count, excess_interval
from genaug.progress import progress_bar
from genaug.seeding import check_seed


def audit_copies(
    source: Any,
    *,
    train: LabeledImages,
    test: LabeledImages,
    seed: int = 0,
    samples: int | None = None,
    classifier_steps: int = STEPS,
    device: str | torch.device | None = None,
    features: str | FeatureExtractor | None = None,
    progress: bool = False,
) -> CopyAudit:
    """Measure how near samples of `source` come to its training images, beside how near held-out images come to them.

    Distances to the nearest training image, of whatever class, are taken twice: in the features of a classifier trained
    on `train` (`genaug.features.fit_features`), where a copy that is moved a little stays near, and as the root mean
    squared difference of pixels on the [0, 1] scale, since a classifier may map different images to one place. A copy
    that is mirrored, or much darker, is far in both. Samples are near copies where that distance is at most the radius
    of the training image's class: the 1 % quantile of the distances from this class's training images to the nearest
    other one, drawn towards that of all classes where a class has few (as in `genaug.filters.NotACopy`). About that
    share of new real images is as near. The share of the held-out images says how many exactly, and what samples have
    beyond it is copied; see `CopyAudit.verdicts`.

    The C_T test (Meehan, Chaudhuri & Dasgupta 2020; `genaug.metrics.data_copying_test`) compares the same distances of
    samples and held-out images by their ranks. Here its cells lie within classes, since the classes have other shares
    of the samples than of the held-out images: by k-means in the features, one for 200 images of the class. Both spaces
    have the same cells. With few samples or held-out images it can say little.

    All samples are compared with all training images, and so are up to 2,000 training and held-out images of each
    class. Features of all training images stay in memory, (N, F), and their pixels where `train` has them; 12 samples
    and their neighbors are kept. Against 54,000 training images of 28x28 pixels a thousand images take 5 seconds or so
    on one core.

    Args:
        source: a model or a bank: has `spec` and `sample(labels, *, generator)`.
        train: the images that the source was made from, and no others.
        test: held-out real images of the same distribution.
        seed: of everything that is drawn.
        samples: how many of each class; by default 1,000 of a model, and all of a bank. A bank's samples are taken as
            they are, none twice. 400 without a near copy rule out more than 1 %; where 1 % of samples and of held-out
            images are near copies, which is what the radii make of new real images, it takes 1,000 of both.
        classifier_steps: training steps of the classifier.
        device: where to compute; a GPU if there is one, else the CPU. The source stays where it is.
        features: in the place of the classifier another network, or an extractor, as `measure_fidelity` takes them.
        progress: show progress bars.

    Raises:
        DataError: train, test, source and features of different formats or classes, parts that share images, or a
            source that cannot sample, or has classes without training images.
        CheckpointError: a network whose weights are missing, or not the known ones.
        GenaugError: numbers of samples or steps below 1, unknown features, or some that are named "pixels".

    >>> import genaug
    >>> from genaug.data import load_data
    >>> train, test = load_data("digits"), load_data("digits", split="test")
    >>> audit = audit_copies(
    ...     genaug.load("digits-vae"), train=train, test=test, samples=20, classifier_steps=2, device="cpu"
    ... )
    >>> audit.overall.samples, audit.overall.duplicates, audit.spaces
    (200, 0, ['classifier', 'pixels'])
    """
    seed = check_seed(seed)
    if samples is not None and (type(samples) is not int or samples < 1):
        raise GenaugError(f"samples must be an integer of at least 1, the number a class, got {shorten(samples)}")
    if getattr(features, "name", None) == PIXELS:
        raise GenaugError(f"features must have another name than {PIXELS!r}, in which images are compared anyway")
    check_fit(source, train=train, test=test, name="train")
    if len(train) < 2:
        raise DataError(f"train must hold at least two images to compare, got {len(train)}")
    labels, numbers = choose_samples(source, samples=samples, seed=seed)
    counts = labels.bincount(minlength=train.spec.num_classes).tolist()
    present = zip(train.classes, counts, train.counts, strict=True)
    if missing := [name for name, count, own in present if count and not own]:
        raise DataError(
            f"train must hold images of every class that source has samples of, got none of {shorten(missing)}; take "
            "the data that the source was made from"
        )
    where = choose_device(device)
    network = find_features(features, train, name="train", device=where) or fit_features(
        train, seed=seed, steps=classifier_steps, device=where, progress=progress
    )
    chosen, held_out_rows = choose_rows(train, seed=seed), choose_rows(test, seed=seed)
    total = len(chosen) + len(held_out_rows) + len(labels)
    with progress_bar("comparing", total=total, enabled=progress) as update:
        spaces = make_spaces(network, train, chosen=chosen, device=where, update=update)
        limits = [min(each) for each in zip(train.counts, test.counts, counts, strict=True)]
        cells = make_cells(spaces[0].training.rows, train.labels, limits=limits, seed=seed)
        held_out = compare(read_rows(test, held_out_rows), spaces, train, cells, update, held_out=True)
        drawn = compare(read_samples(source, labels, numbers, seed=seed), spaces, train, cells, update)
    classes = {
        index: ClassCopies(
            name=name,
            training=train.counts[index],
            held_out=test.counts[index],
            samples=count,
            duplicates=int((drawn.distances[PIXELS][drawn.labels == index] == 0).sum()),
            figures={space.name: _measure(space, index, held_out, drawn, len(cells[index])) for space in spaces},
        )
        for index, (name, count) in enumerate(zip(train.classes, counts, strict=True))
        if count
    }
    return CopyAudit(
        source=name_source(source),
        seed=seed,
        quantile=QUANTILE,
        images={
            "training": len(train),
            "held_out": len(test),
            "samples": len(labels),
            "training_compared": len(chosen),
            "held_out_compared": len(held_out_rows),
        },
        features=describe_features(network),
        overall=ClassCopies(
            name="all",
            training=len(train),
            held_out=len(test),
            samples=len(labels),
            duplicates=sum(one.duplicates for one in classes.values()),
            figures={space.name: _sum_up(classes, space.name, held_out, drawn) for space in spaces},
        ),
        classes=tuple(classes.values()),
        pairs=tuple(pair for space in spaces for part in (drawn, held_out) for pair in part.pairs[space.name]),
    )


def _measure(space: Space, index: int, held_out: Compared, drawn: Compared, cells: int) -> CopyFigures:
    """Return the figures of the class with this index, of which there are samples."""
    found, expected = (part.count(space.name, index) for part in (drawn, held_out))
    excess, low, high = excess_interval([found], [expected])
    own, other = (part.distances[space.name][part.labels == index] for part in (drawn, held_out))
    places = [part.cells[part.labels == index] for part in (drawn, held_out)]
    scores, weights = cell_scores(other, places[1], own, places[0], cells=cells)
    usual = float(space.training.usual[index])
    return CopyFigures(
        radius=float(space.training.radius[index]),
        near_copies=found[0] / found[1],
        held_out_near_copies=expected[0] / expected[1] if len(other) else None,
        excess=excess,
        excess_low=low,
        excess_high=high,
        distance_ratio=float(own.quantile(0.5)) / usual if usual else None,
        held_out_distance_ratio=float(other.quantile(0.5)) / usual if usual and len(other) else None,
        statistic=_mean(scores, weights),
        worst_cell=min(scores, default=None),
    )


def _sum_up(classes: dict[int, ClassCopies], space: str, held_out: Compared, drawn: Compared) -> CopyFigures:
    """Return the figures of all classes, as means over them."""
    own = [one.figures[space] for one in classes.values()]
    shares = [one.samples / len(drawn.labels) for one in classes.values()]
    found, expected = ([part.count(space, index) for index in classes] for part in (drawn, held_out))
    excess, low, high = _excess_of_all(found, expected, shares, [one.held_out > 0 for one in classes.values()])
    near_copies = sum(near for near, _ in found) / len(drawn.labels)
    return CopyFigures(
        radius=None,
        near_copies=near_copies,
        held_out_near_copies=near_copies - excess,
        excess=excess,
        excess_low=low,
        excess_high=high,
        distance_ratio=_mean([one.distance_ratio for one in own], shares),
        held_out_distance_ratio=_mean([one.held_out_distance_ratio for one in own], shares),
        statistic=_mean([one.statistic for one in own], [float(one.held_out) for one in classes.values()]),
        worst_cell=min((one.worst_cell for one in own if one.worst_cell is not None), default=None),
    )


def _excess_of_all(
    found: list[Count], expected: list[Count], shares: list[float], own: list[bool]
) -> tuple[float, float, float]:
    """Return the excess over all classes, of which those without held-out images (`own`) are compared as one.

    They are compared with the same images, all that are held out, whose chance counts once.
    """
    parts = [part for part, there in zip(zip(found, expected, shares, strict=True), own, strict=True) if there]
    rest = [part for part, there in zip(zip(found, expected, shares, strict=True), own, strict=True) if not there]
    if rest:
        near, count = (sum(one[0][place] for one in rest) for place in (0, 1))
        parts.append(((near, count), rest[0][1], sum(one[2] for one in rest)))
    return excess_interval(
        [part[0] for part in parts], [part[1] for part in parts], weights=[part[2] for part in parts]
    )


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Return the weighted mean of the values that are there, or None."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = fsum(weight for _, weight in known)
    return fsum(value * weight for value, weight in known) / total if total else None
