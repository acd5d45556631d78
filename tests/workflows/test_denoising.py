"""Restoring files and folders: what becomes of pixels, what is written, skipped, refused and counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from genaug import DataSpec
from genaug.errors import DataError, GenaugError
from genaug.transforms.operations import Restore
from genaug.workflows.denoising import Outcome, restore_picture, run_denoising


class MeanFilter(nn.Module):
    """The mean over squares of so many pixels; a mean over one pixel changes nothing."""

    def __init__(self, channels: int = 1, size: int = 3) -> None:
        super().__init__()
        self.spec = DataSpec(channels=channels)
        self.size = size
        self.seen: list[tuple[tuple[int, ...], float | None]] = []

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        self.spec.check_images(images)
        self.seen.append((tuple(images.shape), noise_level))
        side = self.size // 2
        padded = nn.functional.pad(images.float(), (side,) * 4, mode="replicate")
        return nn.functional.avg_pool2d(padded, self.size, stride=1)


class Tiled(MeanFilter):
    """The same, which says what `tile` it got."""

    def restore(self, images: Tensor, *, noise_level: float | None = None, tile: int = 512) -> Tensor:
        self.tile = tile
        return super().restore(images, noise_level=noise_level)


class Broken(MeanFilter):
    """Gives what no model should give, or fails."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result(images)


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).random(shape)
    highest = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    return (levels if dtype == "float32" else (levels * highest).round()).astype(dtype)


def write(path: Path, levels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, levels, photometric="rgb" if levels.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(levels).save(path)
    return path


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def restore(model: Any, pixels: Tensor, **options: Any) -> Tensor:
    return restore_picture(Restore(model, **options), pixels)


def run(model: Any, source: Path, **options: Any) -> Outcome:
    return run_denoising(model, input=source, progress=False, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of gray pictures, and files that are none."""
    folder = tmp_path / "photos"
    write(folder / "a.png", noise(9, 7))
    write(folder / "deep" / "b.jpg", noise(16, 16, seed=1))
    write(folder / "deep" / "c.tif", noise(3, 5, 6, dtype="uint16", seed=2))
    (folder / "notes.txt").write_text("none")
    write(folder / ".hidden" / "d.png", noise(4, 4))
    return folder


def test_files_are_restored_page_by_page(photos, tmp_path, capsys):
    outcome = run(MeanFilter(), photos, output=tmp_path / "out")
    assert outcome == Outcome(restored=3, skipped=0, failed=0, ignored=1)
    shown = capsys.readouterr()
    assert shown.out == f"3 restored, 0 skipped, 0 failed: {tmp_path / 'out'}; 1 other files ignored\n"
    assert shown.err == ""
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "deep/b.jpg", "deep/c.tif"]
    mean = uniform_filter(load(photos / "a.png").astype(float), 3, mode="nearest")
    assert np.abs(load(tmp_path / "out/a.png") - mean).max() <= 0.5 + 1e-3
    pages, before = tifffile.imread(tmp_path / "out/deep/c.tif"), tifffile.imread(photos / "deep/c.tif")
    assert pages.dtype == np.uint16
    for page, old in zip(pages, before, strict=True):
        assert np.abs(page - uniform_filter(old.astype(float), 3, mode="nearest")).max() <= 0.5 + 1e-2


def test_one_file_of_any_suffix(tmp_path):
    write(tmp_path / "a.png", noise(9, 7)).rename(tmp_path / "scan.001")
    assert run(MeanFilter(size=1), tmp_path / "scan.001", output=tmp_path / "out").restored == 1
    assert np.array_equal(load(tmp_path / "out/scan.001"), noise(9, 7))


def test_metadata_are_kept(tmp_path):
    about = Image.Exif()
    about[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise(9, 7)).save(tmp_path / "a.png", exif=about, dpi=(300, 300))
    run(MeanFilter(), tmp_path / "a.png", output=tmp_path / "out")
    with Image.open(tmp_path / "out/a.png") as image, Image.open(tmp_path / "a.png") as original:
        assert image.size == (7, 9)
        assert image.getexif()[ExifTags.Base.Orientation] == 6
        assert image.info["dpi"] == original.info["dpi"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
class TestRestoringPixels:
    def test_an_identity_gives_the_same_bits(self, dtype):
        levels = noise(1, 50, 60, dtype=dtype)
        levels.ravel()[:2] = [0, 1 if dtype == "float32" else np.iinfo(dtype).max]
        pixels = torch.from_numpy(levels)
        for strength in (0.0, 0.3, 1.0):
            restored = restore(MeanFilter(size=1), pixels, strength=strength)
            assert restored.dtype == pixels.dtype
            assert torch.equal(restored, pixels)

    @pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
    def test_strength_blends(self, dtype, strength):
        levels = noise(1, 20, 30, dtype=dtype)
        highest = 1 if dtype == "float32" else np.iinfo(dtype).max
        mean = uniform_filter(levels[0].astype(float), 3, mode="nearest")
        restored = restore(MeanFilter(), torch.from_numpy(levels), strength=strength)
        expected = (1 - strength) * levels[0] + strength * mean
        rounding = 0 if dtype == "float32" else 0.5
        assert np.abs(restored[0].numpy() - expected).max() <= rounding + 2e-7 * highest

    def test_colors_through_a_gray_model_one_by_one(self, dtype):
        pixels = torch.from_numpy(noise(3, 20, 30, dtype=dtype))
        model = MeanFilter()
        restored = restore(model, pixels, channels="convert", noise_level=0.1)
        assert model.seen == [((3, 1, 20, 30), 0.1)]
        for channel in range(3):
            assert torch.equal(restored[[channel]], restore(model, pixels[[channel]]))

    def test_gray_through_a_color_model(self, dtype):
        pixels = torch.from_numpy(noise(1, 20, 30, dtype=dtype))
        model = MeanFilter(channels=3)
        restored = restore(model, pixels, channels="convert")
        assert model.seen == [((1, 3, 20, 30), None)]
        expected = restore(MeanFilter(), pixels)
        difference = (restored.double() - expected.double()).abs().max()
        assert difference <= (2e-7 if dtype == "float32" else 1)  # the mean of three rounds otherwise

    @pytest.mark.parametrize(
        ("present", "wanted", "channels", "message"),
        [
            (3, 1, "match", r"of 1 channels \(gray\), and the picture has 3 \(color\); pass --channels convert"),
            (1, 3, "match", r"of 3 channels \(color\), and the picture has 1 \(gray\); pass --channels convert"),
            (3, 2, "convert", r"\(neither gray nor color\), .*; use another model"),
            (1, 4, "match", r"use another model"),
        ],
    )
    def test_other_channels(self, dtype, present, wanted, channels, message):
        with pytest.raises(GenaugError, match=message) as caught:
            restore(MeanFilter(wanted), torch.from_numpy(noise(present, 4, 4, dtype=dtype)), channels=channels)
        assert not isinstance(caught.value, DataError)


def test_floats_beyond_their_range_are_blended_as_they_are():
    pixels = torch.tensor([[[-0.5, 1.5]]])
    model = Broken(lambda images: images.clamp(0, 1))
    assert restore(model, pixels, strength=0.5).tolist() == [[[-0.25, 1.25]]]


def test_alpha_and_the_kinds_of_color(tmp_path):
    levels = noise(9, 7, 4)
    Image.fromarray(levels).save(tmp_path / "a.png")
    run(MeanFilter(), tmp_path / "a.png", output=tmp_path / "out", channels="convert")
    result = load(tmp_path / "out/a.png")
    assert np.array_equal(result[..., 3], levels[..., 3])
    expected = uniform_filter(levels[..., :3].astype(float), (3, 3, 1), mode="nearest")
    assert np.abs(result[..., :3] - expected).max() <= 0.5 + 1e-3


def test_options_reach_the_model(tmp_path):
    write(tmp_path / "a.png", noise(9, 7))
    model = Tiled()
    run(model, tmp_path / "a.png", output=tmp_path / "out", noise_level=0.2, tile=64)
    assert (model.tile, model.seen) == (64, [((1, 1, 9, 7), 0.2)])
    run(model, tmp_path / "a.png", output=tmp_path / "two")
    assert (model.tile, model.seen[1]) == (512, ((1, 1, 9, 7), None))
    with pytest.raises(GenaugError, match="tile: MeanFilter restores pictures as a whole, got 64; leave --tile"):
        run(MeanFilter(), tmp_path / "a.png", output=tmp_path / "three", tile=64)


class TestWhatExists:
    def test_is_skipped_and_told(self, photos, tmp_path, capsys):
        out = tmp_path / "out"
        (out / "deep").mkdir(parents=True)
        (out / "a.png").write_bytes(b"precious")
        (out / "deep" / "b.jpg").symlink_to(tmp_path / "nowhere")
        assert run(MeanFilter(), photos, output=out) == Outcome(1, 2, 0, 1)
        shown = capsys.readouterr()
        assert shown.err.splitlines() == [
            f"{out / name}: exists already, skipped; --overwrite replaces it" for name in ("a.png", "deep/b.jpg")
        ]
        assert "1 restored, 2 skipped, 0 failed" in shown.out
        assert (out / "a.png").read_bytes() == b"precious"
        assert run(MeanFilter(), photos, output=out) == Outcome(0, 3, 0, 1)

    def test_is_replaced_where_that_is_asked_for(self, photos, tmp_path):
        out = tmp_path / "out"
        run(MeanFilter(), photos, output=out)
        first = (out / "a.png").read_bytes()
        (out / "a.png").write_bytes(b"other")
        (out / "mine.txt").write_text("stays")
        assert run(MeanFilter(), photos, output=out, overwrite=True) == Outcome(3, 0, 0, 1)
        assert (out / "a.png").read_bytes() == first
        assert (out / "mine.txt").read_text() == "stays"

    def test_many_are_told_in_a_few_lines(self, tmp_path, capsys):
        for number in range(13):
            write(tmp_path / "in" / f"{number:02}.png", noise(3, 3))
        run(MeanFilter(), tmp_path / "in", output=tmp_path / "out")
        run(MeanFilter(), tmp_path / "in", output=tmp_path / "out")
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 11
        assert lines[-1] == "... and 3 more"


class TestFailures:
    def test_are_told_counted_and_left_out(self, photos, tmp_path, capsys):
        (photos / "bad.png").write_bytes(b"")
        (photos / "deep" / "bad.tif").write_bytes(b"II*\0 no directories")
        floats = noise(5, 5, dtype="float32")
        floats[2, 2] = np.nan
        write(photos / "nan.tif", floats)
        (photos / "lost.png").symlink_to(tmp_path / "nowhere")
        out = tmp_path / "out"
        assert run(MeanFilter(), photos, output=out) == Outcome(3, 0, 4, 1)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[:2] for line in lines] == [
            ["error", str(photos / name)] for name in ("bad.png", "deep/bad.tif", "lost.png", "nan.tif")
        ]
        assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["a.png", "b.jpg", "c.tif"]

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (lambda images: images * torch.nan, "the model must give finite values, got NaN or infinite ones"),
            (DataError("images must be of another size"), "a.png: images must be of another size"),
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "restore it in parts with --tile"),
        ],
    )
    def test_of_the_model_with_one_picture(self, result, message, tmp_path, capsys):
        write(tmp_path / "a.png", noise(3, 3))
        assert run(Broken(result), tmp_path / "a.png", output=tmp_path / "out") == Outcome(0, 0, 1, 0)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / 'a.png'}: ")
        assert message in line
        assert not list((tmp_path / "out").iterdir())

    def test_of_settings_end_the_run(self, photos, tmp_path):
        write(photos / "a.png", noise(9, 7, 3))
        with pytest.raises(GenaugError, match=r"a\.png: .* the picture has 3 \(color\); pass --channels convert"):
            run(MeanFilter(), photos, output=tmp_path / "out")
        with pytest.raises(GenaugError, match="needs a noise_level"):
            run(
                Broken(GenaugError("needs a noise_level")),
                photos / "a.png",
                output=tmp_path / "out",
                channels="convert",
            )
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "strength must be from 0 to 1, got 1.5"),
        ({"noise_level": 25}, "noise_level .*where white is 1.* must be from 0 to 1, got 25"),
        ({"noise_level": float("nan")}, "noise_level"),
        ({"channels": "gray"}, 'channels must be "match" or "convert", got \'gray\''),
        ({"model": "no-such-model"}, "no such shipped model"),
        ({"model": nn.Identity()}, "restore: Identity cannot do this"),
        ({"model": "digits-vae"}, "restore: vae cannot do this"),
        ({"model": "digits-vae", "device": "nonsense"}, "device: nonsense cannot be used"),
        ({"input": "missing"}, "missing: no such file or folder"),
        ({"input": "empty"}, "empty: holds no PNG, JPEG or TIFF files, but 1 others"),
        ({"output": "photos"}, "photos: must lie outside the input folder photos"),
        ({"output": "photos/out", "overwrite": True}, "photos/out: must lie outside the input folder photos"),
        ({"input": ".", "overwrite": True}, "out: must lie outside the input folder ."),
        ({"input": "photos/a.png", "output": "photos", "overwrite": True}, "photos/a.png: would replace a picture"),
        ({"output": "photos/a.png"}, "a.png: is a file; choose a folder as output"),
        ({"output": "linked"}, "linked: must lie outside the input folder"),
        ({"input": "twins"}, "twins/b.PNG: has the name of .*twins/B.png where upper and lower case are one"),
    ],
)
def test_what_is_refused_before_anything_is_written(options, message, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("twins/B.png"), noise(3, 3))
    write(Path("twins/b.PNG"), noise(3, 3))
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    Path("linked").symlink_to("photos")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    arguments = {"model": MeanFilter(), "input": "photos", "output": "out", "progress": False, **options}
    with pytest.raises(GenaugError, match=message) as caught:
        run_denoising(arguments.pop("model"), **arguments)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not Path("out").exists()


def test_an_output_that_holds_the_input_must_not_reach_it(tmp_path):
    write(tmp_path / "raw" / "a.png", noise(3, 3))
    write(tmp_path / "raw" / "raw" / "a.png", noise(3, 3))
    with pytest.raises(GenaugError, match=r"raw/a\.png: would replace a picture of the input"):
        run(MeanFilter(), tmp_path / "raw", output=tmp_path, overwrite=True)
    (tmp_path / "raw" / "raw" / "a.png").unlink()
    assert run(MeanFilter(), tmp_path / "raw", output=tmp_path).restored == 1


def test_the_progress_bar_counts_files(photos, tmp_path, capsys):
    run_denoising(MeanFilter(), input=photos, output=tmp_path / "out")
    assert "denoising 3/3" in capsys.readouterr().err
