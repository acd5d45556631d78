"""`genaug evaluate robustness`: the parts that it measures on, what it prints and writes, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import genaug
from genaug import GenaugError
from genaug.cli import app
from genaug.data import LabeledImages, load_data, stratified_split
from genaug.errors import DataWarning
from genaug.evaluate import Comparison, RobustnessResult
from genaug.evaluate.comparison import METRICS
from genaug.evaluate.scoring import pack
from genaug.workflows import robustness as workflow
from genaug.workflows.robustness import run_robustness, sentences

QUICK: dict[str, Any] = {
    "data": "digits", "limit_per_class": 20, "noise_levels": [0.1], "seeds": 1, "steps": 1, "device": "cpu",
    "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser that held out a fifth of its data."""
    recipe = {
        "family": "denoiser",
        "seed": 5,
        "model": {"width": 2, "levels": 1, "blocks": 1},
        "training": {"steps": 2, "batch_size": 16, "validation_fraction": 0.2},
    }
    output = tmp_path_factory.mktemp("robustness") / "run"
    data = load_data("digits", limit_per_class=20, seed=5)
    return genaug.train(recipe, data=data, output=output, device="cpu", progress=False).path


def call(model: Any, *arguments: Any) -> Any:
    fixed = ["--data", "digits", "--limit-per-class", 20, "--validation", 0.2, "--noise-level", 0.1, "--steps", 2]
    words = [model, *fixed, "--device", "cpu", "--quiet", *arguments]
    return CliRunner().invoke(app, ["evaluate", "robustness", *map(str, words)])


def refused(result: Any, *words: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, LabeledImages]:
    """The parts that were measured on."""
    seen: dict[str, LabeledImages] = {}
    original = workflow.measure_robustness

    def spy(denoiser: Any, *, train: LabeledImages, test: LabeledImages, **options: Any) -> Any:
        seen.update(train=train, test=test)
        return original(denoiser, train=train, test=test, **options)

    monkeypatch.setattr(workflow, "measure_robustness", spy)
    return seen


# --- the command


def test_help_has_an_example_and_is_listed():
    shown = CliRunner().invoke(app, ["evaluate", "robustness", "--help"])
    assert shown.exit_code == 0
    assert "Example: genaug evaluate robustness" in shown.stdout
    assert "--debug" in shown.stdout
    assert "robustness" in CliRunner().invoke(app, ["evaluate", "--help"]).stdout


def test_tables_are_printed_and_figures_written(tiny, tmp_path):
    output = tmp_path / "found"
    result = call(tiny, "--noise-level", 0.3, "--seeds", 2, "--seed", 4, "--flips", "none", "--output", output)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert [file.name for file in output.iterdir()] == ["robustness.json"]
    written = json.loads((output / "robustness.json").read_text())
    assert (written["model"], written["data"]) == (str(tiny), "digits")
    assert written["held_out_part"] == "0.2 of the training part"
    assert written["versions"]["genaug"] == genaug.__version__
    assert written["settings"]["seeds"] == [4, 5]
    assert written["settings"]["noise_levels"] == [0.1, 0.3]
    assert written["settings"]["transform"] is None
    assert (written["settings"]["train_images"], written["settings"]["test_images"]) == (160, 40)

    lines = result.stdout.splitlines()
    titles = [line.strip() for line in lines if re.fullmatch(r"\s*(without noise|noise \S+)\s*", line)]
    assert titles == ["without noise", "noise 0.1", "noise 0.3"]
    rows = [line.split() for line in lines if re.match(r"\s*\w+ / \w+ +\d", line)]
    summary = [(row, figures) for level in written["summary"] for row, figures in level["rows"].items()]
    assert len(rows) == len(summary) == 3 + 5 + 5
    for shown, (row, figures) in zip(rows, summary, strict=True):
        assert " ".join(shown[:3]) == row
        for place, metric in ((3, "accuracy"), (6, "balanced_accuracy"), (9, "worst_class")):
            assert float(shown[place]) == pytest.approx(100 * figures[metric]["mean"], abs=0.051)
            assert float(shown[place + 2]) == pytest.approx(100 * figures[metric]["std"], abs=0.051)
        if "difference" in figures:
            assert float(shown[12]) == pytest.approx(100 * figures["difference"]["mean"], abs=0.051)
    assert "clipped to [0, 1]" in result.stdout
    assert "At noise 0.3, against training with noise" in result.stdout


def test_a_single_seed_has_no_intervals(tiny, tmp_path):
    result = call(tiny, "--seeds", 1)
    assert result.exit_code == 0, result.output
    assert "of one seed" in result.stdout
    assert "against training with noise" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept(tiny, tmp_path):
    (tmp_path / "robustness.json").write_text("precious")
    refused(call(tiny, "--seeds", 1, "--output", tmp_path), "exists already", "--overwrite")
    assert (tmp_path / "robustness.json").read_text() == "precious"
    assert call(tiny, "--seeds", 1, "--output", tmp_path, "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "robustness.json").read_text())["data"] == "digits"


def test_what_cannot_be_is_refused(tiny):
    refused(call("digits-vae"), "restore: vae cannot do this")
    refused(call(tiny, "--noise-level", 0), "noise_levels must be", "above 0")
    refused(call(tiny, "--noise-level", 2), "noise_levels", "from 0 to 1, got 2")
    refused(call(tiny, "--flips", "vertical"), "flips must be one of none, horizontal, both, got 'vertical'")
    refused(call(tiny, "--seeds", 0), "seeds must be at least one integer")
    refused(call(tiny, "--test", "digits"), "leave --test and --test-split")
    refused(call("./nowhere"), "nowhere")


# --- the parts


def test_a_share_that_the_model_held_out_is_taken_with_its_seed(tiny, parts):
    run_robustness(str(tiny), validation=0.2, seed=9, **QUICK)
    pool = load_data("digits", limit_per_class=20, seed=5)
    kept, held_out = stratified_split(pool.labels, fraction=0.2, seed=5)
    assert torch.equal(parts["train"].images, pool.subset(kept).images)
    assert torch.equal(parts["test"].images, pool.subset(held_out).images)


def test_a_larger_share_is_taken_with_a_warning(tiny, parts):
    with pytest.warns(DataWarning, match="it is not known what this was trained on"):
        run_robustness(str(tiny), validation=0.5, seed=9, **QUICK)
    pool = load_data("digits", limit_per_class=20, seed=9)
    kept, held_out = stratified_split(pool.labels, fraction=0.5, seed=9)
    assert torch.equal(parts["train"].images, pool.subset(kept).images)
    assert torch.equal(parts["test"].images, pool.subset(held_out).images)


def test_the_test_part_is_held_out_and_all_else_trained_on(tiny, parts):
    run_robustness(str(tiny), **QUICK)
    assert torch.equal(parts["train"].images, load_data("digits", limit_per_class=20, seed=5).images)
    assert torch.equal(parts["test"].images, load_data("digits", split="test").images)


@pytest.mark.parametrize(
    ("share", "error"), [(0.0, "validation must be above 0 and at most 0.2"), (1.0, "fraction must be between 0 and 1")]
)
@pytest.mark.filterwarnings("ignore:it is not known what this was trained on")
def test_shares_that_cannot_be(share, error, tiny):
    with pytest.raises(GenaugError, match=error):
        run_robustness(str(tiny), validation=share, **QUICK)


# --- what it says


def made(scores: dict[tuple[float, str], list[float]]) -> RobustnessResult:
    runs = []
    for (level, row), values in scores.items():
        trained, tested = row.split(" / ")
        shared = {"trained": trained, "tested": tested, "noise_level": level}
        for seed, value in enumerate(values):
            flags = (torch.arange(200) % 100) < round(100 * value)
            runs.append(shared | {"seed": seed} | dict.fromkeys(METRICS, value) | {"correct": pack(flags)})
    labels = [0] * 100 + [1] * 100
    return RobustnessResult(("a", "b"), labels, {"seeds": [0, 1], "noise_levels": [0.1]}, runs=runs)


def test_sentences():
    result = made(
        {
            (0.0, "clean / noisy"): [0.90, 0.90],
            (0.0, "clean / denoised"): [0.89, 0.91],
            (0.0, "augmented / noisy"): [0.50, 0.50],
            (0.1, "clean / denoised"): [0.60, 0.60],
            (0.1, "augmented / noisy"): [0.70, 0.70],
            (0.1, "denoised / denoised"): [0.75, 0.75],
        }
    )
    assert isinstance(result.comparison(0.1), Comparison)
    clean = result.comparison(0.0, rival="clean / noisy").difference("clean / denoised")
    front, both = (result.comparison(0.1).difference(f"{name} / denoised") for name in ("clean", "denoised"))
    shown = [f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})" for gap in (clean, front, both)]
    assert [gap.mean for gap in (clean, front, both)] == pytest.approx([0.0, -0.1, 0.05])
    assert (front.verdict, both.verdict) == ("loss", "gain")
    assert sentences(result) == [
        f"Without noise, the classifier of clean images on denoised ones: {shown[0]}, no measurable difference.",
        "At noise 0.1, against training with noise: denoising before a classifier of clean images: "
        f"{shown[1]}, a loss; training and testing on denoised images: {shown[2]}, a gain.",
    ]
