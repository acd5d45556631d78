"""Which files below a folder are pictures."""

from pathlib import Path

from genaug.data.folders import walk
from genaug.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def find_pictures(folder: Path) -> tuple[list[Path], int]:
    """Return the PNG, JPEG and TIFF files in `folder` and below, by their suffix and sorted, and the number of others.

    Hidden files and folders are left out and not counted; links to folders are followed.

    Raises:
        DataError: a folder that cannot be listed, or a link that leads back to a folder above it.
    """
    files, others = [], 0
    try:
        for place, name in walk(str(folder)):
            path = Path(place, name)
            if name.lower().endswith(SUFFIXES) and (path.is_file() or path.is_symlink()):  # or a broken link
                files.append(path)
            else:
                others += 1
    except OSError as problem:
        raise DataError(f"{problem.filename or folder}: cannot be read ({problem.strerror})") from None
    return sorted(files), others
