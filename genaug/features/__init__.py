"""What images are compared in: the features of a classifier of the real ones, or of FID's Inception network."""

from genaug.features.choice import find_features
from genaug.features.classifier import STEPS, ClassifierFeatures, fit_features
from genaug.features.extractor import FeatureExtractor
from genaug.features.inception import InceptionFeatures, load_inception
from genaug.features.published import TorchmetricsFeatures, load_torchmetrics

__all__ = [
    "STEPS",
    "ClassifierFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "TorchmetricsFeatures",
    "find_features",
    "fit_features",
    "load_inception",
    "load_torchmetrics",
]
