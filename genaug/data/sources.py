"""Where labeled images come from: the built-in digits, image folders, and data sets of other libraries."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from genaug.data.labeled import LabeledImages, from_dataset
from genaug.data.splits import stratified_split
from genaug.data.stacking import ImageStack, check_resize
from genaug.errors import DataError, shorten
from genaug.spec import DataSpec
from genaug.storage import expand

SPLITS = ("train", "test", "all")
SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
DIGITS_SEED = 0  # shipped models were trained on this split: another one would put their training images into "test"


def load_data(data: Any, *, split: str = "train", resize: tuple[int, int] | None = None) -> LabeledImages:
    """Return labeled images from a built-in source, an image folder, or a data set of another library.

    Args:
        data: "digits" (scikit-learn's 1,797 handwritten digits, 1x8x8); the path of a folder with one folder of images
            for each class; a map-style data set, as `from_dataset` takes it; or `LabeledImages`, returned as they are.
        split: "train" (two thirds of the digits), "test" (the other third) or "all". Folders and data sets have no
            parts: they are taken whole, and "test" is refused for them.
        resize: (height, width) to resize to, bilinear and antialiased.

    Raises:
        DataError: an unknown name; a path that is missing or no folder; no class folders, or an empty one; a damaged
            image, named; images of several sizes without `resize`.

    >>> data = load_data("digits", split="test")
    >>> data.spec.size, len(data), data.classes[:3]
    ('1x8x8', 599, ['0', '1', '2'])
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {shorten(split)}")
    resize = None if resize is None else check_resize(resize)
    if isinstance(data, LabeledImages):
        unchanged = resize is None or tuple(data.images.shape[-2:]) == resize
        return data if unchanged else from_dataset(data, resize=resize)
    if isinstance(data, str) and data in BUILT_IN:
        whole = BUILT_IN[data](split)
        return whole if resize is None else from_dataset(whole, resize=resize)
    if split == "test":
        raise DataError(
            f"split 'test' is known for {', '.join(BUILT_IN)} only, got data {shorten(data)}; "
            "pass the test images as data of their own"
        )
    if isinstance(data, (str, os.PathLike)):
        return _load_folder(_find_folder(data), resize)
    return from_dataset(data, resize=resize)


def _load_digits(split: str) -> LabeledImages:
    from sklearn.datasets import load_digits

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


def _find_folder(data: "str | os.PathLike[str]") -> Path:
    folder = expand(data, error=DataError)
    try:
        if folder.is_dir():
            return folder
        exists = folder.exists()
    except OSError as problem:  # too long a name, a part of it that may not be read
        raise DataError(f"data {shorten(os.fspath(data))}: cannot be read as a path ({problem})") from None
    known = f"the built-in data are {', '.join(BUILT_IN)}"
    if exists:
        raise DataError(f"{folder}: data must be a folder with one folder of images for each class, got a file")
    if isinstance(data, str) and data and Path(data).name == data:
        raise DataError(
            f"data must be a folder or a known name, got {shorten(data)}; {known}, and no such folder exists"
        )
    raise DataError(
        f"{folder}: no such folder; data must be a folder with one folder of images for each class; {known}"
    )


def _load_folder(folder: Path, resize: tuple[int, int] | None) -> LabeledImages:
    try:
        names, samples = _list_folder(folder)
    except OSError as problem:
        raise DataError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None
    stack = ImageStack(len(samples), resize=resize)
    for path, _ in samples:
        stack.add(_read_image(path), path)
    channels, height, width = stack.images.shape[1:]
    spec = DataSpec(channels=channels, height=height, width=width, class_names=tuple(names))
    return LabeledImages(stack.images, torch.tensor([label for _, label in samples]), spec)


def _list_folder(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Return class names and (path, label) of each image, in the order of torchvision's `ImageFolder`."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset

    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: must hold one folder of images for each class, got no folder in it")
    if {name.lower() for name in names} <= SPLIT_NAMES and any(path.is_dir() for path in folder.glob("*/*")):
        raise DataError(
            f"{folder}: must hold one folder for each class, got the parts {', '.join(names)}; "
            f"pass one of them, such as {folder / names[-1]}"
        )

    def is_image(path: str) -> bool:
        return not os.path.basename(path).startswith(".") and has_file_allowed_extension(path, IMG_EXTENSIONS)

    index = {name: label for label, name in enumerate(names)}
    samples = make_dataset(folder, index, is_valid_file=is_image, allow_empty=True)
    filled = {label for _, label in samples}
    empty = [name for name in names if index[name] not in filled]
    if empty:
        raise DataError(
            f"{folder / empty[0]}: a class folder must hold at least one image ({', '.join(IMG_EXTENSIONS)}), "
            "got none; add images or remove the folder"
        )
    return names, samples


def _read_image(path: str) -> Image.Image:
    """Return the decoded image, turned upright as its EXIF orientation says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except Exception as problem:  # decoders of damaged files fail with anything: SyntaxError, struct.error, ...
        raise DataError(
            f"{path}: cannot be read as an image ({shorten(str(problem), 300)}); repair or remove the file"
        ) from problem
