"""Real and synthetic samples in one data set."""

from genaug.mixing.datasets import MixedDataset, SyntheticDataset
from genaug.mixing.targets import balance

__all__ = ["MixedDataset", "SyntheticDataset", "balance"]
