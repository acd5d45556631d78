"""Image files read and written again: pixels to the bit, all metadata, pages, and files that cannot be read."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from genaug.data.pictures import Picture, find_pictures, open_picture
from genaug.data.pictures.directories import Layout
from genaug.data.pictures.inks import inks_to_light, light_to_inks
from genaug.errors import DataError, GenaugError

SIZE = (23, 37)  # height, width
DEPTHS = {"uint8": 255, "uint16": 65535, "float32": 1}
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).random(shape) * DEPTHS[dtype]
    return (levels if dtype == "float32" else levels.round()).astype(dtype)


def copy(path: Path) -> Path:
    """Save a file with the pixels that were read of it."""
    file = open_picture(path)
    target = path.with_name(f"copy of {path.name}")
    file.save(target, file.read())
    return target


def read(path: Path) -> list[Picture]:
    return list(open_picture(path).read())


def as_hwc(picture: Picture) -> np.ndarray:
    parts = [picture.pixels] + [picture.alpha] * (picture.alpha is not None)
    return np.concatenate([part.numpy() for part in parts]).transpose(1, 2, 0)


def load(path: Path, mode: str | None = None) -> np.ndarray:
    """The pixels as Pillow reads them."""
    with Image.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[ExifTags.Base.Orientation] = orientation
    values[ExifTags.Base.Make] = "a maker"
    values.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 1600
    return values


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        copy(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]  # nothing written, nothing left


# --- PNG


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path: Path, levels: np.ndarray, *, kind: int, bits: int = 16, extra: bytes = b"") -> Path:
    """A PNG file of samples (H, W, S) without filters; of less than 8 bits, a row is one byte."""
    height, width, _ = levels.shape
    if bits < 8:
        shifts = np.arange(width)[::-1] * bits
        rows = [bytes([int((row[:, 0] << shifts).sum())]) for row in levels.astype(int)]
    else:
        rows = [row.astype(f">u{bits // 8}").tobytes() for row in levels]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
        + extra
        + png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + png_chunk(b"IEND", b"")
    )
    return path


def split_png(path: Path) -> list[tuple[bytes, bytes]]:
    """Name and content of all chunks but those of the pixels."""
    data, position, chunks = path.read_bytes(), 8, []
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        assert zlib.crc32(name + content) == int.from_bytes(data[position + 8 + length : position + 12 + length])
        chunks.append((name, content))
        position += 12 + length
    return [chunk for chunk in chunks if chunk[0] != b"IDAT"]


class TestPng:
    @pytest.mark.parametrize("mode", MODES)
    def test_8_bits(self, mode: str, tmp_path: Path) -> None:
        levels = noise(*SIZE, MODES[mode])
        Image.frombytes(mode, SIZE[::-1], levels.tobytes()).save(tmp_path / "a.png")
        (picture,) = read(tmp_path / "a.png")
        assert picture.pixels.dtype == torch.uint8
        assert picture.maximum == 255
        assert picture.pixels.shape[0] == (1 if mode in ("L", "LA") else 3)
        assert np.array_equal(as_hwc(picture), levels)
        written = copy(tmp_path / "a.png")
        with Image.open(written) as image:
            assert image.mode == mode
        assert np.array_equal(load(written).reshape(levels.shape), levels)

    @pytest.mark.parametrize("kind", [2, 6])
    def test_16_bit_color(self, kind: int, tmp_path: Path) -> None:
        levels = noise(*SIZE, 3 if kind == 2 else 4, dtype="uint16")
        bgr = levels[..., [2, 1, 0, 3][: levels.shape[2]]]
        assert cv2.imwrite(str(tmp_path / "a.png"), bgr)
        (picture,) = read(tmp_path / "a.png")
        assert picture.pixels.dtype == torch.uint16
        assert picture.maximum == 65535
        assert np.array_equal(as_hwc(picture), levels)
        assert np.array_equal(cv2.imread(str(copy(tmp_path / "a.png")), cv2.IMREAD_UNCHANGED), bgr)

    def test_16_bit_gray(self, tmp_path: Path) -> None:
        levels = noise(*SIZE, dtype="uint16")
        Image.fromarray(levels).save(tmp_path / "a.png")
        assert np.array_equal(as_hwc(*read(tmp_path / "a.png"))[..., 0], levels)
        written = copy(tmp_path / "a.png")
        assert np.array_equal(load(written), levels)
        assert split_png(written) == split_png(tmp_path / "a.png")

    def test_16_bit_gray_with_alpha(self, tmp_path: Path) -> None:
        levels = noise(*SIZE, 2, dtype="uint16")
        path = write_png(tmp_path / "a.png", levels, kind=4)
        assert np.array_equal(as_hwc(*read(path)), levels)
        written = copy(path)
        assert split_png(written) == split_png(path)
        assert np.array_equal(cv2.imread(str(written), cv2.IMREAD_UNCHANGED)[..., [0, 3]], levels)

    @pytest.mark.parametrize("mode", ["P", "PA"])
    def test_a_palette_becomes_colors(self, mode: str, tmp_path: Path) -> None:
        image = Image.frombytes("RGB", SIZE[::-1], noise(*SIZE, 3).tobytes()).quantize(50)
        options = {"transparency": bytes(range(50))} if mode == "PA" else {}
        image.save(tmp_path / "a.png", **options)
        kind = "RGBA" if mode == "PA" else "RGB"
        expected = load(tmp_path / "a.png", kind)
        written = copy(tmp_path / "a.png")
        with Image.open(written) as image:
            assert image.mode == kind
        assert np.array_equal(load(written), expected)
        assert not {b"PLTE", b"tRNS"} & dict(split_png(written)).keys()

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_few_bits_become_8_bit_gray(self, bits: int, tmp_path: Path) -> None:
        levels = np.arange(8 // bits).reshape(1, -1, 1) % 2**bits
        path = write_png(tmp_path / "a.png", levels, kind=0, bits=bits)
        written = copy(path)
        assert split_png(written)[0][1][8:10] == bytes([8, 0])
        assert np.array_equal(load(written)[0], levels[0, :, 0] * 255 // (2**bits - 1))

    @pytest.mark.parametrize(("kind", "bits"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
    def test_a_transparent_color_becomes_alpha(self, kind: int, bits: int, tmp_path: Path) -> None:
        levels = noise(5, 7 if bits >= 8 else 8 // bits, 1 if kind == 0 else 3, dtype="uint16") & (2**bits - 1)
        levels[0, 0] = levels[3, 1]
        key = levels[0, 0]
        path = write_png(
            tmp_path / "a.png", levels, kind=kind, bits=bits, extra=png_chunk(b"tRNS", key.astype(">u2").tobytes())
        )
        (picture,) = read(path)
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha[0] == 0, (levels == key).all(-1))
        assert set(picture.alpha.unique().tolist()) <= {0, picture.maximum}
        assert picture.alpha.dtype == picture.pixels.dtype
        written = copy(path)
        assert b"tRNS" not in dict(split_png(written))
        assert np.array_equal(as_hwc(*read(written)), as_hwc(picture))

    def test_metadata_are_kept(self, tmp_path: Path) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "by hand")
        text.add_itxt("Title", "Übung", lang="de")
        text.add(b"gAMA", struct.pack(">I", 45455))
        text.add(b"prVt", b"private", after_idat=True)
        image = Image.frombytes("RGB", SIZE[::-1], noise(*SIZE, 3).tobytes())
        image.save(tmp_path / "a.png", pnginfo=text, dpi=(300, 200), icc_profile=PROFILE, exif=exif(6))
        written = copy(tmp_path / "a.png")
        assert split_png(written) == split_png(tmp_path / "a.png")
        assert {b"gAMA", b"iCCP", b"pHYs", b"eXIf", b"iTXt", b"tEXt", b"prVt"} <= dict(split_png(written)).keys()
        assert np.array_equal(load(written), np.asarray(image))  # not turned

    def test_interlaced(self, tmp_path: Path) -> None:
        levels = noise(1, 1, 3)  # one pixel is the same in Adam7
        path = write_png(tmp_path / "a.png", levels, kind=2, bits=8)
        data = path.read_bytes()
        header = data[16:28] + b"\1"
        path.write_bytes(data[:8] + png_chunk(b"IHDR", header) + data[33:])
        written = copy(path)
        assert split_png(written)[0][1][12] == 0
        assert np.array_equal(load(written), levels)

    @pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (700, 900)])
    @pytest.mark.parametrize("smooth", [False, True])
    def test_any_size(self, size: tuple[int, int], smooth: bool, tmp_path: Path) -> None:
        if smooth:
            levels = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1]))[..., None] // [3, 5, 7]
            levels = levels.astype(np.uint8)
        else:
            levels = noise(*size, 3)
        Image.fromarray(levels).save(tmp_path / "a.png")
        written = copy(tmp_path / "a.png")
        assert np.array_equal(load(written), levels)
        assert written.stat().st_size <= 1.05 * (tmp_path / "a.png").stat().st_size + 200

    @pytest.mark.parametrize("samples", [3, 4])
    def test_16_bit_color_stays_as_small(self, samples: int, tmp_path: Path) -> None:
        levels = np.add.outer(60 * np.arange(300), 20 * np.arange(400))[..., None] // [1, 2, 3, 4][:samples]
        path = tmp_path / "a.png"
        assert cv2.imwrite(str(path), levels.astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 6])
        assert copy(path).stat().st_size <= 1.05 * path.stat().st_size + 200


# --- JPEG


def split_jpeg(path: Path) -> list[tuple[int, bytes]]:
    """Marker and content of the segments with metadata."""
    data, position, segments = path.read_bytes(), 2, []
    while data[position + 1] != 0xDA:
        _, marker, length = struct.unpack_from(">BBH", data, position)
        segments.append((marker, data[position + 4 : position + 2 + length]))
        position += 2 + length
    return [segment for segment in segments if segment[0] in range(0xE0, 0xF0) or segment[0] == 0xFE]


def smooth_picture(mode: str) -> Image.Image:
    """A picture without sharp colors, which JPEG keeps well."""
    y, x = np.mgrid[0:64, 0:80]
    planes = [128 + 90 * np.sin(x / 9 + phase) * np.cos(y / 11) for phase in range({"L": 1, "RGB": 3, "CMYK": 4}[mode])]
    return Image.frombytes(mode, (80, 64), np.stack(planes, -1).astype(np.uint8).tobytes())


class TestJpeg:
    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    def test_modes(self, mode: str, tmp_path: Path) -> None:
        smooth_picture(mode).save(tmp_path / "a.jpg", quality=90)
        with Image.open(tmp_path / "a.jpg") as image:
            before = np.asarray(image).astype(int)
        (picture,) = read(tmp_path / "a.jpg")
        assert picture.alpha is None
        assert (picture.pixels.shape[0], picture.maximum) == {"L": (1, 255), "RGB": (3, 255), "CMYK": (3, 1)}[mode]
        with Image.open(copy(tmp_path / "a.jpg")) as image:
            assert image.mode == mode
            assert np.abs(np.asarray(image) - before).mean() < 1.5  # of the compression

    @pytest.mark.parametrize("stray", [b"\x00", b"\xff\x00", b"\xff\xff", b"abc"])
    def test_stray_bytes_between_segments(self, stray: bytes, tmp_path: Path) -> None:
        """Decoders pass over them."""
        smooth_picture("RGB").save(tmp_path / "a.jpg", comment=b"kept")
        data = (tmp_path / "a.jpg").read_bytes()
        table = data.index(b"\xff\xdb")
        (tmp_path / "a.jpg").write_bytes(data[:table] + stray + data[table:])
        with Image.open(copy(tmp_path / "a.jpg")) as image:
            image.load()
            assert image.info["comment"] == b"kept"

    def test_segments_that_cannot_be_told_apart_are_refused_when_it_is_read(self, tmp_path: Path) -> None:
        """Decoders take a marker of T.81 that stands alone; what it says of the bytes after it is no length."""
        smooth_picture("RGB").save(tmp_path / "a.jpg")
        data = (tmp_path / "a.jpg").read_bytes()
        table = data.index(b"\xff\xdb")
        (tmp_path / "a.jpg").write_bytes(data[:table] + b"\xff\xd0" + data[table:])
        with Image.open(tmp_path / "a.jpg") as image:
            image.load()
        with pytest.raises(DataError, match=r"a\.jpg: .*its segments are damaged"):
            read(tmp_path / "a.jpg")

    @pytest.mark.parametrize(("subsampling", "progressive"), [(0, False), (1, False), (2, True)])
    def test_compression(self, subsampling: int, progressive: bool, tmp_path: Path) -> None:
        smooth_picture("RGB").save(tmp_path / "a.jpg", quality=60, subsampling=subsampling, progressive=progressive)
        smooth_picture("RGB").save(tmp_path / "b.jpg", quality=95)
        with Image.open(copy(tmp_path / "a.jpg")) as image, Image.open(tmp_path / "b.jpg") as best:
            assert image.layer[0][1:3] == {0: (1, 1), 1: (2, 1), 2: (2, 2)}[subsampling]
            assert ("progressive" in image.info) == progressive
            assert image.quantization == best.quantization

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    def test_metadata_are_kept(self, mode: str, tmp_path: Path) -> None:
        smooth_picture(mode).save(
            tmp_path / "a.jpg", exif=exif(8), icc_profile=PROFILE * 40, dpi=(300, 200), comment="by hand"
        )
        data = (tmp_path / "a.jpg").read_bytes()
        photoshop = b"Photoshop 3.0\0" + b"8BIM\x04\x04" + bytes(8)
        extra = struct.pack(">BBH", 0xFF, 0xED, len(photoshop) + 2) + photoshop
        (tmp_path / "a.jpg").write_bytes(data[:2] + extra + data[2:])
        written = copy(tmp_path / "a.jpg")
        adobe = [segment for segment in split_jpeg(written) if segment[0] == 0xEE]
        assert len(adobe) == (mode == "CMYK")
        assert [s for s in split_jpeg(written) if s not in adobe] == [
            s for s in split_jpeg(tmp_path / "a.jpg") if s not in adobe
        ]
        assert {0xE0, 0xE1, 0xE2, 0xED, 0xFE} <= dict(split_jpeg(written)).keys()
        with Image.open(written) as image:
            assert image.size == (80, 64)
            assert image.getexif()[ExifTags.Base.Orientation] == 8
            assert image.info["icc_profile"] == PROFILE * 40

    def test_without_a_header_and_with_rgb_samples(self, tmp_path: Path) -> None:
        """Adobe's marker says how samples mean colors; that of the old ones must not stay with the new."""
        smooth_picture("RGB").save(tmp_path / "a.jpg", keep_rgb=True, subsampling=0, quality=95)
        before = load(tmp_path / "a.jpg").astype(int)
        assert 0xEE in dict(split_jpeg(tmp_path / "a.jpg"))
        written = copy(tmp_path / "a.jpg")
        assert 0xEE not in dict(split_jpeg(written))
        assert np.abs(load(written) - before).mean() < 1.5

    def test_of_several_pictures_the_first(self, tmp_path: Path) -> None:
        first, second = smooth_picture("RGB"), smooth_picture("L").convert("RGB")
        first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
        written = copy(tmp_path / "a.jpg")
        with Image.open(written) as image:
            assert image.format == "JPEG"
            assert np.abs(np.asarray(image).astype(int) - np.asarray(first)).mean() < 3


# --- TIFF

KINDS = {
    "gray": ((*SIZE,), {"photometric": "minisblack"}),
    "gray, white is 0": ((*SIZE,), {"photometric": "miniswhite"}),
    "gray and alpha": ((*SIZE, 2), {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [2]}),
    "RGB": ((*SIZE, 3), {"photometric": "rgb"}),
    "RGB in planes": ((3, *SIZE), {"photometric": "rgb", "planarconfig": "separate"}),
    "RGBA": ((*SIZE, 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "CMYK": ((*SIZE, 4), {"photometric": "separated"}),
    "CMYK and alpha": ((*SIZE, 5), {"photometric": "separated", "extrasamples": ["unassalpha"]}),
    "pages": ((4, *SIZE), {"photometric": "minisblack"}),
    "pages of RGB": ((4, *SIZE, 3), {"photometric": "rgb"}),
}  # fmt: skip
WAYS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"rowsperstrip": 5},
    {"tile": (16, 32)},
    {"compression": "zlib"},
    {"compression": "zlib", "byteorder": ">", "bigtiff": True, "rowsperstrip": 5},
    {"compression": "zlib", "predictor": 2},
    {"compression": "lzma", "tile": (32, 16)},
]


def tags_of(path: Path) -> list[list[tuple[str, Any]]]:
    """Tags of all pages, but those that say where and how the pixels are kept."""
    own = {
        "StripOffsets", "StripByteCounts", "RowsPerStrip", "TileOffsets", "TileByteCounts", "TileWidth", "TileLength",
        "Compression", "Predictor",
    }  # fmt: skip
    with tifffile.TiffFile(path) as file:
        return [[(tag.name, tag.value) for tag in page.tags if tag.name not in own] for page in file.pages]


class TestTiff:
    @pytest.mark.parametrize(
        ("dtype", "way"), [("uint8", {}), ("float32", {}), *(("uint16", way) for way in WAYS)], ids=str
    )
    @pytest.mark.parametrize("kind", KINDS)
    def test_pixels_and_tags(self, kind: str, dtype: str, way: dict[str, Any], tmp_path: Path) -> None:
        shape, options = KINDS[kind]
        levels = noise(*shape, dtype=dtype)
        path = tmp_path / "a.tif"
        about = {"resolution": (300, 200), "description": "a scan", "iccprofile": PROFILE, "software": "a scanner"}
        orientation = [(274, "H", 1, 6, True)]
        tifffile.imwrite(path, levels, extratags=orientation, **about, **options, **way)
        pictures = read(path)
        assert len(pictures) == (4 if kind.startswith("pages") else 1)
        assert {picture.maximum for picture in pictures} == ({1.0} if "CMYK" in kind else {float(DEPTHS[dtype])})
        written = copy(path)
        result = tifffile.imread(written)
        assert result.dtype == levels.dtype
        assert np.array_equal(result, levels)
        assert tags_of(written) == tags_of(path)
        with tifffile.TiffFile(written) as file:
            assert (file.byteorder, file.is_bigtiff) == (way.get("byteorder", "<"), way.get("bigtiff", False))
            assert file.pages[0].description == "a scan"
            assert all((page.compression == 8) == ("compression" in way) for page in file.pages)

    def test_pixels_are_those_of_the_file(self, tmp_path: Path) -> None:
        levels = noise(2, *SIZE, 4, dtype="uint16")
        tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", extrasamples=["unassalpha"])
        for picture, expected in zip(read(tmp_path / "a.tif"), levels, strict=True):
            assert picture.pixels.dtype == torch.uint16
            assert np.array_equal(as_hwc(picture), expected)

    def test_pages_of_several_kinds_and_sizes(self, tmp_path: Path) -> None:
        pages = [noise(20, 30, 3), noise(7, 9, dtype="uint16"), noise(11, 5, dtype="float32"), noise(20, 30)]
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for number, page in enumerate(pages):
                writer.write(page, description=f"page {number}", metadata=None)
        with tifffile.TiffFile(copy(tmp_path / "a.tif")) as file:
            for number, (page, expected) in enumerate(zip(file.pages, pages, strict=True)):
                assert page.description == f"page {number}"
                assert page.dtype == expected.dtype
                assert np.array_equal(page.asarray(), expected)

    def test_uncompressed_pixels_keep_their_place(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", noise(40, 50, 60), photometric="minisblack")
        written = copy(tmp_path / "a.tif")
        before = (tmp_path / "a.tif").read_bytes()
        start = written.read_bytes()[: len(before)]
        assert start[8:] == before[8:]  # but for the place of the first directory
        assert written.stat().st_size < len(before) + 40 * 400

    def test_new_pixels_of_compressed_pages(self, tmp_path: Path) -> None:
        """Noise is longer than what was there, and must not be written over what follows."""
        flat = np.zeros((3, 200, 300), np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", flat, photometric="minisblack", compression="zlib", iccprofile=PROFILE)
        pages = noise(*flat.shape, dtype="uint16")
        file = open_picture(tmp_path / "a.tif")
        new = [torch.from_numpy(page)[None] for page in pages]
        restored = (picture.with_pixels(pixels) for picture, pixels in zip(file.read(), new, strict=True))
        file.save(tmp_path / "b.tif", restored)
        assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pages)
        assert tags_of(tmp_path / "b.tif") == tags_of(tmp_path / "a.tif")

    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_lzma"])
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "P", "I;16", "F"])
    def test_of_pillow(self, mode: str, compression: str | None, tmp_path: Path) -> None:
        image = self.picture(mode)
        image.save(tmp_path / "a.tif", compression=compression, dpi=(300, 200), icc_profile=PROFILE, exif=exif(1))
        written = copy(tmp_path / "a.tif")
        after = {"1": "L", "P": "RGB"}.get(mode, mode)
        with Image.open(written) as result, Image.open(tmp_path / "a.tif") as original:
            assert result.mode == after
            assert np.array_equal(np.asarray(result), np.asarray(original.convert(after)))
            assert result.info["dpi"] == original.info["dpi"]
            assert result.info["icc_profile"] == PROFILE
            assert result.getexif()[ExifTags.Base.Make] == "a maker"

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_exif_of_a_camera(self, compression: str | None, tmp_path: Path) -> None:
        """A directory within that of the page, at the end of the file."""
        path, levels = tmp_path / "a.tif", noise(*SIZE, 3, dtype="uint16")
        tifffile.imwrite(path, levels, photometric="rgb", compression=compression, extratags=[(34664, "I", 1, 8, True)])
        place = path.stat().st_size
        with tifffile.TiffFile(path) as file:
            entry = file.pages[0].tags[34664].offset
        with path.open("r+b") as file:
            file.seek(entry)
            file.write(struct.pack("<HHII", 34665, 4, 1, place))
            file.seek(place)
            file.write(struct.pack("<HHHIHHI", 1, ExifTags.Base.ISOSpeedRatings, 3, 1, 1600, 0, 0))
        written = copy(path)
        with tifffile.TiffFile(written) as file:
            assert file.pages[0].tags[34665].value == {"ISOSpeedRatings": 1600}
            assert np.array_equal(file.asarray(), levels)

    def picture(self, mode: str) -> Image.Image:
        if mode == "P":
            return Image.frombytes("RGB", SIZE[::-1], noise(*SIZE, 3).tobytes()).quantize(30)
        if mode == "1":
            return Image.frombytes("L", SIZE[::-1], noise(*SIZE).tobytes()).convert("1")
        if mode in ("I;16", "F"):
            return Image.fromarray(noise(*SIZE, dtype="uint16" if mode == "I;16" else "float32"))
        return Image.frombytes(mode, SIZE[::-1], noise(*SIZE, len(mode)).tobytes())

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    def test_pixels_are_not_turned(self, orientation: int, compression: str | None, tmp_path: Path) -> None:
        image = self.picture("RGB")
        image.save(tmp_path / "a.tif", compression=compression, exif=exif(orientation))
        (picture,) = read(tmp_path / "a.tif")
        assert np.array_equal(as_hwc(picture), np.asarray(image))
        with tifffile.TiffFile(copy(tmp_path / "a.tif")) as file:
            assert file.pages[0].tags["Orientation"].value == orientation
            assert np.array_equal(file.pages[0].asarray(), np.asarray(image))

    def test_many_strips_of_pillow(self, tmp_path: Path) -> None:
        image = Image.frombytes("RGB", (400, 300), noise(300, 400, 3).tobytes())
        image.save(
            tmp_path / "a.tif", compression="tiff_lzw", strip_size=5000, save_all=True, append_images=[image] * 2
        )
        written = copy(tmp_path / "a.tif")
        assert np.array_equal(tifffile.imread(written), np.stack([np.asarray(image)] * 3))

    def test_jpeg_within(self, tmp_path: Path) -> None:
        image = smooth_picture("RGB")
        image.save(tmp_path / "a.tif", compression="jpeg", quality=90)
        expected = load(tmp_path / "a.tif")
        written = copy(tmp_path / "a.tif")
        assert np.array_equal(load(written), expected)
        assert np.array_equal(tifffile.imread(written), expected)

    def test_fax_of_which_white_is_0(self, tmp_path: Path) -> None:
        image = self.picture("1")
        image.save(tmp_path / "a.tif", compression="group4", tiffinfo={262: 0})
        expected = load(tmp_path / "a.tif", "L")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages[0].photometric == 0
        assert np.array_equal(load(copy(tmp_path / "a.tif")), expected)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_lzw_of_which_white_is_0(self, dtype: str, tmp_path: Path) -> None:
        image = Image.fromarray(noise(*SIZE, dtype=dtype))
        image.save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
        expected = load(tmp_path / "a.tif")
        assert np.array_equal(load(copy(tmp_path / "a.tif")), expected)

    def test_bits_in_the_other_order(self, tmp_path: Path) -> None:
        self.picture("L").save(tmp_path / "a.tif", tiffinfo={266: 2}, compression="packbits")
        expected = tifffile.imread(tmp_path / "a.tif")
        assert np.array_equal(tifffile.imread(copy(tmp_path / "a.tif")), expected)

    def test_of_imagej(self, tmp_path: Path) -> None:
        levels = noise(2, 3, 2, 20, 30, dtype="uint16")
        about = {"axes": "TZCYX", "spacing": 0.5, "unit": "um", "Labels": [f"slice {number}" for number in range(12)]}
        tifffile.imwrite(tmp_path / "a.tif", levels, imagej=True, metadata=about, resolution=(2, 2))
        written = copy(tmp_path / "a.tif")
        assert np.array_equal(tifffile.imread(written), levels)
        with tifffile.TiffFile(written) as file, tifffile.TiffFile(tmp_path / "a.tif") as original:
            assert file.imagej_metadata == original.imagej_metadata
            assert file.series[0].axes == "TZCYX"

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_of_microscopes(self, compression: str | None, tmp_path: Path) -> None:
        levels = noise(3, 2, 20, 30, dtype="uint16")
        about = {"axes": "ZCYX", "PhysicalSizeX": 0.1, "Channel": {"Name": ["a", "b"]}}
        tifffile.imwrite(tmp_path / "a.ome.tif", levels, metadata=about, compression=compression, tile=(16, 16))
        written = copy(tmp_path / "a.ome.tif")
        with tifffile.TiffFile(written) as file, tifffile.TiffFile(tmp_path / "a.ome.tif") as original:
            assert file.ome_metadata == original.ome_metadata
            assert file.series[0].axes == "ZCYX"
            assert np.array_equal(file.asarray(), levels)

    def test_other_tools_read_it(self, tmp_path: Path) -> None:
        levels = noise(*SIZE, 3, dtype="uint16")
        tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", compression="zlib", predictor=2, rowsperstrip=4)
        result = cv2.imread(str(copy(tmp_path / "a.tif")), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(result[..., ::-1], levels)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_values_that_are_not_finite(self, value: float, tmp_path: Path) -> None:
        levels = noise(2, *SIZE, dtype="float32")
        levels[1, 3, 4] = value
        tifffile.imwrite(tmp_path / "a.tif", levels, photometric="minisblack")
        refused(tmp_path / "a.tif", "NaN or infinite")

    def test_floats_that_noise_leads_out_of_their_range(self, tmp_path: Path) -> None:
        levels = 3 * noise(*SIZE, dtype="float32") - 1
        tifffile.imwrite(tmp_path / "a.tif", levels)
        assert np.array_equal(tifffile.imread(copy(tmp_path / "a.tif")), levels)

    def test_floats_on_another_scale(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 255]], np.float32))
        refused(tmp_path / "a.tif", "float pixels must be in [0, 1]", "from 0 to 255")

    @pytest.mark.parametrize(
        ("levels", "options", "words"),
        [
            (noise(*SIZE).astype(np.int16), {}, "page 1: samples must be 8 or 16-bit integers"),
            (noise(*SIZE).astype(np.uint32), {}, "got 32-bit uint32"),
            (noise(*SIZE).astype(np.float64), {}, "got 64-bit float64"),
            (noise(*SIZE).astype(np.complex64), {}, "got 64-bit complex64"),
            (noise(*SIZE).astype(np.float16), {}, "got 16-bit float16"),
            (noise(*SIZE, 5), {"photometric": "minisblack", "planarconfig": "contig"}, "5 samples for each pixel"),
            (noise(*SIZE, 2), {"photometric": "minisblack", "planarconfig": "contig"}, "2 samples for each pixel"),
            (noise(*SIZE, 3), {"photometric": "cielab"}, "colors must be gray, RGB, a palette or CMYK, got CIELAB"),
            (noise(*SIZE, dtype="uint16"), {"colormap": np.zeros((3, 65536), "u2")}, "got palettes of 16-bit"),
            (noise(8, *SIZE), {"volumetric": True, "photometric": 1, "tile": (16, 16, 16)}, "page 1: colors must be"),
        ],
    )  # fmt: skip
    def test_kinds_that_are_refused(
        self, levels: np.ndarray, options: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", levels, **options)
        refused(tmp_path / "a.tif", words)

    def test_deep_color_that_only_imagecodecs_can_read(self, tmp_path: Path) -> None:
        assert cv2.imwrite(str(tmp_path / "a.tif"), noise(*SIZE, 3, dtype="uint16"))  # compressed with LZW
        if 5 in tifffile.TIFF.DECOMPRESSORS:
            pytest.skip("imagecodecs is there")
        refused(tmp_path / "a.tif", "16-bit color compressed by LZW needs the package imagecodecs")

    @pytest.mark.parametrize("writer", ["ImageJ", "tifffile", "MetaMorph"])
    def test_images_that_are_no_pages(self, writer: str, tmp_path: Path) -> None:
        """Stacks of one directory, with what their writers say of the images behind the first."""
        about: dict[str, Any] = {
            "ImageJ": {"description": "ImageJ=1.53\nimages=3\nslices=3\n"},
            "tifffile": {"description": '{"shape": [3, 23, 37], "truncated": true}'},
            "MetaMorph": {"extratags": [(33629, "I", 3, (1, 2, 3), True)]},
        }[writer]
        tifffile.imwrite(tmp_path / "a.tif", noise(*SIZE), metadata=None, **about)
        refused(tmp_path / "a.tif", "images that are no pages")

    def test_offsets_that_do_not_fit(self) -> None:
        with pytest.raises(DataError, match="does not fit into a TIFF file of 4 GB"):
            Layout("<", big=False).pack_offset(2**32)
        assert Layout(">", big=True).pack_offset(2**32) == bytes([0, 0, 0, 1, 0, 0, 0, 0])


# --- inks


class TestInks:
    @pytest.mark.parametrize("dtype", DEPTHS)
    def test_unchanged_light_gives_the_same_inks(self, dtype: str) -> None:
        inks = noise(4, 50, 60, dtype=dtype)
        inks[3, :5] = DEPTHS[dtype]
        inks[:, 5:8] = DEPTHS[dtype]
        inks[3, 10:15] = 0
        assert np.array_equal(light_to_inks(inks_to_light(inks), inks), inks)

    def test_light_is_that_of_pillow(self) -> None:
        inks = noise(4, 50, 60)
        image = Image.frombytes("CMYK", (60, 50), inks.transpose(1, 2, 0).tobytes())
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)
        assert np.abs(255 * inks_to_light(inks) - expected).max() <= 1.5  # it rounds twice

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_inks_give_the_light_that_was_asked_for(self, dtype: str) -> None:
        inks, light = noise(4, 50, 60, dtype=dtype), noise(3, 50, 60, dtype="float32", seed=1)
        result = light_to_inks(light, inks)
        assert (result[3] <= inks[3]).all()
        assert np.abs(inks_to_light(result) - light).max() <= 1.1 / DEPTHS[dtype]  # two inks are rounded

    def test_changed_pixels_of_a_file(self, tmp_path: Path) -> None:
        Image.frombytes("CMYK", SIZE[::-1], noise(*SIZE, 4).tobytes()).save(tmp_path / "a.tif")
        file = open_picture(tmp_path / "a.tif")
        file.save(tmp_path / "b.tif", [picture.with_pixels(picture.pixels / 2) for picture in file.read()])
        before, after = (read(tmp_path / name)[0].pixels for name in ("a.tif", "b.tif"))
        torch.testing.assert_close(after, before / 2, atol=1.1 / 255, rtol=0)


# --- files that cannot be read, and what is written


def good(path: Path) -> Path:
    """A file of the kind that its suffix tells."""
    if path.suffix == ".jpg":
        smooth_picture("RGB").save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, noise(2, 60, 70, 3, dtype="uint16"), photometric="rgb", compression="zlib")
    else:
        write_png(path, noise(60, 70, 3, dtype="uint16"), kind=2)
    return path


class TestHostileFiles:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
    def test_empty(self, suffix: str, tmp_path: Path) -> None:
        (tmp_path / f"a{suffix}").write_bytes(b"")
        refused(tmp_path / f"a{suffix}", "the file is empty")

    @pytest.mark.parametrize(
        "content", [b"no image at all", b"GIF89a" + bytes(20), b"\x89PNG", b"II*\0", b"\xff\xd8\xff"]
    )
    def test_no_images(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(content)
        refused(tmp_path / "a.png", "cannot be read as an image")

    def test_missing_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.png: cannot be read as an image \(No such file"):
            open_picture(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"cannot be read as an image \(Is a directory"):
            open_picture(tmp_path)

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
    def test_cut_off(self, suffix: str, share: float, tmp_path: Path) -> None:
        path = good(tmp_path / f"a{suffix}")
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        refused(path)

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
        early=st.booleans(),
    )
    def test_bytes_changed(
        self, suffix: str, changes: list[tuple[float, int]], early: bool, tmp_path: Path
    ) -> None:  # fmt: skip
        path = good(tmp_path / f"a{suffix}")
        data = bytearray(path.read_bytes())
        for place, value in changes:
            data[int(place * (min(200, len(data)) if early else len(data)))] = value
        path.write_bytes(data)
        try:
            copy(path)
        except DataError as problem:
            assert str(path) in str(problem)  # noqa: PT017 (whether it is damaged depends on the bytes)

    def test_a_bomb_in_png(self, tmp_path: Path) -> None:
        bomb = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
        start = b"\x89PNG\r\n\x1a\n" + bomb + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(start)
        refused(tmp_path / "a.png", "decompression bomb")
        (tmp_path / "a.png").write_bytes(start.replace(bomb, png_chunk(b"IHDR", bomb[8:16] + b"\x10\2\0\0\0")))
        refused(tmp_path / "a.png", "decompression bomb")

    def test_a_bomb_in_jpeg(self, tmp_path: Path) -> None:
        smooth_picture("RGB").save(tmp_path / "a.jpg")
        data = (tmp_path / "a.jpg").read_bytes()
        frame = data.index(b"\xff\xc0") + 5
        (tmp_path / "a.jpg").write_bytes(data[:frame] + struct.pack(">HH", 60000, 60000) + data[frame + 4 :])
        refused(tmp_path / "a.jpg", "decompression bomb")

    @pytest.mark.parametrize("compression", ["zlib", None])
    def test_a_bomb_in_tiff(self, compression: str | None, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise(*SIZE), compression=compression, rowsperstrip=SIZE[0])
        with tifffile.TiffFile(path, mode="r+") as file:
            tags = file.pages[0].tags
            for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                tags[name].overwrite(60000)
        refused(path, "decompression bomb" if compression else "lacks pixels")

    def test_pages_that_lead_back(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise(*SIZE))
        with tifffile.TiffFile(path) as file:
            start = file.pages[0].offset
            following = start + 2 + 12 * len(list(file.pages[0].tags))
        data = bytearray(path.read_bytes())
        data[following : following + 4] = struct.pack("<I", start)
        path.write_bytes(data)
        refused(path, "lead back to an earlier one")

    def test_a_chunk_that_is_damaged(self, tmp_path: Path) -> None:
        path = good(tmp_path / "a.png")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        refused(path, "its chunk IDAT is damaged")

    def test_animations(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(noise(*SIZE, seed=seed)) for seed in range(3)]
        frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
        refused(tmp_path / "a.png", "animated PNG files are not supported")

    def test_nothing_is_said_on_the_way(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = good(tmp_path / "a.tif")
        data = bytearray(path.read_bytes())
        data[len(data) - 300 :] = bytes(300)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            refused(path)
        assert capfd.readouterr() == ("", "")

    def test_without_opencv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "cv2", None)  # as if it were not installed
        refused(good(tmp_path / "a.png"), "pip install 'genaug[opencv]'")
        Image.fromarray(noise(*SIZE, dtype="uint16")).save(tmp_path / "a.png")
        copy(tmp_path / "a.png")


class TestSaving:
    def test_replaces_a_file_whole_and_makes_folders(self, tmp_path: Path) -> None:
        file = open_picture(good(tmp_path / "a.png"))
        target = tmp_path / "new" / "folder" / ("b" * 251 + ".png")
        file.save(target, file.read())
        first = target.read_bytes()
        target.write_bytes(b"other")
        file.save(target, file.read())
        assert target.read_bytes() == first
        assert [path.name for path in target.parent.iterdir()] == [target.name]
        (tmp_path / "plain").write_bytes(b"")
        assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_a_failure_leaves_what_was_there(self, tmp_path: Path) -> None:
        file = open_picture(good(tmp_path / "a.tif"))
        (tmp_path / "b.tif").write_bytes(b"precious")

        def fail() -> Any:
            yield next(file.read())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            file.save(tmp_path / "b.tif", fail())
        assert (tmp_path / "b.tif").read_bytes() == b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]

    def test_where_it_cannot_be_written(self, tmp_path: Path) -> None:
        file = open_picture(good(tmp_path / "a.png"))
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(GenaugError, match=r"file/b\.png: cannot be written"):
            file.save(tmp_path / "file" / "b.png", file.read())

    @pytest.mark.parametrize(
        "change", [lambda pixels: pixels[:1], lambda pixels: pixels.float(), lambda pixels: pixels[..., 1:]]
    )
    def test_other_pixels_are_refused(self, change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
        (picture,) = read(good(tmp_path / "a.png"))
        with pytest.raises(DataError, match=r"pixels must be torch.uint16 of shape \(3, 60, 70\) as before"):
            picture.with_pixels(change(picture.pixels))

    def test_alpha_is_not_touched(self, tmp_path: Path) -> None:
        levels = noise(*SIZE, 4)
        Image.fromarray(levels).save(tmp_path / "a.png")
        file = open_picture(tmp_path / "a.png")
        file.save(tmp_path / "b.png", [picture.with_pixels(255 - picture.pixels) for picture in file.read()])
        result = load(tmp_path / "b.png")
        assert np.array_equal(result[..., 3], levels[..., 3])
        assert np.array_equal(result[..., :3], 255 - levels[..., :3])


class TestFinding:
    def test_pictures_below_a_folder(self, tmp_path: Path) -> None:
        names = [
            "b.PNG",
            "a/z.jpeg",
            "a/b/c.TIFF",
            "a/x.tif",
            "z.jpg",
            "notes.txt",
            "a/b.gif",
            ".hidden.png",
            ".git/a.png",
        ]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
        (tmp_path / "linked").symlink_to(tmp_path / "a" / "b")
        files, others = find_pictures(tmp_path)
        expected = ["a/b/c.TIFF", "a/x.tif", "a/z.jpeg", "b.PNG", "linked/c.TIFF", "lost.png", "z.jpg"]
        assert [path.relative_to(tmp_path).as_posix() for path in files] == expected
        assert others == 2

    def test_a_link_that_leads_back(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "up").symlink_to(tmp_path)
        with pytest.raises(DataError, match="a/up: is a link that leads back to a folder above it"):
            find_pictures(tmp_path)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"x: cannot be read \(No such file"):
            find_pictures(tmp_path / "x")


def test_the_kind_is_told_by_the_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    smooth_picture("RGB").save(buffer, "JPEG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with Image.open(copy(tmp_path / "a.png")) as image:
        assert image.format == "JPEG"
