"""From the path of an image file to what can read it, by its content."""

import os
from pathlib import Path

from genaug.data.pictures.jpeg import JpegFile
from genaug.data.pictures.picture import PictureFile, explain_read_errors
from genaug.data.pictures.png import PngFile
from genaug.data.pictures.tiff import TiffPages
from genaug.errors import DataError

KINDS: dict[bytes, type[PictureFile]] = {
    b"\x89PNG\r\n\x1a\n": PngFile,
    b"\xff\xd8\xff": JpegFile,
    b"II*\0": TiffPages,
    b"MM\0*": TiffPages,
    b"II+\0": TiffPages,
    b"MM\0+": TiffPages,
}


def open_picture(path: str | os.PathLike[str]) -> PictureFile:
    """Return the PNG, JPEG or TIFF file at `path`, whatever its suffix; its pixels are read later.

    What is saved from it has the same kind, size, depth (8 or 16 bits, or float32) and channels, and all of its
    metadata (EXIF with the orientation, which is not applied, color profile, resolution, text) as they were. JPEG files
    are compressed anew with quality 95. What a model makes of a picture does not fit into a palette or one bit:
    pictures with a palette become RGB or RGBA, those of 1, 2 or 4 bits 8-bit gray. PNG files with 16-bit color need the
    extra `opencv`.

    Raises:
        DataError: a file that is missing, empty, damaged or no such image.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGBA", (4, 3)).save(path)
    >>> file = open_picture(path)
    >>> [(tuple(picture.pixels.shape), picture.maximum, tuple(picture.alpha.shape)) for picture in file.read()]
    [((3, 3, 4), 255.0, (1, 3, 4))]
    >>> file.save(path.with_name("b.png"), file.read())
    """
    path = Path(path)
    with explain_read_errors(path):
        with path.open("rb") as file:
            start = file.read(8)
        if not start:
            raise DataError("the file is empty")
        for magic, kind in KINDS.items():
            if start.startswith(magic):
                return kind(path)
        raise DataError("its content is none of PNG, JPEG and TIFF")
