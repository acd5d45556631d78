"""Which files below a folder are pictures."""

import os
from pathlib import Path

from genaug.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

Identity = tuple[int, int]  # device and inode of a folder


def find_pictures(folder: Path) -> tuple[list[Path], int]:
    """Return the PNG, JPEG and TIFF files in `folder` and below, by their suffix and sorted, and the number of others.

    Hidden files and folders are left out and not counted; links to folders are followed.

    Raises:
        DataError: a folder that cannot be listed, or a link that leads back to a folder above it.
    """
    files: list[Path] = []
    others = _walk(folder, (), files)
    return sorted(files), others


def _walk(folder: Path, above: tuple[Identity, ...], files: list[Path]) -> int:
    """Add the pictures in `folder` and below to `files`; return the number of other files."""
    others = 0
    try:
        status = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as problem:
        raise DataError(f"{folder}: cannot be read ({problem.strerror})") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{folder}: is a link that leads back to a folder above it; remove the link")
    for path in (folder / name for name in names if not name.startswith(".")):
        if path.is_dir():
            others += _walk(path, (*above, identity), files)
        elif path.name.lower().endswith(SUFFIXES) and (path.is_file() or path.is_symlink()):  # or a broken link
            files.append(path)
        else:
            others += 1
    return others
