"""Which features to compare images in, by name."""

from collections.abc import Callable

import torch

from genaug.data import LabeledImages
from genaug.errors import GenaugError, shorten
from genaug.features.classifier import ClassifierFeatures
from genaug.features.extractor import FeatureExtractor
from genaug.features.inception import load_inception
from genaug.features.published import load_torchmetrics

NETWORKS: dict[str, Callable[..., FeatureExtractor]] = {"inception": load_inception, "torchmetrics": load_torchmetrics}


def find_features(
    features: str | FeatureExtractor | None,
    data: LabeledImages,
    *,
    name: str,
    device: str | torch.device | None = None,
) -> FeatureExtractor | None:
    """Return the extractor that is named or given; None where a classifier is to be trained.

    Args:
        features: None or "classifier", "inception", "torchmetrics", or an extractor.
        data: what features are to be taken of; errors call it `name`.
        device: where to run a network that is loaded; a GPU if there is one, else the CPU.

    Raises:
        DataError: a classifier of other images or classes, or images that features cannot be taken of.
        CheckpointError: a network whose weights are missing, or not the known ones.
        GenaugError: unknown features.

    >>> from genaug.data import load_data
    >>> find_features("classifier", load_data("digits"), name="train") is None
    True
    """
    if features is None or features == "classifier":
        return None
    if isinstance(features, ClassifierFeatures):
        features.check_data(data, name=name)
    if isinstance(features, str) and features in NETWORKS:
        features = NETWORKS[features](device=device)
    if isinstance(features, str) or not isinstance(features, FeatureExtractor):
        raise GenaugError(
            "features must be 'classifier', 'inception', 'torchmetrics' or an extractor of features, "
            f"got {shorten(features)}"
        )
    features.extract(data.images[:1])  # images that it cannot take show before anything is trained
    return features
