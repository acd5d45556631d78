"""JPEG files: the pixels are compressed anew, the segments that hold metadata stay as they are.

Markers are those of ITU-T T.81, table B.1.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin

from genaug.data.pictures.picture import Picture, PictureFile, make_picture
from genaug.errors import DataError

QUALITY = 95
START, SCAN, COMMENT = b"\xff\xd8", 0xDA, 0xFE
JFIF, EXTRAS, ADOBE = 0xE0, 0xE2, 0xEE  # APP0, APP2, APP14
METADATA = (*range(0xE0, 0xF0), COMMENT)
MODES = {1: "L", 3: "RGB", 4: "CMYK"}

Segment = tuple[int, bytes]  # marker, content


class JpegFile(PictureFile):
    """A JPEG file; see `open_picture`. Further images after the first (previews, gain maps, videos) are left out."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._data = path.read_bytes()

    def decode(self) -> Iterator[Picture]:
        """Yield the one image."""
        _split_segments(self._data)  # what `encode` could not keep is refused before anything is done with the image
        with self._open() as image:
            image.load()
            levels = np.asarray(image)
        levels = levels.reshape(*levels.shape[:2], -1)
        yield make_picture(levels, color=levels.shape[2])

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data), formats=["JPEG"])

    def encode(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write the file with the pixels of the one picture, with its chroma subsampling and as many passes."""
        (picture,) = pictures
        levels = picture.to_levels()
        height, width, samples = levels.shape
        encoded = io.BytesIO()
        image = Image.frombytes(MODES[samples], (width, height), levels.tobytes())
        image.save(encoded, "JPEG", quality=QUALITY, **self._encoder_options())
        kept = [segment for segment in _split_segments(self._data)[0] if _is_metadata(segment)]
        new, scans = _split_segments(encoded.getvalue())
        file.write(START)
        for marker, content in [*kept, *(segment for segment in new if segment[0] != JFIF)]:
            file.write(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)
        file.write(scans)

    def _encoder_options(self) -> dict[str, Any]:
        with self._open() as image:
            options: dict[str, Any] = {"progressive": "progressive" in image.info}
            if image.mode == "RGB":
                options["subsampling"] = max(0, JpegImagePlugin.get_sampling(image))  # it gives -1 for unusual ones
        return options


def _split_segments(data: bytes) -> tuple[list[Segment], bytes]:
    """Return the segments before the first scan, and the rest of the file; stray bytes are passed over, as in libjpeg.

    Raises:
        DataError: no scan.
    """
    segments: list[Segment] = []
    position = len(START)
    while position + 4 <= len(data):
        fill, marker, length = struct.unpack_from(">BBH", data, position)
        if fill != 0xFF or marker in (0x00, 0xFF):  # a stray byte, or one of padding
            position += 1
            continue
        if marker == SCAN:
            return segments, data[position:]
        segments.append((marker, data[position + 4 : position + 2 + length]))
        position += 2 + length
    raise DataError("its segments are damaged")


def _is_metadata(segment: Segment) -> bool:
    """Tell whether a segment says nothing about how, or where in the file, pixels are kept."""
    marker, content = segment
    index_of_images = marker == EXTRAS and content.startswith(b"MPF\0")
    return marker in METADATA and marker != ADOBE and not index_of_images
