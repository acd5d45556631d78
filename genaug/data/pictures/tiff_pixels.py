"""Pixels of a page of a TIFF file, from tifffile or from Pillow."""

import io
from typing import IO

import numpy as np
import tifffile
from PIL import Image

from genaug.data.pictures.directories import (
    Directory,
    Layout,
    append_directory,
    read_values,
    seek_end,
    write_entry,
)
from genaug.data.pictures.picture import Levels
from genaug.data.pictures.tiff_pages import Page

STRIPS, TILES = (273, 279), (324, 325)  # tags of offsets and lengths
CHROMA = (529, 530, 531, 532)
# tags that say what the pixels are; not the orientation, which Pillow would apply
DECODING = (*range(256, 260), 262, 266, 277, 278, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, *CHROMA)
MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "F", "I;16", "I;16B")
MODES_AFTER = {"1": "L", "PA": "RGBA"}


def decode_page(
    page: Page,
    source: tifffile.TiffPage,
    file: IO[bytes],
    layout: Layout,
    entries: Directory,
) -> Levels:
    """Return the samples (H, W, S) of a page, of 8 bits or more, a palette or YCbCr as RGB.

    Args:
        page: what is known about it.
        source: what tifffile makes of it.
        file: the open file that it is in.
        layout: of that file.
        entries: the directory of the page.
    """
    if page.by_pillow:
        return _decode_by_pillow(_cut_out(page, file, layout, entries))
    levels = source.asarray()
    if page.planar:
        return levels.reshape(page.samples, page.height, page.width).transpose(1, 2, 0)
    return levels.reshape(page.height, page.width, page.samples)


def _cut_out(page: Page, file: IO[bytes], layout: Layout, entries: Directory) -> IO[bytes]:
    """Return a file in memory of this page alone, without metadata."""
    single = io.BytesIO(layout.header + layout.pack_offset(0))
    offsets = []
    for offset, length in zip(page.offsets, page.lengths, strict=True):
        file.seek(offset)
        offsets.append(seek_end(single))
        single.write(file.read(length))
    copied = [
        (code, write_entry(single, layout, entry.kind, read_values(file, layout, entry)))
        for code, entry in entries
        if code in DECODING
    ]
    tags = TILES if TILES[0] in dict(entries) else STRIPS
    for code, values in zip(tags, (offsets, page.lengths), strict=True):
        copied.append((code, write_entry(single, layout, layout.offset_kind, values)))
    append_directory(single, layout, copied, pointer=len(layout.header))
    single.seek(0)
    return single


def _decode_by_pillow(file: IO[bytes]) -> Levels:
    with Image.open(file, formats=["TIFF"]) as image:
        mode = image.mode if image.mode in MODES else MODES_AFTER.get(image.mode, "RGB")
        levels = np.asarray(image.convert(mode))
    return levels.reshape(*levels.shape[:2], -1)
