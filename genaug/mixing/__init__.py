"""Real and synthetic samples in one data set."""

from genaug.mixing.balance import balance
from genaug.mixing.datasets import MixedDataset, SyntheticDataset

__all__ = ["MixedDataset", "SyntheticDataset", "balance"]
