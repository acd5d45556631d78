"""What there is to know about a page of a TIFF file before its pixels are read, and which pages cannot be restored."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import tifffile
from PIL import Image

from genaug.data.pictures.directories import Directory
from genaug.errors import DataError, shorten

MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
COLORS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 3, SEPARATED: 4, YCBCR: 3}  # samples of color, decoded
DEPTHS = {"uint8": 8, "uint16": 16, "float32": 32}
INKSET, UIC2 = 332, 33629
ALPHAS = (1, 2)  # values of ExtraSamples

# Tags that say how pixels were compressed and cut, and those of colors and depth that a page may lose.
CODED = {266, 273, 279, 292, 293, 317, 322, 323, 324, 325, 347, *range(512, 522)}
FITTED = {280, 281, 290, 291, 320, 339, 529, 530, 531, 532}


@dataclass(frozen=True)
class Page:
    """A page: its size, its samples, and where and how they are kept.

    Args:
        height, width: in pixels.
        samples: for each pixel, as they are kept.
        bits: of each sample.
        photometric: what the samples mean, a key of `COLORS`.
        compressed: whether they are.
        predictor: 1, or 2 where differences between neighbors are kept.
        planar: whether samples are apart, one plane for each.
        by_pillow: whether Pillow reads it, since tifffile cannot, or not as levels.
        offsets, lengths: of its strips or tiles.
    """

    height: int
    width: int
    samples: int
    bits: int
    photometric: int
    compressed: bool
    predictor: int
    planar: bool
    by_pillow: bool
    offsets: Sequence[int]
    lengths: Sequence[int]

    @property
    def color(self) -> int:
        """How many of the decoded samples are gray, color or inks."""
        return COLORS[self.photometric]

    @property
    def photometric_after(self) -> int:
        """What the decoded samples mean."""
        if self.photometric in (PALETTE, YCBCR):
            return RGB
        turned = self.by_pillow and self.photometric == MINISWHITE and self.bits <= 8
        return MINISBLACK if turned else self.photometric

    def find_room(self, length: int) -> int | None:
        """Return where so many bytes fit in the place of the old pixels, or None where they do not."""
        ends = [offset + size for offset, size in zip(self.offsets, self.lengths, strict=True)]
        whole = list(self.offsets[1:]) == ends[:-1]
        return self.offsets[0] if whole and length <= sum(self.lengths) else None


def describe_page(page: tifffile.TiffPage, size: int) -> Page:
    """Return what is to be known about a page in a file of `size` bytes.

    Raises:
        DataError: a page that is damaged, too large, or of a kind that cannot be restored.
    """
    compressed = page.compression != 1
    bits = _check_depth(page)
    _check_samples(page)
    _check_size(page, size, compressed=compressed)
    described = Page(
        height=page.imagelength,
        width=page.imagewidth,
        samples=page.samplesperpixel,
        bits=bits,
        photometric=int(page.photometric),
        compressed=compressed,
        predictor=int(page.predictor),
        planar=page.planarconfig == 2 and page.samplesperpixel > 1,
        by_pillow=bits < 8 or page.photometric in (PALETTE, YCBCR) or not _is_decodable(page),
        offsets=tuple(page.dataoffsets),
        lengths=tuple(page.databytecounts),
    )
    if described.by_pillow and bits > 8 and page.samplesperpixel > 1:
        raise DataError(
            f"{bits}-bit color compressed by {_name(page.compression)} needs the package imagecodecs; install it, or "
            "store the picture without compression"
        )
    return described


def check_frames(opened: tifffile.TiffFile, directories: Sequence[Directory]) -> None:
    """Check that every image of a file has a directory of its own.

    Raises:
        DataError: images that are not pages, as in stacks of ImageJ beyond 4 GB, of MetaMorph, and truncated ones.
    """
    frames = int((opened.imagej_metadata or {}).get("images", 1))
    if UIC2 in dict(directories[0]):
        frames = dict(directories[0])[UIC2].count
    shaped = opened.shaped_metadata or ()
    if frames > len(directories) or any(series.get("truncated") for series in shaped):
        raise DataError("it holds images that are no pages of it; store it with a directory for each image")


def _check_depth(page: tifffile.TiffPage) -> int:
    """Return the bits of a sample."""
    bits = page.bitspersample
    indexed = page.photometric == PALETTE
    low = bits in (1, 2, 4, 8) if indexed else bits in (1, 2, 4) and page.photometric in (MINISWHITE, MINISBLACK)
    if not low and (indexed or DEPTHS.get(str(page.dtype)) != bits):
        kind = "palettes of " * indexed + f"{shorten(bits)}-bit {page.dtype or 'samples'}"
        raise DataError(f"samples must be 8 or 16-bit integers without sign, or 32-bit floats, got {kind}")
    return int(bits)


def _check_samples(page: tifffile.TiffPage) -> None:
    if page.photometric not in COLORS or page.imagedepth != 1 or page.tags.valueof(INKSET, 1) != 1:
        raise DataError(f"colors must be gray, RGB, a palette or CMYK, got {_name(page.photometric)}")
    extra = page.samplesperpixel - (1 if page.photometric == PALETTE else COLORS[int(page.photometric)])
    gray = page.photometric in (MINISWHITE, MINISBLACK)
    if extra < 0 or (gray and extra and (extra > 1 or not set(page.extrasamples) & set(ALPHAS))):
        raise DataError(f"{page.samplesperpixel} samples for each pixel must be color and alpha; store others as pages")


def _check_size(page: tifffile.TiffPage, size: int, *, compressed: bool) -> None:
    values = page.imagelength * page.imagewidth * page.samplesperpixel
    if not values:
        raise DataError("it has no pixels")
    parts = prod(page.chunked)
    lengths = page.databytecounts
    ends = [offset + length for offset, length in zip(page.dataoffsets, lengths, strict=True)]
    needed = 0 if compressed else values * int(page.bitspersample) // 8
    lacking = sum(lengths) < needed or needed > size or (compressed and len(lengths) < parts)
    if lacking or min(lengths) <= 0 or max(ends) > size:
        raise DataError("the file is cut off: it lacks pixels")
    limit = Image.MAX_IMAGE_PIXELS
    held = parts * prod(page.chunks) if page.is_tiled else values
    if compressed and limit is not None and held > 2 * limit * 4:  # as Pillow has it, of four samples
        raise DataError(
            f"{page.imagewidth}x{page.imagelength} pixels are too many for a compressed picture, which may be a "
            "decompression bomb; cut it into parts"
        )


def _is_decodable(page: tifffile.TiffPage) -> bool:
    return page.compression in tifffile.TIFF.DECOMPRESSORS and page.predictor in tifffile.TIFF.UNPREDICTORS


def _name(value: object) -> str:
    return str(getattr(value, "name", value))
