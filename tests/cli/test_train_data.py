"""The data options of `genaug train`."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from genaug.cli import app
from genaug.cli.train import train_command
from genaug.data import load_data
from genaug.data.allocation import MEMORY_LIMIT

RECIPE = """\
family: vae
model: {width: 8, hidden: 16, latent_dim: 4}
training: {steps: 2, batch_size: 8, learning_rate: 1e-3, log_every: 1, sample_every: 2, save_every: 2}
"""
LEVELS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    for part in ("train", "test"):
        for number in range(24):
            folder = tmp_path / "my photos" / part / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.merge("RGB", [Image.fromarray(LEVELS[number])] * 3).save(folder / f"{number}.png")
    lines = [f"my photos/train/{('cat', 'dog')[n % 2]}/{n}.png,{n % 2},x" for n in range(24)]
    (tmp_path / "list.csv").write_text("\n".join(["file,kind,note", *lines]))
    return tmp_path


def train(*arguments: Any) -> Any:
    words = ["train", "tiny.yaml", "--output", "run", "--device", "cpu", "--quiet", *map(str, arguments)]
    return CliRunner().invoke(app, words)


def spec(here: Path) -> dict[str, Any]:
    config = json.loads((here / "run" / "model" / "config.json").read_text())
    found: dict[str, Any] = config["spec"]
    return found


def test_a_folder_of_parts_with_options(here: Path) -> None:
    (here / "my photos" / "train" / "cat" / "broken.png").write_bytes(b"")
    result = train("--data", "my photos", "--skip-bad", "--grayscale", "--resize", "16x12", "--limit-per-class", 13)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("warning: skipped 1 of 25 images, which cannot be read:\n")
    assert "broken.png (the file is empty)" in result.stderr
    assert (spec(here)["channels"], spec(here)["height"], spec(here)["width"]) == (1, 16, 12)
    assert list(spec(here)["class_names"]) == ["cat", "dog"]


def test_a_list(here: Path) -> None:
    result = train("--data", "list.csv", "--image-column", "file", "--label-column", "kind", "--longtail", 2)
    assert result.exit_code == 0, result.output
    assert list(spec(here)["class_names"]) == ["0", "1"]
    assert spec(here)["channels"] == 3


def test_images_beyond_the_limit_go_to_the_disk(here: Path) -> None:
    weights = []
    for options in ([], ["--memory-limit", 1e-6, "--overwrite"]):
        result = train("--data", "my photos", *options)
        assert result.exit_code == 0, result.output
        weights.append((here / "run" / "model" / "model.safetensors").read_bytes())
    assert result.stderr.startswith("warning: the images take 4.29e-06 GiB, more than the 1e-06 GiB of --memory-limit")
    assert result.stderr.count("temporary file") == 1
    assert weights[0] == weights[1]
    assert inspect.signature(train_command).parameters["memory_limit"].default == MEMORY_LIMIT


def test_patches_of_images_of_any_size(here: Path) -> None:
    (here / "photographs").mkdir()
    for number, size in enumerate([(40, 24), (24, 40), (31, 17), (8, 9)]):
        picture = Image.fromarray(LEVELS[number]).resize(size)
        Image.merge("RGB", [picture] * 3).save(here / "photographs" / f"{number}.png")
    result = train("--data", "photographs", "--patches", "16x12", "--grayscale")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("warning: left out 1 of 4 images, which are smaller than a patch of 16x12 ")
    assert (spec(here)["channels"], spec(here)["height"], spec(here)["width"]) == (1, 16, 12)
    assert list(spec(here)["class_names"]) == ["image"]
    dry = CliRunner().invoke(app, ["train", "tiny.yaml", "--data", "photographs", "--patches", "16x12", "--dry-run"])
    assert f"{2 * 4 + 3 * 2 + 2 * 3} images 3x16x12" in dry.stderr


PAIRS = """\
family: denoiser
model: {width: 4, levels: 1, blocks: 1, crop: 8, supervision: pairs}
training: {steps: 2, batch_size: 4, log_every: 1, sample_every: 2, save_every: 2, validation_fraction: 0.4}
"""


@pytest.fixture
def shots(here: Path) -> Path:
    """Folders `noisy` and `clean` of five color photographs of several sizes, and the recipe `tiny.yaml` of pairs."""
    (here / "tiny.yaml").write_text(PAIRS)
    draw = np.random.default_rng(0)
    for number, side in enumerate([24, 16, 20, 24, 16]):
        for kind, suffix in (("noisy", "bmp"), ("clean", "png")):
            (here / kind).mkdir(exist_ok=True)
            pixels = draw.integers(0, 256, (side, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / kind / f"{number}.{suffix}")
    return here


def test_pairs_of_images(shots: Path) -> None:
    result = train("--data", "noisy", "--pairs", "clean", "--patches", "16x16")
    assert result.exit_code == 0, result.output
    assert (spec(shots)["channels"], spec(shots)["height"]) == (3, None)
    with Image.open(shots / "run" / "samples" / "final.png") as picture:
        assert (picture.mode, picture.height) == ("RGB", 3 * (32 + 2) + 2)  # patches twice as large, in a frame of 2
    lines = dict(line.split(": ") for line in result.stdout.splitlines())
    assert {"psnr", "psnr_degraded", "held_out_images"} <= set(lines)
    noisy, clean = (load_data(shots / kind, patches=(16, 16)) for kind in ("noisy", "clean"))
    _, held_out = noisy.split(0.4, seed=0)
    squared = (noisy.images[held_out].double() - clean.images[held_out]).square().mean((1, 2, 3)) / 255**2
    assert int(lines["held_out_images"]) == len(held_out)
    assert float(lines["psnr_degraded"]) == pytest.approx(float(-10 * squared.log10().mean()), abs=1e-3)
    dry = train("--data", "noisy", "--pairs", "clean", "--patches", "16x16", "--grayscale", "--dry-run")
    assert f"{len(noisy)} images 2x16x16" in dry.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--set", "model.supervision=clean"],
            "must be single images for supervision: clean, got pairs, of 6 channels",
        ),
        (
            ["--set", "family=vae", "--set", "model={}"],
            "must be single images for family vae, got pairs, of 6 channels",
        ),
        (["--set", "model.degradations=[{kind: clip}]"], "degradations: must be left out with supervision: pairs"),
        (["--pairs", "cleaner"], "pairs: data must be a folder or a known name, got 'cleaner'"),
        (["--pairs", "my photos"], "must have a partner in pairs, of the same path below the folder"),
        (["--pairs", "digits"], "must have a partner in pairs"),
    ],
)
def test_errors_with_pairs_are_one_line(shots: Path, arguments: list[str], words: str) -> None:
    result = train("--data", "noisy", "--pairs", "clean", "--patches", "16x16", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not (shots / "run").exists()


def test_pairs_without_partners_are_one_line(shots: Path) -> None:
    result = train("--data", "noisy", "--patches", "16x16")
    assert "data must be pairs for supervision: pairs, got single images 3x16x16; name the images" in result.stderr
    assert result.stderr.count("\n") == 1
    (shots / "clean" / "3.png").unlink()
    result = train("--data", "noisy", "--pairs", "clean", "--patches", "16x16")
    assert result.stderr.startswith("error: noisy/3.bmp: must have a partner in pairs")


def test_classes_of_patches_are_kept_or_not_looked_at(here: Path) -> None:
    for options, classes in (([], ["cat", "dog"]), (["--label-column", "none", "--overwrite"], ["image"])):
        result = train("--data", "my photos", "--patches", "8x8", *options)
        assert result.exit_code == 0, result.output
        assert list(spec(here)["class_names"]) == classes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my photos", "--split", "val"], "has no part 'val'; its parts are test, train"),
        (["list.csv"], "which column holds the class is not clear"),
        (["list.csv", "--label-column", "none"], "which are file, kind, note"),
        (["FashionMNIST"], "pass --root DIR"),
        (["FashionMNIST", "--root", "."], "holds list.csv, my photos, tiny.yaml"),
        (["owner/name"], "hub data set owner/name: cannot be read"),
        (["my photos", "--limit-per-class", "0"], "limit_per_class must be an integer of at least 1"),
        (["my photos", "--longtail", "0"], "longtail"),
        (["my photos", "--memory-limit", "0"], "memory_limit (GiB of pixels) must be a number above 0, got 0.0"),
        (["my photos", "--patches", "32"], "patches: must be HEIGHTxWIDTH such as 32x32, got '32'"),
        (["my photos", "--patches", "8x8", "--resize", "8x8"], "patches and resize exclude each other"),
        (
            ["my photos", "--patches", "9x8"],
            "images must be as large as a patch of 9x8 (height x width), got 24 smaller",
        ),
        (["my photos/train/cat"], "data without classes can be cut for a denoiser with --patches 96x96 (patches=)"),
        (["my photos", "--download"], "root and download are for data sets of torchvision"),
    ],
)
def test_errors_are_one_line(here: Path, arguments: list[str], words: str) -> None:
    result = train("--data", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not (here / "run").exists()


def test_dry_run_checks_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "demo-vae", "--data", "digits", "--dry-run", "--output", "run"])
    assert result.exit_code == 0, result.output
    assert "1198 images 1x8x8" in result.stderr
    assert "0 exact duplicates" in result.stderr
    assert "estimated time:" in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_the_check_finds_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("a/1", 10), ("a/2", 60), ("b/1", 10)):
        path = Path(f"photos/{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (8, 8), value)
        image.putpixel((0, 0), 255)
        image.save(path)
    words = ["train", "demo-vae", "--data", "photos", "--set", "training.steps=1", "--quiet"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert len(lines) == 3
    assert "one image only of ['b']" in lines[0]
    assert "2 images with the same pixels stand under several classes, such as ['a', 'b']" in lines[1]
    assert "1 images repeat another one" in lines[2]
