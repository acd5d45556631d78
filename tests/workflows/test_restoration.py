"""`genaug evaluate denoising` and `genaug bench denoise`: what they read, print, write and refuse."""

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from genaug.cli import app
from genaug.errors import GenaugError
from genaug.models import Denoiser, DenoiserConfig
from genaug.spec import DataSpec
from genaug.workflows import bench_denoise
from genaug.workflows.bench import run_benchmarks
from genaug.workflows.restoration import parse_noise_level, read_degradation, run_restoration

pytestmark = pytest.mark.global_rng  # new weights


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, size in enumerate([(40, 30), (17, 50)]):
        pixels = torch.arange(size[0] * size[1]).reshape(size[1], size[0]) % 256
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / f"photos/{number}.png")
    Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1)).save(tmp_path / "model")
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, [*words])


def test_the_command_measures_a_folder(here):
    result = call(
        "evaluate", "denoising", "./model", "--data", "photos", "--noise-level", "25/255", "--noise-level", "0.1",
        "--rival", "wavelet", "--output", "out", "--quiet", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = json.loads((here / "out/denoising.json").read_text())
    rows = [(row["degradation"], row["denoiser"], row["images"]) for row in written["rows"]]
    names = ["input", "./model", "wavelet"]
    assert rows == [(words, name, 2) for words in ("noise 25/255", "noise 25.5/255") for name in names]
    for words in ("not clipped", "noise 25/255"):
        assert words in result.output
    # New weights of the family leave images as they are.
    assert written["rows"][0]["psnr"] == pytest.approx(written["rows"][1]["psnr"], abs=0.01)
    again = call("evaluate", "denoising", "./model", "--data", "photos", "--output", "out", "--quiet")
    assert again.exit_code == 1
    assert "--overwrite" in again.output


def test_other_degradations_stand_alone(here):
    result = call(
        "evaluate", "denoising", "./model", "--data", "photos", "--quiet", "--limit", "1", "--clip",
        "--degradation", "{kind: jpeg, quality: 20}", "--degradation", "{kind: missing-pixels, fraction: 0.2}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "/255" not in result.output
    assert "1 images." in result.output


def test_images_that_come_out_unchanged_are_counted(here):
    for number in range(2):
        Image.fromarray(torch.zeros(40, 40, dtype=torch.uint8).numpy()).save(here / f"photos/black{number}.png")
    words = ["--degradation", "{kind: missing-rectangles, count: 1, size: 0.2}", "--output"]
    result = call("evaluate", "denoising", "./model", "--data", "photos", "--quiet", *words, "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((here / "out/denoising.json").read_text())["rows"]
    assert [(row["images"], row["exact"]) for row in rows] == [(4, 2), (4, 2)]
    assert all(0 < row["psnr"] < 60 for row in rows)
    assert "exact" in result.output
    for number in range(2):
        (here / f"photos/{number}.png").unlink()
    result = call("evaluate", "denoising", "./model", "--data", "photos", "--quiet", *words, "none")
    assert result.exit_code == 0, result.output
    rows = json.loads((here / "none/denoising.json").read_text())["rows"]
    assert [(row["exact"], row["psnr"]) for row in rows] == [(2, None), (2, None)]
    assert "inf" not in result.output.replace("infinite", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise-level", "25"], "noise level must be above 0 and at most 1, such as 0.1 or 25/255, got '25'"),
        (["--noise-level", "0"], "noise level must be above 0 and at most 1, such as 0.1 or 25/255, got '0'"),
        (["--noise-level", "a/0"], "got 'a/0'"),
        (["--degradation", "jpeg"], "degradation must be such as"),
        (["--degradation", "{kind: fog}"], "degradation.kind: must be one of"),
        (["--rival", "median"], "rival must be one of"),
        (["--rival", "tv", "--degradation", "{kind: jpeg, quality: 20}"], "must be told a noise level"),
    ],
)
def test_mistakes_end_in_one_line(here, words, message):
    result = call("evaluate", "denoising", "./model", "--data", "photos", "--quiet", *words)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_models_that_cannot_restore_and_nothing_to_measure_are_refused(here):
    with pytest.raises(GenaugError, match="restore: gan cannot do this"):
        run_restoration(["fashion-mnist-gan"], data="photos", progress=False)
    with pytest.raises(GenaugError, match="at least one denoiser, got none"):
        run_restoration([], data="photos", progress=False)


def test_levels_and_degradations_are_read():
    assert parse_noise_level("50/255") == 50 / 255
    assert read_degradation("{kind: gaussian-noise, noise_level: [0, 0.1]}").words() == "gaussian noise 0 to 0.1"


def test_the_benchmark_holds_the_shipped_model_against_the_rivals(here, monkeypatch, capsys):
    monkeypatch.setattr(bench_denoise, "CLASSICAL", {"wavelet": None, "tv": None})
    monkeypatch.setattr(bench_denoise, "NOISE_LEVELS", (0.1,))
    monkeypatch.setenv("COLUMNS", "200")
    run_benchmarks("denoise", data="photos")
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("denoiser-gray / wavelet", "denoiser-gray / DnCNN, random weights", "<= 0.25", "noise 25.5/255"):
        assert words in shown
    with pytest.raises(GenaugError, match="data are for the benchmark denoise alone, got 'photos' for import"):
        run_benchmarks("import", data="photos")


def test_rows_so_far_survive_an_interruption(here, monkeypatch):
    steps = []

    def stop(model, images, **options):
        steps.append(1)
        if len(steps) > 3:  # two images, after one to warm up
            raise KeyboardInterrupt
        return images

    monkeypatch.setattr(Denoiser, "restore", stop)
    with pytest.raises(KeyboardInterrupt):
        run_restoration(["./model"], data="photos", noise_levels=[0.1, 0.2], output="out", device="cpu", progress=False)
    written = json.loads((here / "out" / "denoising.json").read_text())
    assert [row["noise_level"] for row in written["rows"]] == [0.1, 0.1]
