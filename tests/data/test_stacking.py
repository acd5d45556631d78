"""Pixels of images of every mode, as they come into one tensor."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from genaug.data import from_dataset, load_data
from genaug.errors import DataError

LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


def picture(index: int = 0, mode: str = "L") -> Image.Image:
    return Image.fromarray(LEVELS[index]).convert(mode)


def load_one(folder: Path, image: Image.Image, name: str = "1.png", **options: Any) -> torch.Tensor:
    (folder / "a").mkdir(exist_ok=True)
    image.save(folder / "a" / name, **options)
    return load_data(folder).images[0]


class TestModes:
    @pytest.mark.parametrize("mode", ["L", "1"])
    def test_gray_stays_gray(self, tmp_path: Path, mode: str) -> None:
        image = picture(5).point(lambda level: 255 * (level > 99)).convert(mode)
        pixels = load_one(tmp_path, image)
        assert np.array_equal(pixels[0].numpy(), np.where(LEVELS[5] > 99, 255, 0))
        assert len(pixels) == 1

    @pytest.mark.parametrize(("mode", "name"), [("RGB", "1.png"), ("P", "1.png"), ("RGBA", "1.png")])
    def test_others_become_rgb(self, tmp_path: Path, mode: str, name: str) -> None:
        pixels = load_one(tmp_path, picture(5).convert(mode), name)
        assert np.array_equal(pixels.numpy(), np.stack([LEVELS[5]] * 3))

    @pytest.mark.parametrize("mode", ["LA", "La"])
    def test_gray_with_alpha_is_gray_on_white(self, mode: str) -> None:
        alpha = np.full((8, 8), 255, dtype=np.uint8)
        alpha[:4] = 0
        image = picture(5)
        image = Image.merge("LA", [image, Image.fromarray(alpha)]).convert(mode)
        pixels = from_dataset([(image, 0), (picture(6), 1)]).images
        assert np.array_equal(pixels.numpy()[:, 0], [np.where(alpha, LEVELS[5], 255), LEVELS[6]])
        assert pixels.shape == (2, 1, 8, 8)

    def test_gray_with_alpha_is_read_as_gray(self, tmp_path: Path) -> None:
        assert np.array_equal(load_one(tmp_path, picture(5).convert("LA")).numpy(), LEVELS[None, 5])

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        color = Image.merge("RGB", [picture(index) for index in range(3)])
        pixels = load_one(tmp_path, color.convert("CMYK"), "1.tif")
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(color))

    def test_one_color_image_makes_all_rgb(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        color = Image.merge("RGB", [picture(index) for index in range(3)])
        for number, image in enumerate([picture(7), picture(8), color, picture(9)]):
            image.save(tmp_path / "a" / f"{number}.png")
        images = load_data(tmp_path).images.numpy()
        assert np.array_equal(images[2], LEVELS[:3])
        for number, index in ((0, 7), (1, 8), (3, 9)):
            assert np.array_equal(images[number], np.stack([LEVELS[index]] * 3))

    def test_transparent_pixels_are_laid_on_white(self, tmp_path: Path) -> None:
        image = picture(5, "RGBA")
        alpha = np.zeros((8, 8), dtype=np.uint8)
        alpha[4:] = 255
        image.putalpha(Image.fromarray(alpha))
        pixels = load_one(tmp_path, image).numpy()
        assert (pixels[:, :4] == 255).all()
        assert np.array_equal(pixels[0, 4:], LEVELS[5][4:])

    def test_a_transparent_level_of_a_gray_image_is_white_too(self, tmp_path: Path) -> None:
        pixels = load_one(tmp_path, picture(5), transparency=0).numpy()
        assert np.array_equal(pixels[0], np.where(LEVELS[5] == 0, 255, LEVELS[5]))
        assert len(pixels) == 1

    def test_a_transparent_color_of_a_palette(self, tmp_path: Path) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.putpixel((2, 3), 0)
        pixels = load_one(tmp_path, image, transparency=0)
        assert pixels[:, 3, 2].tolist() == [255, 255, 255]
        assert pixels[:, 0, 0].tolist() == [10, 20, 30]

    def test_exif_orientation_is_applied(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.kron(LEVELS[1], np.ones((8, 16), dtype=np.uint8)))  # 64 high and 128 wide
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        pixels = load_one(tmp_path, image, "1.jpg", exif=exif, quality=95)
        assert tuple(pixels.shape) == (1, 128, 64)
        plain = io.BytesIO()
        image.save(plain, "JPEG", quality=95)
        assert np.array_equal(pixels[0].numpy(), np.rot90(np.asarray(Image.open(plain)), k=-1))

    @pytest.mark.parametrize(("mode", "name"), [("I", "deep.tif"), ("F", "deep.tiff")])
    def test_deeper_images_are_refused(self, tmp_path: Path, mode: str, name: str) -> None:
        with pytest.raises(DataError, match=rf"{name}: images must have 8 or 16 bits per channel, got mode {mode}"):
            load_one(tmp_path, picture().convert(mode), name)


def test_resize_of_tensors_is_antialiased() -> None:
    digits = load_data("digits")
    data = from_dataset(digits, resize=(4, 6))
    assert data.spec.size == "1x4x6"
    oracle = v2.functional.resize(digits.images, [4, 6], antialias=True)
    assert torch.equal(data.images, oracle)
    floats = from_dataset([(image / 255, label) for image, label in digits], resize=(4, 6))
    assert (floats.images.int() - oracle.int()).abs().max() <= 1  # fixed-point weights of the uint8 kernel


def test_half_precision_can_be_resized() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = from_dataset([(image, 0)], resize=(4, 4))
    for dtype in (torch.float16, torch.bfloat16):
        half = from_dataset([(image.to(dtype), 0)], resize=(4, 4))
        assert (half.images.int() - whole.images.int()).abs().max() <= 2
