"""The parts that an audit is of, the card that it is written to, and the command that the card names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genaug
from genaug import GenaugError, SampleBank
from genaug.data import load_data, stratified_split
from genaug.errors import DataWarning
from genaug.workflows import memorization as workflow
from genaug.workflows.memorization import run_memorization
from genaug.workflows.parts import load_parts, open_source, read_split

QUICK: dict[str, Any] = {"data": "digits", "samples": 10, "classifier_steps": 2, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that held out a tenth of its data."""
    recipe = {
        "family": "vae",
        "seed": 5,
        "model": {"width": 8, "hidden": 16, "latent_dim": 4},
        "training": {"steps": 4, "batch_size": 16, "validation_fraction": 0.1},
    }
    output = tmp_path_factory.mktemp("memorization") / "run"
    return genaug.train(recipe, data="digits", output=output, device="cpu", progress=False).path


def hashes(data: Any) -> set[bytes]:
    return {image.numpy().tobytes() for image in data.images}


# --- the parts


def test_the_training_part_is_what_the_model_was_trained_on(tiny):
    model, pool = genaug.load(tiny), load_data("digits")
    kept, held_out = stratified_split(pool.labels, fraction=0.1, seed=5)
    train, test, name = load_parts(model, data="digits", seed=9)
    assert torch.equal(train.images, pool.subset(kept).images)
    assert torch.equal(test.images, load_data("digits", split="test").images)
    assert name == "test"
    train, test, name = load_parts(model, data="digits", validation=0.1)
    assert torch.equal(train.images, pool.subset(kept).images)
    assert torch.equal(test.images, pool.subset(held_out).images)
    assert name == "0.1 of the training part"
    train, test, _ = load_parts(model, data="digits", validation=0.05)
    assert torch.equal(train.images, pool.subset(kept).images)  # what is not asked for is in neither part
    assert hashes(test) < hashes(pool.subset(held_out))


@pytest.mark.parametrize("recipe", [{"note": "my own loop"}, {"seed": 0, "training": None}, {"training": {}}, {}])
def test_recipes_of_other_loops_hold_nothing_out(tiny, recipe):
    model = genaug.load(tiny)
    model.recipe = recipe
    assert read_split(model, seed=3) == (recipe.get("seed", 3), 0.0)
    assert len(load_parts(model, data="digits")[0]) == 1198
    if recipe:
        with pytest.raises(GenaugError, match="validation must be above 0 and at most 0"):
            load_parts(model, data="digits", validation=0.1)


@pytest.mark.parametrize("share", ["0.1", -0.1, 1.5, None, True])
def test_a_recipe_with_a_share_that_is_none_is_refused(tiny, share):
    model = genaug.load(tiny)
    model.recipe = {"training": {"validation_fraction": share}}
    with pytest.raises(GenaugError, match="validation_fraction of the model's recipe must be from 0 to below 1"):
        load_parts(model, data="digits")


def test_copies_of_images_on_the_disk_are_on_the_disk(tiny):
    with pytest.warns(UserWarning, match="kept in a temporary file"):
        disk = load_data("digits").subset(range(1198), memory_limit=1e-6)
    train, test, _ = load_parts(genaug.load(tiny), data=disk, validation=0.1)
    assert train.images.is_shared()
    assert test.images.is_shared()


def test_limits_are_those_of_training(tiny):
    train, test, _ = load_parts(genaug.load(tiny), data="digits", longtail=10, limit_per_class=50, seed=9)
    pool = load_data("digits", longtail=10, limit_per_class=50, seed=5)
    kept, _ = stratified_split(pool.labels, fraction=0.1, seed=5)
    assert torch.equal(train.images, pool.subset(kept).images)
    assert len(test) == 599


def test_other_parts_and_data(tiny):
    model = genaug.load(tiny)
    assert load_parts(model, data="digits", split="test", test_split="train")[2] == "train"
    train, test, name = load_parts(model, data="digits", test="digits")
    assert (len(train), len(test), name) == (1078, 1797, "all")


def test_a_bank_has_no_part_that_is_known_to_be_unseen(tiny, tmp_path):
    SampleBank.generate(genaug.load(tiny), 3, seed=0, path=tmp_path / "bank", progress=False)
    bank = open_source(str(tmp_path / "bank"), torch.device("cpu"))
    assert isinstance(bank, SampleBank)
    assert [len(part) for part in load_parts(bank, data="digits")[:2]] == [1198, 599]
    with pytest.warns(DataWarning, match="it is not known what this was trained on"):
        train, test, _ = load_parts(bank, data="digits", validation=0.2)
    assert len(train) + len(test) == 1198
    assert not hashes(train) & hashes(test)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": 0.2}, "validation must be above 0 and at most 0.1, .*got 0.2; use --validation 0.1"),
        ({"validation": 0.0}, "validation must be above 0"),
        ({"validation": 0.1, "test": "digits"}, "leave --test and --test-split"),
        ({"validation": 0.1, "test_split": "all"}, "leave --test and --test-split"),
    ],
)
def test_validation_parts_that_cannot_be(options, words, tiny):
    with pytest.raises(GenaugError, match=words):
        load_parts(genaug.load(tiny), data="digits", **options)


def test_validation_of_a_model_that_held_out_nothing(tiny):
    model = genaug.load(tiny)
    model.recipe["training"]["validation_fraction"] = 0.0
    with pytest.raises(GenaugError, match=r"at most 0, .*training.validation_fraction=0.1 or more"):
        load_parts(model, data="digits", validation=0.1)


# --- the card


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    genaug.load(tiny).save(tmp_path / "model")
    return tmp_path / "model"


def test_the_card_gets_a_section_and_all_else_stays(model):
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    audit = run_memorization(str(model), card=True, **QUICK)
    after = {file.name: file.read_bytes() for file in model.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"README.md"}
    assert set(after) == set(before)
    card = after["README.md"].decode()
    assert card.startswith(before["README.md"].decode())
    assert audit.to_markdown() in card
    assert "    genaug evaluate memorization ./model --data digits --samples 10 --classifier-steps 2\n" in card
    assert str(model.parent) not in card
    genaug.load(model)
    other = run_memorization(str(model), card=True, **{**QUICK, "samples": 12})
    again = (model / "README.md").read_text()
    assert again.count("## Memorization") == 1
    assert other.to_markdown() in again
    assert "--samples 12" in again


def test_a_model_without_a_card_gets_one(model):
    (model / "README.md").unlink()
    run_memorization(str(model), card=True, **QUICK)
    card = (model / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: genaug\n")
    assert "## Memorization" in card


def test_cards_that_cannot_be_written_show_first(model, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "audit_copies", lambda *args, **options: pytest.fail("measured before the check"))
    with pytest.raises(GenaugError, match="card must be that of a model's directory .*got 'digits-vae'; leave it out"):
        run_memorization("digits-vae", card=True, **QUICK)
    SampleBank.generate(genaug.load(tiny), 3, seed=0, path=tmp_path / "bank", progress=False)
    with pytest.raises(GenaugError, match="card must be that of a model's directory"):
        run_memorization(str(tmp_path / "bank"), card=True, **QUICK)
    (model / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(GenaugError, match=r"README.md: cannot be read .*UTF-8"):
        run_memorization(str(model), card=True, **QUICK)


def test_the_command_names_what_changes_the_figures(tmp_path):
    (tmp_path / "photos").mkdir()
    options = {"test": None, "split": "train", "validation": 0.1, "samples": None, "seed": 3}
    reading = {
        "resize": (32, 24),
        "grayscale": True,
        "root": tmp_path,
        "download": True,
        "skip_bad": False,
        "memory_limit": 2.0,
        "label_column": "the class",
    }
    command = workflow._command("./run/model", tmp_path / "photos", options, reading)
    assert command == (
        "genaug evaluate memorization ./model --data photos --split train --validation 0.1 --seed 3 --resize 32x24 "
        "--grayscale --label-column 'the class'"
    )


# --- the rest


def test_networks_are_known_by_name(tiny):
    with pytest.raises(
        GenaugError, match="features must be 'classifier', 'inception', 'torchmetrics' or .*, got 'resnet'"
    ):
        run_memorization(str(tiny), features="resnet", **QUICK)


def test_figures_are_those_of_the_function(tiny, tmp_path):
    audit = run_memorization(str(tiny), output=tmp_path / "out", allowed=0.5, **QUICK)
    written = json.loads((tmp_path / "out/memorization.json").read_text())
    assert {name: written[name] for name in audit.to_dict()} == json.loads(json.dumps(audit.to_dict(0.5)))
    assert written["held_out_part"] == "test"
    assert written["verdicts"]["allowed"] == 0.5
