"""`genaug denoise` with a real, untrained model."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from genaug import DataSpec
from genaug.cli import app
from genaug.models import Denoiser, DenoiserConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny gray denoiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    path = tmp_path_factory.mktemp("denoise") / "model"
    network.save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one of pictures."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("photos/new").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (40, 33), np.uint8)).save("photos/a.png")
    tifffile.imwrite("photos/new/b.tif", rng.integers(0, 65536, (2, 21, 30), np.uint16), photometric="minisblack")
    return tmp_path


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["denoise", *map(str, arguments)])


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_help_has_examples():
    result = call("--help")
    assert result.exit_code == 0
    assert "Example: genaug denoise" in result.stdout
    for option in ("--output", "--noise-level", "--strength", "--tile", "--channels", "--overwrite", "--quiet"):
        assert option in result.stdout


def test_a_folder(here, model):
    result = call(model, "photos", "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    assert (result.stdout, result.stderr) == ("2 restored, 0 skipped, 0 failed: denoised\n", "")
    assert files("denoised") == ["a.png", "new/b.tif"]
    restored = tifffile.imread("denoised/new/b.tif")
    network = Denoiser.from_pretrained(model)
    images = torch.from_numpy(tifffile.imread("photos/new/b.tif").astype(np.float32) / 65535)[:, None]
    expected = (network.restore(images)[:, 0] * 65535).numpy()
    assert restored.dtype == np.uint16
    assert np.abs(restored - expected).max() <= 1  # of 65535; sums differ with the batch


def test_options(here, model):
    plain = ["--device", "cpu", "--quiet"]
    assert call(model, "photos/a.png", "--output", "same", "--strength", 0, *plain).exit_code == 0
    assert np.array_equal(np.asarray(Image.open("same/a.png")), np.asarray(Image.open("photos/a.png")))
    assert call(model, "photos/a.png", "--output", "whole", "--noise-level", 0.1, *plain).exit_code == 0
    assert call(model, "photos/a.png", "--output", "parts", "--noise-level", 0.1, "--tile", 16, *plain).exit_code == 0
    whole, parts = (np.asarray(Image.open(f"{name}/a.png")).astype(int) for name in ("whole", "parts"))
    assert np.abs(whole - parts).max() <= 1  # tiles have no seams


def test_pictures_of_other_channels(here, model):
    Image.open("photos/a.png").convert("RGB").save("color.png")
    result = call(model, "color.png", "--quiet", "--device", "cpu")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: color\.png: [^\n]*the picture has 3[^\n]*--channels convert[^\n]*\n", result.stderr)
    assert result.stdout == ""
    assert call(model, "color.png", "--channels", "convert", "--quiet", "--device", "cpu").exit_code == 0
    assert call(model, "photos/a.png", "--output", "gray", "--quiet", "--device", "cpu").exit_code == 0
    color, gray = np.asarray(Image.open("denoised/color.png")), np.asarray(Image.open("gray/a.png"))
    assert np.array_equal(color, np.stack([gray] * 3, -1))


def test_status_where_some_fail_or_exist(here, model):
    Path("photos/bad.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    result = call(model, "photos", "--quiet", "--device", "cpu")
    assert result.exit_code == 1
    assert result.stdout == "2 restored, 0 skipped, 1 failed: denoised\n"
    assert re.fullmatch(r"error: photos/bad\.jpg: cannot be read as an image \([^\n]+\)\n", result.stderr)
    Path("photos/bad.jpg").unlink()
    result = call(model, "photos", "--quiet", "--device", "cpu")
    assert result.exit_code == 0
    assert result.stdout == "0 restored, 2 skipped, 0 failed: denoised\n"
    assert "denoised/a.png: exists already, skipped; --overwrite replaces it\n" in result.stderr
    assert call(model, "photos", "--quiet", "--overwrite", "--device", "cpu").stdout.startswith("2 restored")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["photos", "--output", "photos"], 1, "must lie outside the input folder"),
        (["photos", "--noise-level", "25"], 1, "must be from 0 to 1, got 25"),
        (["nowhere"], 1, "nowhere: no such file or folder"),
        (["photos", "--tile", "0"], 2, "tile"),
        (["photos", "--channels", "gray"], 2, "channels"),
        ([], 2, "input"),
    ],
)
def test_what_is_refused(arguments, status, words, here, model):
    result = call(model, *arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert files(".") == ["photos/a.png", "photos/new/b.tif"]
