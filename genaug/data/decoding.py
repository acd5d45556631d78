"""Image files: their pixels, or their size alone."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from genaug.errors import DataError, shorten

PHOTOMETRIC = 262  # tag of TIFF; 0 means that the highest level is black
TURNED = (5, 6, 7, 8)  # EXIF orientations whose sides are swapped
LATE = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # chunks of PNG that may tell the orientation

File = str | os.PathLike[str] | bytes  # a path, or the content


class UnreadableImage(DataError):
    """An image that cannot be decoded; `skip_bad` leaves such images out."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: cannot be read as an image ({reason}); repair or remove the file, "
            "or leave out what cannot be read with --skip-bad (skip_bad=True)"
        )
        self.summary = " ".join(f"{name} ({reason})".splitlines())
        self._name, self._reason = name, reason

    def __reduce__(self) -> tuple[type["UnreadableImage"], tuple[str, str]]:
        return type(self), (self._name, self._reason)  # so that a process can tell another one


def decode_image(file: File, name: str) -> Image.Image:
    """Return an image file (a path, or its content) decoded, turned upright as its EXIF orientation says.

    Of an animation it is the first frame.

    Raises:
        UnreadableImage: a file that is missing, empty, damaged, no image, or too large to be one in earnest.
    """
    with _open(file, name) as image:
        deep = image.mode == "I" and image.format in ("PNG", "PPM")  # how PIL opens 16 bits where not as "I;16"
        tags = getattr(image, "tag_v2", {})  # of a TIFF file
        negative = image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == 0
        image.load()
        upright = ImageOps.exif_transpose(image.convert("I;16") if deep else image)
        # of such files PIL turns the levels of 8 bits about, and not of 16
        return Image.fromarray(65535 - np.asarray(upright).astype(np.uint16)) if negative else upright


def measure_image(file: File, name: str) -> tuple[int, int]:
    """Return (height, width) of what `decode_image` returns, in nearly all cases from the file's header alone.

    Raises:
        UnreadableImage: as `decode_image`, but for damage behind the header.
    """
    with _open(file, name) as image:
        # Not image.getexif(): for a PNG that decodes the pixels, in search of what may come behind them.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in TURNED
        if image.format == "TIFF":
            unclear = turned  # whether image.size is already turned differs between PIL's versions
        else:
            unclear = image.format == "PNG" and _has_late_text(file)
        if not unclear:
            return (image.width, image.height) if turned else (image.height, image.width)
    whole = decode_image(file, name)
    return whole.height, whole.width


def _has_late_text(file: File) -> bool:
    """Tell whether a PNG file may have text behind its pixels; a false alarm only costs time."""
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    pixels = content.find(b"IDAT")
    return any(content.find(kind, pixels) >= 0 for kind in LATE)


@contextmanager
def _open(file: File, name: str) -> Iterator[Image.Image]:
    """Open an image file, and turn any error inside into an `UnreadableImage`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                yield image
    except Exception as problem:  # decoders of damaged files fail with anything: SyntaxError, struct.error, ...
        raise UnreadableImage(name, _reason(file, problem)) from problem


def _reason(file: File, problem: Exception) -> str:
    try:
        empty = not file if isinstance(file, bytes) else os.path.getsize(file) == 0
    except (OSError, ValueError):  # or a path with a null character
        empty = False
    if empty:
        return "the file is empty"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return shorten(str(problem), 300)
