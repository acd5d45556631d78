"""Data that come with genaug's own dependencies."""

from collections.abc import Callable

import torch

from genaug.data.labeled import LabeledImages
from genaug.data.splits import stratified_split
from genaug.errors import DataError, check_choice
from genaug.spec import DataSpec

SPLITS = ("train", "test", "all")
DIGITS_SEED = 0  # shipped models were trained on this split: another one would put their training images into "test"


def _load_digits(split: str) -> LabeledImages:
    from sklearn.datasets import load_digits

    check_choice(split, SPLITS, name="split", error=DataError)
    arrays = load_digits()
    levels = torch.from_numpy(arrays.images)  # (1797, 8, 8), whole numbers from 0 to 16
    images = levels.mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(arrays.target).long()
    spec = DataSpec(channels=1, height=8, width=8, class_names=tuple(str(digit) for digit in range(10)))
    whole = LabeledImages(images, labels, spec)
    if split == "all":
        return whole
    train, test = stratified_split(labels, fraction=1 / 3, seed=DIGITS_SEED)
    return whole.subset(train if split == "train" else test)


BUILT_IN: dict[str, Callable[[str], LabeledImages]] = {"digits": _load_digits}
