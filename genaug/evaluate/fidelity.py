"""How close samples and reconstructions are to held-out real images, as a classifier of the real ones sees them."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import check_source
from genaug.data import LabeledImages
from genaug.errors import DataError, shorten
from genaug.evaluate.comparison import check_parts
from genaug.evaluate.drawing import choose_labels, draw_samples, match_rows, reconstruction_errors
from genaug.features import STEPS, ClassifierFeatures, fit_features
from genaug.metrics import recall_per_class, score_predictions
from genaug.metrics.fidelity import frechet_distance, kernel_distance
from genaug.seeding import check_seed

LEAST_FOR_KID = 10


@dataclass(frozen=True)
class Distance:
    """How far a set of images is from the held-out ones: FID, and KID with its deviation over subsets.

    A figure is None where there are too few images for it.
    """

    fid: float | None
    kid: float | None
    kid_std: float | None


@dataclass(frozen=True)
class ClassFidelity:
    """What was measured of one class.

    Args:
        name: the class.
        held_out: number of its held-out images.
        samples: number of its samples, and of its training images beside them.
        sample_distance: of its samples.
        training_distance: of its training images.
        sample_recall: share of its samples that the classifier finds in it; None without samples.
        held_out_recall: the same of its held-out images.
        reconstruction_mse: mean squared error of reconstructions of its held-out images, on the [0, 1] scale.
    """

    name: str
    held_out: int
    samples: int
    sample_distance: Distance
    training_distance: Distance
    sample_recall: float | None
    held_out_recall: float | None
    reconstruction_mse: float | None


@dataclass(frozen=True)
class FidelityResult:
    """What `measure_fidelity` found.

    Args:
        source: family of the model, or kind of the source.
        seed: of samples, classifier and subsets.
        images: how many of each kind there were. "training_compared" is the number of different training images that
            stand beside the samples: a class with fewer training images than samples repeats them.
        features: what distances were taken in: name, number of features F, and how the classifier was trained.
        sample_distance: of the samples to the held-out images.
        training_distance: of as many training images, with the same labels: about what perfect samples would get.
        held_out_scores: accuracy of the classifier on the held-out images, as `score_predictions` returns it.
        sample_scores: the same of the samples, with the classes that were asked for.
        reconstruction_mse: mean over the held-out images, on the [0, 1] scale; None where the source cannot encode.
        model_scores: what the model's `measure` gives on the held-out images, such as the lower bound.
        classes: the figures of each class.
    """

    source: str
    seed: int
    images: dict[str, int]
    features: dict[str, Any]
    sample_distance: Distance
    training_distance: Distance
    held_out_scores: dict[str, Any]
    sample_scores: dict[str, Any]
    reconstruction_mse: float | None
    model_scores: dict[str, Any]
    classes: tuple[ClassFidelity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold, and from how many images on a class has figures."""
        least = {"fid": self.features["num_features"] + 1, "kid": LEAST_FOR_KID}
        return {**asdict(self), "classes": [asdict(one) for one in self.classes], "least_images_of_a_class": least}


def measure_fidelity(
    source: Any,
    *,
    train: LabeledImages,
    test: LabeledImages,
    seed: int = 0,
    samples: int | None = None,
    classifier_steps: int = STEPS,
    device: str | torch.device | None = None,
    features: ClassifierFeatures | None = None,
    progress: bool = False,
) -> FidelityResult:
    """Measure samples and reconstructions of `source` against held-out real images.

    FID and KID (`genaug.metrics.fidelity`) are taken in the features of a classifier trained on `train`
    (`genaug.features.fit_features`), so they compare only with figures in the same features: those of training images,
    which stand beside them, and those of other sources with the same `train`, `test`, `seed` and number of samples.
    Samples have the classes of `test`, in the same shares, which puts the KID of perfect samples a little below 0. For
    a class FID is given where more held-out images and samples than features are there, KID from 10 on.

    Args:
        source: a model or a bank: has `spec` and `sample(labels, *, generator)`. Reconstructions need `encode` and
            `decode`, and `model_scores` needs `measure`.
        train: the real images that the source was made from.
        test: held-out real images, which neither the source nor choices between sources have seen.
        seed: of everything that is drawn.
        samples: how many to draw; by default as many as `test` has images, at most 10,000.
        classifier_steps: training steps of the classifier.
        device: where to run the classifier; a GPU if there is one, else the CPU. The source stays where it is.
        features: a classifier fitted before, to measure several sources in the same features.
        progress: show progress bars.

    Raises:
        DataError: train, test, source and features of different formats or classes, parts that share images, or a
            source that cannot sample.
        GenaugError: fewer than 4 samples or held-out images, or a number of steps below 1.

    >>> import genaug
    >>> from genaug.data import load_data
    >>> train, test = load_data("digits"), load_data("digits", split="test")
    >>> result = measure_fidelity(genaug.load("digits-vae"), train=train, test=test, classifier_steps=2, device="cpu")
    >>> len(result.classes), result.images["samples"]
    (10, 599)
    """
    _check_formats(source, train, test, features)
    labels = choose_labels(test, samples=samples, seed=seed)
    if features is None:
        features = fit_features(train, seed=seed, steps=classifier_steps, device=device, progress=progress)
    compared, places = match_rows(train.labels, labels, seed=seed).unique(return_inverse=True)
    held_out = features.extract(test.images)
    drawn = [features.extract(chunk) for chunk in draw_samples(source, labels, seed=seed, progress=progress)]
    synthetic, training = torch.cat(drawn), features.extract(train.images[compared])[places]
    errors = reconstruction_errors(source, test)
    measure = getattr(source, "measure", None)
    num_classes = test.spec.num_classes
    found, expected = features.classify(synthetic), features.classify(held_out)
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
                training_distance=_measure_class(held_out[real], training[own], seed),
                sample_recall=_plain(recalls[0][index]),
                held_out_recall=_plain(recalls[1][index]),
                reconstruction_mse=None if errors is None else _plain(errors[real].mean()),
            )
        )
    return FidelityResult(
        source=str(getattr(source, "family", None) or type(source).__name__),
        seed=check_seed(seed),
        images={
            "training": len(train),
            "held_out": len(test),
            "samples": len(labels),
            "training_compared": len(compared),
        },
        features={"name": features.name, "num_features": features.num_features, **features.settings},
        sample_distance=_measure_all(held_out, synthetic, seed),
        training_distance=_measure_all(held_out, training, seed),
        held_out_scores=score_predictions(test.labels, expected, num_classes=num_classes),
        sample_scores=score_predictions(labels, found, num_classes=num_classes),
        reconstruction_mse=None if errors is None else float(errors.mean()),
        model_scores=dict(measure(test.images, test.labels)) if callable(measure) else {},
        classes=tuple(classes),
    )


def _check_formats(source: Any, train: LabeledImages, test: LabeledImages, features: ClassifierFeatures | None) -> None:
    spec = check_source(source)
    check_parts(train, test)
    pairs = zip(test.classes, train.counts, test.counts, strict=True)
    if missing := [name for name, count, wanted in pairs if wanted and not count]:
        raise DataError(
            f"train must hold images of every class of test, got none of {shorten(missing)}; leave these out of test"
        )
    sides = [(mine, theirs) for mine, theirs in ((spec.height, test.spec.height), (spec.width, test.spec.width))]
    if spec.channels != test.spec.channels or any(mine not in (None, theirs) for mine, theirs in sides):
        raise DataError(
            f"source and test must have images of one size, got {spec.size} and {test.spec.size}; load the data with "
            "the model's size (resize, --resize; grayscale, --grayscale)"
        )
    if spec.class_names != test.spec.class_names:
        raise DataError(
            f"source and test must have the same classes in the same order, got {shorten(list(spec.class_names))} and "
            f"{shorten(list(test.spec.class_names))}; take the data that the model was trained on"
        )
    if features is not None and features.spec != test.spec:
        raise DataError(f"features must be of the images in test, got {features.spec} and {test.spec}; fit them anew")


def _measure_all(real: Tensor, other: Tensor, seed: int) -> Distance:
    kid, kid_std = kernel_distance(real, other, seed=seed)
    return Distance(frechet_distance(real, other), kid, kid_std)


def _measure_class(real: Tensor, other: Tensor, seed: int) -> Distance:
    least = min(len(real), len(other))
    fid = frechet_distance(real, other) if least > real.shape[1] else None
    kid, kid_std = kernel_distance(real, other, seed=seed) if least >= LEAST_FOR_KID else (None, None)
    return Distance(fid, kid, kid_std)


def _plain(value: Tensor) -> float | None:
    """Return a number, or None for NaN, which JSON has not."""
    number = float(value)
    return None if number != number else number
