"""What `measure_fidelity` finds: the figures of all images and of each class, and what they were taken in."""

from dataclasses import asdict, dataclass
from typing import Any

from genaug.metrics import ManifoldScores

LEAST_FOR_KID = 10
NEIGHBORS = 5  # k of precision, recall, density and coverage, as in Naeem et al. 2020


def show(value: float | None, places: int, *, scale: float = 1, unit: str = "") -> str:
    """Return a figure, times `scale`, as text.

    >>> show(0.256, 1, scale=100, unit=" %"), show(None, 1)
    ('25.6 %', '-')
    """
    return "-" if value is None else f"{scale * value:.{places}f}{unit}"


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
        samples: number of its samples, and of its training images beside them where there are as many.
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
class ClassMean:
    """Mean over classes of a figure of each class; None where no class has enough images for it.

    Args:
        samples: of its samples.
        training: of as many of its training images.
        classes: number of classes that the mean is over.
    """

    samples: float | None
    training: float | None
    classes: int


@dataclass(frozen=True)
class FidelityResult:
    """What `measure_fidelity` found.

    Args:
        source: family of the model, or kind of the source.
        seed: of samples, classifier and subsets.
        images: how many of each kind there were. "training_compared" is the number of training images that stand
            beside the samples, in the same shares of classes: fewer where a class has fewer.
        features: what distances were taken in: name, number of features F, and what else they depend on.
        classifier: how the classifier was trained that finds samples in their classes.
        sample_distance: of the samples to the held-out images.
        training_distance: of as many training images, with the same labels: about what perfect samples would get, in
            features that did not learn from them. Of fewer, no FID.
        sample_manifold: precision, recall, density and coverage of the samples, of the 5 nearest neighbors; None with
            fewer than 6 samples or held-out images.
        training_manifold: of as many training images; None of fewer.
        intra_class_fid: mean over the classes that have a FID.
        intra_class_kid: mean over the classes that have a KID.
        held_out_scores: accuracy of the classifier on the held-out images, as `score_predictions` returns it.
        sample_scores: the same of the samples, with the classes that were asked for.
        accuracy_score: of a classifier trained in the same way on samples alone, on the held-out images: the
            classification accuracy score of Ravuri & Vinyals 2019, beside `held_out_scores`. None where left out.
        reconstruction_mse: mean over the held-out images, on the [0, 1] scale; None where the source cannot encode.
        model_scores: what the model's `measure` gives on the held-out images, such as the lower bound.
        classes: the figures of each class.
    """

    source: str
    seed: int
    images: dict[str, int]
    features: dict[str, Any]
    classifier: dict[str, Any]
    sample_distance: Distance
    training_distance: Distance
    sample_manifold: ManifoldScores | None
    training_manifold: ManifoldScores | None
    intra_class_fid: ClassMean
    intra_class_kid: ClassMean
    held_out_scores: dict[str, Any]
    sample_scores: dict[str, Any]
    accuracy_score: dict[str, Any] | None
    reconstruction_mse: float | None
    model_scores: dict[str, Any]
    classes: tuple[ClassFidelity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold, and what each figure was taken in and from.

        Distances and scores of manifolds hold the name of the features and the numbers of images that were compared.
        """
        compared = {
            "features": self.features["name"],
            "images": self.images["samples"],
            "held_out": self.images["held_out"],
        }
        values = {**asdict(self), "classes": [asdict(one) for one in self.classes]}
        for name in ("sample_distance", "training_distance", "intra_class_fid", "intra_class_kid"):
            values[name] |= compared
        for name in ("sample_manifold", "training_manifold"):
            values[name] = values[name] and {**values[name], "neighbors": NEIGHBORS, **compared}
        least = {"fid": self.features["num_features"] + 1, "kid": LEAST_FOR_KID}
        return {**values, "least_images_of_a_class": least}
