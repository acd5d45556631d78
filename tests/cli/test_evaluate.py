"""`genaug evaluate fidelity`: which images it measures on, what it prints and writes, and what it refuses."""

import json
import re
from pathlib import Path
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
    original = workflow.load_data

    def spy(data: Any, *, split: str | None = None, **options: Any) -> LabeledImages:
        loaded.append(split)
        return original(data, split=split, **options)

    monkeypatch.setattr(workflow, "load_data", spy)
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


def test_validation_that_the_model_was_trained_on_is_refused(here, tiny):
    refused(measure(tiny, "--validation", 0.2), "validation must be above 0 and at most 0.1", "got 0.2")
    refused(measure(tiny, "--validation", 0), "validation must be above 0", "--validation 0.1")
    refused(measure(tiny, "--validation", 0.1, "--test", "digits"), "leave --test and --test-split")
    refused(measure(tiny, "--validation", 0.1, "--test-split", "all"), "leave --test and --test-split")


def test_validation_of_a_model_that_held_out_nothing(here):
    recipe = {
        "family": "vae",
        "model": {"width": 8, "hidden": 16, "latent_dim": 4},
        "training": {"steps": 1, "batch_size": 8},
    }
    genaug.train(recipe, data="digits", output="run", device="cpu", progress=False)
    refused(measure("./run/model", "--validation", 0.1), "training.validation_fraction=0.1", "at most 0")


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
