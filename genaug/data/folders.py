"""Image folders: a folder of images for each class, with or without parts such as train and test above them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from genaug.data.decoding import decode_image, measure_image
from genaug.data.labels import ONE_CLASS, PATCHES, Classes
from genaug.data.parts import (
    PART_NAMES,
    choose_parts,
    find_part,
    is_part,
    list_names,
    refuse_parts,
    warn_of_empty_classes,
)
from genaug.data.reading import Listing
from genaug.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")  # torchvision's and GIF

Identity = tuple[int, int]  # device and inode of a folder


def list_folder(folder: Path, *, split: str | None = None, classes: Classes = "needed") -> Listing:
    """Return the images of a folder of class folders, in the order of torchvision's `ImageFolder`.

    With parts (train, val, test) below, the classes are those of all parts together; other folders beside them are left
    out where `split` names a part, and refused where not. Images in deeper folders belong
    to the class; hidden files and folders are left out; links to folders are followed.

    Where `classes` are not needed, a folder (or a part) that holds image files itself has none, and neither has one
    with `classes` "none": all images in it and below it are of the class "image". Folders that are called as parts are
    then parts also if they hold no folders, as long as there are no others beside them or `split` names one of them.

    Raises:
        DataError: no class folders, an empty one (without parts), a part that is missing, a part beside other
            folders, a link that leads back to a folder above it, or a folder that cannot be listed.
    """
    try:
        parts = _find_parts(folder, split, classes)
        if parts:
            return _list_parts(folder, parts, split, classes)
        refuse_parts(split, str(folder))
        if _lacks_classes([folder], classes):
            return _list_all(folder, [folder])
        names = _list_classes(folder)
        if all(name.lower() in PART_NAMES for name in names):
            raise DataError(
                f"{folder}: must hold one folder of images for each class, got the parts {list_names(names)} alone, "
                f"with images in them; where these are classes, rename one; {PATCHES}"
            )
        if all(map(find_part, names)) and any(_subfolders(folder / name) for name in names):
            raise DataError(
                f"{folder}: must hold one folder of images for each class, or parts called train, val and test, got "
                f"{list_names(names)} with folders in them; call parts so, or pass one of them as data"
            )
        samples = _list_samples(folder, names)
    except OSError as problem:
        raise DataError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None
    filled = {label for _, label in samples}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        raise DataError(
            f"{folder / empty[0]}: a class folder must hold at least one image ({', '.join(SUFFIXES)}), "
            "got none; add images or remove the folder"
        )
    return _make_listing(folder, samples, names)


def holds_class_folders(folder: Path) -> bool:
    """Tell whether folders in this one, or in its parts, hold image files."""
    try:
        inner = [folder / name for name in _subfolders(folder)]
        inner += [part / name for part in inner if part.name.lower() in PART_NAMES for name in _subfolders(part)]
        return any(map(_holds_images, inner))
    except OSError:  # which tells of itself when the folder is read
        return False


def _make_listing(folder: Path, samples: Sequence[tuple[str, int]], names: Sequence[str]) -> Listing:
    return Listing(
        labels=torch.tensor([label for _, label in samples]),
        class_names=tuple(names),
        name=lambda index: samples[index][0],
        read=lambda index: decode_image(samples[index][0], samples[index][0]),
        measure=lambda index: measure_image(samples[index][0], samples[index][0]),
        key=lambda index: os.path.splitext(os.path.relpath(samples[index][0], folder))[0],
    )


def _list_all(folder: Path, roots: Sequence[Path]) -> Listing:
    """Return all images in `roots` and below as those of one class."""
    samples = [(path, 0) for root in roots for path in _list_images(str(root))]
    if not samples:
        raise DataError(f"{roots[0]}: must hold at least one image ({', '.join(SUFFIXES)}), got none")
    return _make_listing(folder, samples, ONE_CLASS)


def _lacks_classes(roots: Sequence[Path], classes: Classes) -> bool:
    """Tell whether the images in `roots` are to be taken without classes."""
    alone = (_holds_images(root) or not _subfolders(root) for root in roots)
    return classes == "none" or (classes == "optional" and any(alone))


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_is_image(entry) for entry in entries)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and entry.name.lower().endswith(SUFFIXES) and not _is_folder(entry)


def _list_parts(folder: Path, parts: Sequence[str], split: str | None, classes: Classes) -> Listing:
    chosen = choose_parts(parts, split, str(folder))
    roots = [folder / part for part in chosen]
    if _lacks_classes(roots, classes):
        return _list_all(folder, roots)
    names = sorted({name for part in parts for name in _subfolders(folder / part)})
    if all(name.lower() in PART_NAMES for name in names):
        raise DataError(
            f"{folder}: its parts must hold one folder of images for each class, got the parts {list_names(names)} "
            "in them; move these up, in the place of the parts that hold them"
        )
    samples: list[tuple[str, int]] = []
    for part in chosen:
        _list_classes(folder / part)  # raises where there are none
        samples += _list_samples(folder / part, names)
    if not samples:
        raise DataError(f"{folder / chosen[0]}: must hold images in its class folders, got none")
    listing = _make_listing(folder, samples, names)
    warn_of_empty_classes(listing.labels, names, str(folder / chosen[0]) if len(chosen) == 1 else str(folder))
    return listing


def _find_parts(folder: Path, split: str | None, classes: Classes) -> list[str]:
    """Return the folders that are parts: those named so, if one of them holds folders; else there are none.

    Where `classes` are not needed, they may hold images alone.

    Raises:
        DataError: other folders beside them, unless `split` names one of those parts that hold folders.
    """
    names = _subfolders(folder)
    parts = [name for name in names if name.lower() in PART_NAMES]
    nested = [name for name in parts if _subfolders(folder / name)]
    others = [name for name in names if name not in parts]
    if classes != "needed" and (not others or any(is_part(name, split) for name in parts)):
        nested = parts
    if not nested:
        return []
    if others and not any(is_part(name, split) for name in nested):
        raise DataError(
            f"{folder}: must hold parts or classes, got the parts {list_names(parts)} beside {list_names(others)}; "
            f"choose a part with --split {nested[-1]} (split=), or move the others away; where all are classes, "
            f"rename {nested[-1]}"
        )
    return parts


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Tell whether an entry is a folder or a link to one; `entry.is_dir()` alone fails at a link to itself."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _list_classes(folder: Path) -> list[str]:
    names = _subfolders(folder)
    if not names:
        with os.scandir(folder) as entries:
            files = sorted(entry.name for entry in entries)
        raise DataError(
            f"{folder}: must hold one folder of images for each class, got no folder in it "
            f"(it holds {list_names(files, 5)}); {PATCHES}"
        )
    return names


def _list_samples(folder: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return (path, label) of each image in the folders called `names`, as far as there are any."""
    samples = []
    for label, name in enumerate(names):
        root = os.path.join(folder, name)
        if os.path.isdir(root):
            samples += [(path, label) for path in _list_images(root)]
    return samples


def _list_images(root: str) -> list[str]:
    found = sorted((place, file) for place, file in walk(root) if file.lower().endswith(SUFFIXES))
    return [os.path.join(place, file) for place, file in found]


def walk(root: str, above: tuple[Identity, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield (folder, name) of each file in `root` and below that is not hidden; links to folders are followed.

    `above` are the folders on the way to `root`.

    Raises:
        OSError: a folder that cannot be listed.
        DataError: a link that leads back to a folder above it.
    """
    status = os.stat(root)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{root}: is a link that leads back to a folder above it; remove the link")
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from walk(entry.path, (*above, identity))
            else:
                yield root, entry.name
