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
BAND = 1 << 20  # bytes that are filtered at once

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
                _write_pixels(file, levels)
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


def _write_pixels(file: BinaryIO, levels: Levels) -> None:
    """Write samples (H, W, S) of 8 or 16 bits as IDAT chunks."""
    rows = levels.astype(levels.dtype.newbyteorder(">")).reshape(len(levels), -1).view(np.uint8)
    step = levels.shape[2] * levels.dtype.itemsize  # bytes of a pixel
    count = max(1, BAND // rows.shape[1])
    compressor = zlib.compressobj()
    above = np.zeros_like(rows[:1])
    for start in range(0, len(rows), count):
        band = rows[start : start + count]
        packed = compressor.compress(_filter_rows(band, np.concatenate([above, band[:-1]]), step).tobytes())
        if packed:
            _write_chunk(file, b"IDAT", packed)
        above = band[-1:]
    _write_chunk(file, b"IDAT", compressor.flush())


def _filter_rows(rows: Levels, above: Levels, step: int) -> Levels:
    """Return rows of bytes (N, B), each after the filter type that promises to compress best, (N, 1 + B).

    The five filters of section 9.2; chosen by the least sum of absolute differences, as section 12.7 recommends.

    Args:
        rows: of the picture.
        above: for each of them the row before it.
        step: bytes of a pixel.
    """
    left, corner = (np.pad(bytes_, ((0, 0), (step, 0)))[:, :-step] for bytes_ in (rows, above))
    mean = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    guesses = np.stack([np.zeros_like(rows), left, above, mean, _predict_paeth(left, above, corner)])
    filtered = rows - guesses  # modulo 256
    costs = np.abs(filtered.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64)
    best = costs.argmin(0)
    return np.concatenate([best.astype(np.uint8)[:, None], filtered[best, np.arange(len(rows))]], 1)


def _predict_paeth(left: Levels, above: Levels, corner: Levels) -> Levels:
    """Return whichever of three neighbors is nearest to left + above - corner, the first of equals (section 9.4)."""
    a, b, c = (bytes_.astype(np.int16) for bytes_ in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
