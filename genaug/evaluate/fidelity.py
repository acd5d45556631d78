"""How close samples and reconstructions are to held-out real images, as a network sees them."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.drawing import known_classes, name_source
from genaug.data import LabeledImages
from genaug.errors import DataError, DataWarning, shorten
from genaug.evaluate.drawing import (
    LEAST,
    check_fit,
    choose_labels,
    draw_samples,
    keep_shares,
    match_rows,
    reconstruction_errors,
)
from genaug.evaluate.figures import LEAST_FOR_KID, NEIGHBORS, ClassFidelity, ClassMean, Distance, FidelityResult
from genaug.features import (
    STEPS,
    ClassifierFeatures,
    FeatureExtractor,
    find_features,
    fit_features,
)
from genaug.features.extractor import describe_features
from genaug.metrics import (
    ManifoldScores,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    recall_per_class,
    score_predictions,
)
from genaug.progress import progress_bar
from genaug.seeding import check_seed, derive_seed

CHUNK = 512  # images between two moves of the progress bar


def measure_fidelity(
    source: Any,
    *,
    train: LabeledImages,
    test: LabeledImages,
    seed: int = 0,
    samples: int | None = None,
    classifier_steps: int = STEPS,
    device: str | torch.device | None = None,
    features: str | FeatureExtractor | None = None,
    accuracy_score: bool = True,
    progress: bool = False,
) -> FidelityResult:
    """Measure samples and reconstructions of `source` against held-out real images.

    FID and KID (`genaug.metrics.fidelity`), precision, recall, density and coverage (`genaug.metrics.manifold`) are
    taken in one kind of features:

    - "classifier", those of a small one that is trained on `train` (`genaug.features.fit_features`). They compare only
      with figures in the same features: of training images, which stand beside them, and of other sources with the
      same `train`, `test`, `seed` and number of samples. The classifier learned these very training images, so where
      they are few, other real images would come nearer to the held-out ones than they do;
    - "inception", those that FID is defined by, for figures as others publish them. It needs the extra `fid`, and
      about a minute for a thousand images on a CPU core;
    - "torchmetrics", those of the same network as torchmetrics downloads and applies it.

    Samples have the classes of `test`, in the same shares, which puts the KID of perfect samples a little below 0. For
    a class FID is given where more held-out images and samples than features are there, KID from 10 on. Of a bank each
    sample is taken once; where it has too few, fewer are compared, and a `DataWarning` says so. Training images are
    taken once too: where a class has fewer than samples, there is no FID of theirs, and no precision to coverage.

    The classification accuracy score tells what samples alone teach (Ravuri & Vinyals 2019, "Classification Accuracy
    Score for Conditional Generative Models"): the classifier, trained anew in the same way on as many samples of each
    class as `train` has images of it, all in memory, is tested on the held-out images.

    Args:
        source: a model or a bank: has `spec` and `sample(labels, *, generator)`. Reconstructions need `encode` and
            `decode`, and `model_scores` needs `measure`.
        train: the real images that the source was made from.
        test: held-out real images, which neither the source nor choices between sources have seen.
        seed: of everything that is drawn.
        samples: how many to draw; by default as many as `test` has images, at most 10,000.
        classifier_steps: training steps of the classifier.
        device: where to run the networks; a GPU if there is one, else the CPU. The source stays where it is.
        features: "classifier" (the default), "inception", "torchmetrics", or an extractor, such as a classifier fitted
            before, to measure several sources in the same features.
        accuracy_score: take the classification accuracy score too.
        progress: show progress bars.

    Raises:
        DataError: train, test, source and features of different formats or classes, parts that share images, or a
            source that cannot sample.
        CheckpointError: a network whose weights are missing, or not the known ones.
        GenaugError: fewer than 4 samples or held-out images, a number of steps below 1, or unknown features.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> train, test = load_data("digits"), load_data("digits", split="test")
    >>> result = measure_fidelity(genaug.load("digits-vae"), train=train, test=test, classifier_steps=2, device="cpu")
    >>> len(result.classes), result.images["samples"]
    (10, 599)
    """
    check_fit(source, train=train, test=test, name="test")
    pairs = zip(test.classes, train.counts, test.counts, strict=True)
    if missing := [name for name, count, wanted in pairs if wanted and not count]:
        raise DataError(
            f"train must hold images of every class of test, got none of {shorten(missing)}; leave these out of test"
        )
    wanted = choose_labels(test, samples=samples, seed=seed)
    labels, rows = _find_rows(source, wanted, seed=seed)
    even = keep_shares(labels, wanted)
    taught = _find_rows(source, train.labels, seed=seed) if accuracy_score else None
    _warn_of_few(test.spec.class_names, labels, wanted, compared=int(even.sum()))
    if taught is not None and len(taught[0]) < len(train):
        warnings.warn(
            "source has fewer samples than there are training images: the accuracy score is that of a classifier "
            f"trained on {len(taught[0])}, which does not compare with one trained on {len(train)} images, or samples "
            "of a model",
            DataWarning,
            stacklevel=2,
        )
    network = find_features(features, test, name="test", device=device)
    if isinstance(network, ClassifierFeatures):
        classifier = network
    else:
        classifier = fit_features(train, seed=seed, steps=classifier_steps, device=device, progress=progress)
        network = network or classifier
    compared = match_rows(train.labels, labels, seed=seed)
    kinds = train.labels[compared]
    same = keep_shares(kinds, labels[even])
    shown = progress and network is not classifier
    held_out, expected = _look_at(_chunks(test.images, name="held-out images", progress=shown), network, classifier)
    drawn = draw_samples(source, labels, seed=seed, progress=progress, rows=rows)
    synthetic, found = _look_at(drawn, network, classifier)
    chunks = _chunks(train.images[compared], name="training images", progress=shown)
    training = torch.cat([network.extract(chunk) for chunk in chunks])
    learned = None if taught is None else _learn_from_samples(source, *taught, train, test, classifier, seed, progress)
    errors = reconstruction_errors(source, test)
    measure = getattr(source, "measure", None)
    num_classes = test.spec.num_classes
    recalls = [recall_per_class(*pair, num_classes=num_classes) for pair in ((labels, found), (test.labels, expected))]
    classes = []
    for index, name in enumerate(test.spec.class_names):
        own, real = labels == index, test.labels == index
        classes.append(
            ClassFidelity(
                name=name,
                held_out=int(real.sum()),
                samples=int(own.sum()),
                sample_distance=_measure_class(held_out[real], synthetic[own], seed),
                training_distance=_measure_class(held_out[real], training[kinds == index], seed, beside=int(own.sum())),
                sample_recall=_plain(recalls[0][index]),
                held_out_recall=_plain(recalls[1][index]),
                reconstruction_mse=None if errors is None else _plain(errors[real].mean()),
            )
        )
    return FidelityResult(
        source=name_source(source),
        seed=check_seed(seed),
        images={
            "training": len(train),
            "held_out": len(test),
            "samples": int(even.sum()),
            "training_compared": int(same.sum()),
        },
        features=describe_features(network),
        classifier=describe_features(classifier),
        sample_distance=_measure_all(held_out, synthetic[even], seed),
        training_distance=_measure_all(held_out, training[same], seed, beside=int(even.sum())),
        sample_manifold=_measure_manifold(held_out, synthetic[even]),
        training_manifold=_measure_manifold(held_out, training[same], beside=int(even.sum())),
        intra_class_fid=_mean_of_classes(classes, "fid"),
        intra_class_kid=_mean_of_classes(classes, "kid"),
        held_out_scores=score_predictions(test.labels, expected, num_classes=num_classes),
        sample_scores=score_predictions(labels[even], found[even], num_classes=num_classes),
        accuracy_score=learned,
        reconstruction_mse=None if errors is None else float(errors.mean()),
        model_scores=dict(measure(test.images, test.labels)) if callable(measure) else {},
        classes=tuple(classes),
    )


def _chunks(images: Tensor, *, name: str, progress: bool) -> Iterator[Tensor]:
    with progress_bar(name, total=len(images), enabled=progress) as update:
        for chunk in images.split(CHUNK):
            yield chunk
            update(len(chunk))


def _look_at(
    chunks: Iterable[Tensor], network: FeatureExtractor, classifier: ClassifierFeatures
) -> tuple[Tensor, Tensor]:
    """Return the features (N, F) of images, and the classes (N,) that the classifier finds them in."""
    features, seen = [], []
    for chunk in chunks:
        seen.append(classifier.extract(chunk))
        features.append(seen[-1] if network is classifier else network.extract(chunk))
    return torch.cat(features), classifier.classify(torch.cat(seen))


def _find_rows(source: Any, wanted: Tensor, *, seed: int) -> tuple[Tensor, Tensor | None]:
    """Return the labels of samples, and their rows where they are those of a bank: none twice, fewer where it has few.

    Raises:
        DataError: a source without samples of a class.
    """
    missing = sorted(set(wanted.tolist()).difference(known_classes(source)))
    if missing:
        names = [source.spec.class_names[label] for label in missing]
        raise DataError(f"source must have samples of every class that is measured, got none of {shorten(names)}")
    if not isinstance(source, SampleBank):
        return wanted, None
    rows = match_rows(source.labels, wanted, seed=seed)
    return source.labels[rows], rows


def _warn_of_few(names: Sequence[str], labels: Tensor, wanted: Tensor, *, compared: int) -> None:
    have, want = (found.bincount(minlength=len(names)).tolist() for found in (labels, wanted))
    few = [f"{name}: {n} of {count}" for name, n, count in zip(names, have, want, strict=True) if n < count]
    if few:
        warnings.warn(
            f"source has fewer samples than the held-out images ask for ({shorten(few)}): over all classes, in their "
            f"shares, {compared} of {len(wanted)} are compared",
            DataWarning,
            stacklevel=3,
        )


def _learn_from_samples(
    source: Any,
    labels: Tensor,
    rows: Tensor | None,
    train: LabeledImages,
    test: LabeledImages,
    like: ClassifierFeatures,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    own_seed = derive_seed(seed, "accuracy score")
    drawn = draw_samples(source, labels, seed=own_seed, progress=progress, rows=rows)
    samples = LabeledImages(torch.cat(list(drawn)), labels, train.spec)
    steps, device = like.settings.get("steps", STEPS), next(like.net.parameters()).device
    student = fit_features(samples, seed=seed, steps=steps, device=device, progress=progress)
    return {**student.score(test), "training_samples": len(samples), "training_images": len(train)}


def _measure_all(real: Tensor, other: Tensor, seed: int, *, beside: int = 0) -> Distance:
    """Return the distances of all images; a FID depends on their number, so none of fewer than those `beside`."""
    if len(other) < LEAST:
        return Distance(None, None, None)
    kid, kid_std = kernel_distance(real, other, seed=seed)
    return Distance(frechet_distance(real, other) if len(other) >= beside else None, kid, kid_std)


def _measure_class(real: Tensor, other: Tensor, seed: int, *, beside: int = 0) -> Distance:
    least = min(len(real), len(other))
    fid = frechet_distance(real, other) if least > real.shape[1] and len(other) >= beside else None
    kid, kid_std = kernel_distance(real, other, seed=seed) if least >= LEAST_FOR_KID else (None, None)
    return Distance(fid, kid, kid_std)


def _measure_manifold(real: Tensor, other: Tensor, *, beside: int = 0) -> ManifoldScores | None:
    if min(len(real), len(other)) <= NEIGHBORS or len(other) < beside:
        return None
    return manifold_scores(real, other, k=NEIGHBORS)


def _mean_of_classes(classes: Sequence[ClassFidelity], figure: str) -> ClassMean:
    pairs = [[getattr(one.sample_distance, figure), getattr(one.training_distance, figure)] for one in classes]
    known = [pair for pair in pairs if None not in pair]
    samples, training = (fmean(column) for column in zip(*known, strict=True)) if known else (None, None)
    return ClassMean(samples=samples, training=training, classes=len(known))


def _plain(value: Tensor) -> float | None:
    """Return a number, or None for NaN, which JSON has not."""
    number = float(value)
    return None if number != number else number
