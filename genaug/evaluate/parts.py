"""Whether a training part and a held-out part can be compared on."""

import warnings

from genaug.data import LabeledImages
from genaug.data.check import hash_images
from genaug.errors import DataError, DataWarning, shorten


def check_parts(train: LabeledImages, test: LabeledImages) -> None:
    """Raise a `DataError` unless both parts hold images, of one format and the same classes, and share none."""
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise DataError(f"{name} must hold at least one image, got none")
    if train.spec != test.spec:
        raise DataError(f"train and test must have one format and the same classes, got {train.spec} and {test.spec}")
    shared = find_shared(train, test)
    if shared:
        raise DataError(
            f"train and test must not share images, got {len(shared)} shared, images {shorten(shared)} of train; "
            "remove them from train"
        )


def check_classes(train: LabeledImages, test: LabeledImages) -> None:
    """Raise a `DataError` unless both parts hold images of at least two classes, for a classifier to tell apart.

    A class that only one of them has images of is told in a `DataWarning`.
    """
    for name, part in (("train", train), ("test", test)):
        found = [label for label, count in zip(part.classes, part.counts, strict=True) if count]
        if len(found) < 2:
            raise DataError(
                f"{name} must hold images of at least two classes, got {shorten(found)} alone; load them with their "
                "classes (label_column, --label-column)"
            )
    for there, part, name, meaning in (
        (train, test, "test", "nothing is measured of it"),
        (test, train, "train", "no arm learns it, and the test holds it"),
    ):
        without = find_missing(there, part)
        if without:
            warnings.warn(f"{name} holds no images of {shorten(without)}: {meaning}", DataWarning, stacklevel=3)


def find_missing(there: LabeledImages, part: LabeledImages) -> list[str]:
    """Return the classes that have images in `there` and none in `part`."""
    counts = zip(there.classes, there.counts, part.counts, strict=True)
    return [name for name, count, others in counts if count and not others]


def find_shared(train: LabeledImages, test: LabeledImages) -> list[int]:
    """Return the rows of `train` whose pixels are those of an image of `test`, whatever their classes."""
    known = set(hash_images(test))
    return [row for row, digest in enumerate(hash_images(train)) if digest in known]
