"""Real and synthetic samples in one data set, or in the batches of one loader."""

from genaug.mixing.datasets import MixedDataset, SyntheticDataset
from genaug.mixing.loader import MixedLoader
from genaug.mixing.targets import balance

__all__ = ["MixedDataset", "MixedLoader", "SyntheticDataset", "balance"]
