"""Labeled images: in memory, from folders and other libraries, and parts of them."""

from genaug.data.labeled import LabeledImages
from genaug.data.mapstyle import from_dataset
from genaug.data.sources import load_data, load_images
from genaug.data.splits import limit_indices, longtail_counts, longtail_indices, stratified_split

__all__ = [
    "LabeledImages",
    "from_dataset",
    "limit_indices",
    "load_data",
    "load_images",
    "longtail_counts",
    "longtail_indices",
    "stratified_split",
]
