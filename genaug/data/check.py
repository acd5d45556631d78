"""What to know about labeled images before a model learns from them."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace

from torch import Tensor

from genaug.data.labeled import CHUNK, LabeledImages
from genaug.errors import DataError, shorten

SCARCE = 2  # a class of fewer images has no variation to learn


@dataclass(frozen=True)
class DataCheck:
    """What `check_data` found: facts, and `warnings` that each say what to do."""

    size: str
    counts: dict[str, int]
    value_range: tuple[int, int]
    constant: int
    repeated: int
    conflicting: int
    warnings: tuple[str, ...] = ()


def check_data(data: LabeledImages) -> DataCheck:
    """Count what is in `data` and look for exact duplicates, conflicting labels, scarce classes and blank images.

    Args:
        data: the images to train on.

    Returns:
        counts by class name; lowest and highest pixel value; images of one value only; images that repeat an earlier
        one; images that stand under several classes.

    Raises:
        DataError: no images, or several that are all the same.

    >>> import torch
    >>> from genaug.spec import DataSpec
    >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    >>> images[3, 0, 0, 0] = 255
    >>> data = LabeledImages(images, torch.tensor([0, 0, 1, 1]), DataSpec(1, 8, 8, ("a", "b")))
    >>> check = check_data(data)
    >>> check.repeated, check.conflicting, check.constant
    (2, 3, 3)
    """
    if not len(data):
        raise DataError("data must hold at least one image, got none")
    places: dict[bytes, list[int]] = defaultdict(list)
    for row, content in enumerate(hash_images(data)):
        places[content].append(row)
    targets = data.targets
    if len(places) == 1 < len(data):
        raise DataError(f"data must hold different images, got {len(data)} times the same; look how they are read")
    classes = {key: {targets[row] for row in rows} for key, rows in places.items()}
    conflicting = [key for key, found in classes.items() if len(found) > 1]
    lowest, highest = data.images.amin((1, 2, 3)), data.images.amax((1, 2, 3))
    counts = dict(zip(data.classes, data.counts, strict=True))
    check = DataCheck(
        size=data.spec.size,
        counts=counts,
        value_range=(int(lowest.min()), int(highest.max())),
        constant=int((lowest == highest).sum()),
        repeated=len(data) - len(places),
        conflicting=sum(len(places[key]) for key in conflicting),
    )
    example = sorted(classes[conflicting[0]]) if conflicting else []
    return _with_warnings(check, [data.classes[index] for index in example])


def hash_images(data: LabeledImages) -> list[bytes]:
    """Return the SHA-256 of the pixels of each image, by which equal ones are found."""
    return [hash_image(image) for part in data.images.split(CHUNK) for image in part]


def hash_image(image: Tensor) -> bytes:
    """Return the SHA-256 of the pixels of an image (C, H, W)."""
    return hashlib.sha256(image.cpu().numpy().tobytes()).digest()


def _with_warnings(check: DataCheck, conflict: list[str]) -> DataCheck:
    empty = [name for name, count in check.counts.items() if count == 0]
    scarce = [name for name, count in check.counts.items() if 0 < count < SCARCE]
    findings = {
        f"no images of {shorten(empty)}: samples of it will look like all classes; leave it out": len(empty),
        f"one image only of {shorten(scarce)}: samples can only repeat it; collect more, or leave it out": len(scarce),
        f"{check.conflicting} images with the same pixels stand under several classes, such as {shorten(conflict)}: "
        "decide for one, or remove them": check.conflicting,
        f"{check.repeated} images repeat another one: remove them before you split off a test part": check.repeated,
        f"{check.constant} images have one value only: look at them, they may be damaged": check.constant,
        "all values are 0 or 1 of 255: the images may have been scaled twice; look how they are stored": (
            check.value_range[1] <= 1
        ),
    }
    return replace(check, warnings=tuple(message for message, found in findings.items() if found))
