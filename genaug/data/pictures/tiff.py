"""TIFF files: the pixels of every page are replaced, all that is said about them stays as it is.

Numbers of tags and their values are those of TIFF 6.0, section 8 and its supplements.
"""

import logging
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from genaug.data.pictures.directories import (
    LONG,
    SHORT,
    Directory,
    append_directory,
    read_directories,
    read_layout,
    seek_end,
    write_entry,
)
from genaug.data.pictures.picture import Levels, Picture, PictureFile, make_picture
from genaug.data.pictures.tiff_pages import CODED, FITTED, Page, check_frames, describe_page
from genaug.data.pictures.tiff_pixels import decode_page
from genaug.errors import DataError, naming

DEFLATE = 8
STRIP = 1 << 20  # bytes of a strip, about

# Its remarks on odd tags are nothing to print where nobody has asked for a log.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffPages(PictureFile):
    """A TIFF file; see `open_picture`. Every page is an image; those within a page, as in pyramids, stay as they are.

    Compressed pages, whatever the method, are compressed without loss (Deflate); tiles become strips.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            self._layout = read_layout(file)
            self._directories = read_directories(file, self._layout)
        size = path.stat().st_size
        with tifffile.TiffFile(path) as opened:
            pages = self._list_pages(opened)
            check_frames(opened, self._directories)
            self._pages = [_describe(page, number, size) for number, page in enumerate(pages, 1)]

    def _list_pages(self, opened: tifffile.TiffFile) -> list[tifffile.TiffPage]:
        pages = [page for page in opened.pages if isinstance(page, tifffile.TiffPage)]
        if len(pages) != len(self._directories) or not pages:
            raise DataError("its pages are damaged")
        return pages

    def decode(self) -> Iterator[Picture]:
        """Yield the images of the pages."""
        with tifffile.TiffFile(self.path) as opened, self.path.open("rb") as file:
            for page, entries, source in zip(self._pages, self._directories, self._list_pages(opened), strict=True):
                levels = decode_page(page, source, file, self._layout, entries)
                yield make_picture(levels, color=page.color)

    def encode(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write the file with the pixels of the pictures."""
        with self.path.open("rb") as source:
            shutil.copyfileobj(source, file)
        pointer = len(self._layout.header)
        for page, entries, picture in zip(self._pages, self._directories, pictures, strict=True):
            with naming(str(self.path)):
                changed = self._write_page(file, page, entries, picture.to_levels())
                pointer = append_directory(file, self._layout, changed, pointer=pointer)

    def _write_page(self, file: BinaryIO, page: Page, entries: Directory, levels: Levels) -> Directory:
        """Write samples (H, W, S), in the place of the old ones where they fit, and return the page's new directory."""
        samples, bits = levels.shape[2], 8 * levels.dtype.itemsize
        planar = page.planar and samples == page.samples
        planes = [levels[:, :, [index]] for index in range(samples)] if planar else [levels]
        predicted = page.compressed and page.predictor == 2 and levels.dtype.kind == "u"
        order = levels.dtype.newbyteorder(self._layout.order)
        rows = max(1, STRIP // planes[0][0].nbytes)
        strips = [
            _pack(plane[start : start + rows], order, compressed=page.compressed, predicted=predicted)
            for plane in planes
            for start in range(0, len(plane), rows)
        ]
        lengths = [len(strip) for strip in strips]
        changes: dict[int, tuple[int, Sequence[int]]] = {
            258: (SHORT, [bits] * samples),  # BitsPerSample
            259: (SHORT, [DEFLATE if page.compressed else 1]),  # Compression
            262: (SHORT, [page.photometric_after]),  # PhotometricInterpretation
            273: (self._layout.offset_kind, _write_strips(file, page, strips)),  # StripOffsets
            277: (SHORT, [samples]),  # SamplesPerPixel
            278: (LONG, [rows]),  # RowsPerStrip
            279: (self._layout.offset_kind, lengths),  # StripByteCounts
        }
        if samples > 1:
            changes[284] = (SHORT, [2 if planar else 1])  # PlanarConfiguration
        if predicted:
            changes[317] = (SHORT, [2])  # Predictor
        same = (samples, bits, page.photometric_after) == (page.samples, page.bits, page.photometric)
        dropped = CODED if same else CODED | FITTED
        kept = [(code, entry) for code, entry in entries if code not in dropped | changes.keys()]
        return kept + [(code, write_entry(file, self._layout, *values)) for code, values in changes.items()]


def _describe(page: tifffile.TiffPage, number: int, size: int) -> Page:
    with naming(f"page {number}"):
        return describe_page(page, size)


def _pack(rows: Levels, order: np.dtype[Any], *, compressed: bool, predicted: bool) -> bytes:
    """Return rows (N, W, S) in the byte order of `order`, `predicted` as differences between neighbors."""
    if predicted:
        rows = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))  # modulo 2**bits
    content = rows.astype(order).tobytes()
    return zlib.compress(content) if compressed else content


def _write_strips(file: BinaryIO, page: Page, strips: Sequence[bytes]) -> list[int]:
    """Write strips one after another and return their places."""
    room = page.find_room(sum(map(len, strips)))
    place = seek_end(file) if room is None else file.seek(room)
    file.writelines(strips)
    return list(accumulate(map(len, strips[:-1]), initial=place))
