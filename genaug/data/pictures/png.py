"""PNG files: the chunks of pixels are replaced, all others stay as they are.

Chunks, filters and color types are those of the PNG specification (Third Edition, W3C 2025).
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from genaug.data.pictures.picture import Levels, Picture, PictureFile, make_picture
from genaug.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
COLOR_TYPES = {1: GRAY, 2: GRAY_ALPHA, 3: RGB, 4: RGBA}  # by number of samples
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 3, GRAY_ALPHA: 1, RGBA: 3}
TYPED = (b"PLTE", b"tRNS", b"hIST", b"bKGD", b"sBIT")  # chunks whose meaning depends on depth and color type
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by bytes of a pixel

Chunk = tuple[bytes, bytes]  # name, content


class PngFile(PictureFile):
    """A PNG file; see `open_picture`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._data = path.read_bytes()
        self._chunks = _split_chunks(self._data)
        self._bits, self._type = struct.unpack_from(">BB", self._header, 8)

    @property
    def _header(self) -> bytes:
        return self._chunks[0][1]

    def decode(self) -> Iterator[Picture]:
        """Yield the one image."""
        names = dict(self._chunks)
        if b"acTL" in names:
            raise DataError("animated PNG files are not supported; save its frames as files of their own")
        levels = self._decode_color() if self._bits == 16 and self._type != GRAY else self._decode_by_pillow()
        if b"tRNS" in names and self._type != PALETTE:
            levels = _add_key_as_alpha(levels, self._read_key(names[b"tRNS"]))
        yield make_picture(levels, color=CHANNELS[self._type])

    def _decode_by_pillow(self) -> Levels:
        with Image.open(io.BytesIO(self._data), formats=["PNG"]) as image:
            image.load()  # which finds what is transparent in a palette
            indexed = "RGBA" if "transparency" in image.info else "RGB"
            levels = np.asarray(image.convert({"P": indexed, "1": "L"}.get(image.mode, image.mode)))
        if self._bits == 16:
            levels = levels.astype(np.uint16)  # Pillow had them as 32 bits, once
        return levels.reshape(*levels.shape[:2], -1)

    def _decode_color(self) -> Levels:
        """Return 16-bit samples (H, W, S) of gray with alpha, RGB or RGBA; Pillow would give their high bytes."""
        try:
            import cv2
        except ImportError:
            raise DataError("PNG files with 16-bit color need OpenCV; pip install 'genaug[opencv]'") from None

        Image.open(io.BytesIO(self._data), formats=["PNG"]).close()  # refuses bombs
        levels = cv2.imdecode(np.frombuffer(self._data, np.uint8), cv2.IMREAD_UNCHANGED)
        if levels is None:
            raise DataError("its pixels are damaged")
        order = {RGB: [2, 1, 0], RGBA: [2, 1, 0, 3], GRAY_ALPHA: [0, 3]}[self._type]  # it gives BGR(A), also of gray
        return np.asarray(levels[..., order])

    def _read_key(self, content: bytes) -> Levels:
        """Return the samples that mean "transparent", as levels of what is decoded."""
        key = np.frombuffer(content[: 2 * CHANNELS[self._type]], ">u2").astype(np.int64)
        return key if self._bits >= 8 else key * 255 // (2**self._bits - 1)

    def encode(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write the file with the pixels of the one picture."""
        (picture,) = pictures
        levels = picture.to_levels()
        bits, kind = 8 * levels.dtype.itemsize, COLOR_TYPES[levels.shape[2]]
        same = (bits, kind) == (self._bits, self._type)
        file.write(SIGNATURE)
        _write_chunk(file, b"IHDR", self._header[:8] + bytes([bits, kind, 0, 0, 0]))
        written = False
        for name, content in self._chunks[1:]:
            if name != b"IDAT" and (same or name not in TYPED):
                _write_chunk(file, name, content)
            elif name == b"IDAT" and not written:
                for part, packed in _split_chunks(_compress(levels)):
                    if part == b"IDAT":
                        _write_chunk(file, part, packed)
                written = True


def _split_chunks(data: bytes) -> list[Chunk]:
    """Return the chunks of a file up to its end, the header first."""
    chunks: list[Chunk] = []
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]) and name[:1].isupper():
            raise DataError(f"its chunk {name.decode('latin-1')} is damaged")
        chunks.append((name, data[position + 8 : end - 4]))
        position = end
        if name == b"IEND":
            if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13 or all(name != b"IDAT" for name, _ in chunks):
                raise DataError("it has no header or no pixels")
            return chunks
    raise DataError("the file is cut off")


def _add_key_as_alpha(levels: Levels, key: Levels) -> Levels:
    """Return samples (H, W, S) with an alpha of none where they equal `key`, all elsewhere."""
    opaque = (levels != key).any(-1, keepdims=True)
    return np.concatenate([levels, opaque * np.iinfo(levels.dtype).max], -1, dtype=levels.dtype, casting="unsafe")


def _write_chunk(file: BinaryIO, name: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + name + content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


def _compress(levels: Levels) -> bytes:
    """Return a PNG file with the pixel data of samples (H, W, S) of 8 or 16 bits; its header may be of another kind.

    Filters and compression see the bytes of a pixel alone. So 16-bit samples are written as twice as many of 8 bits,
    where that makes no more than the four that Pillow can write; OpenCV writes the rest, which it has read.
    """
    order = levels.astype(levels.dtype.newbyteorder(">"), copy=False)
    mode = MODES.get(levels.shape[2] * levels.dtype.itemsize)
    if mode is not None:
        buffer = io.BytesIO()
        Image.frombytes(mode, levels.shape[1::-1], order.tobytes()).save(buffer, "PNG")
        return buffer.getvalue()
    import cv2

    bgr = levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 6])  # by default large and fast
    if not done:
        raise DataError("its pixels could not be compressed")
    return data.tobytes()
