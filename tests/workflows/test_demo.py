"""The demo, end to end with a tiny budget, and the sentence that it ends with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

import genaug
from genaug import GenaugError, SampleBank
from genaug.data import LabeledImages, load_data
from genaug.evaluate import Comparison, Difference
from genaug.workflows import demo
from genaug.workflows.demo import OURS, REAL, RIVAL, describe_verdict, run_demo

TINY = {
    "family": "vae",
    "model": {"width": 8, "hidden": 16, "latent_dim": 4},
    "training": {"steps": 3, "batch_size": 16, "save_every": 100},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Comparison, dict[str, Any]]]:
    """Run the demo with a tiny budget; return its comparison, and what it compared with what."""
    given: dict[str, Any] = {}
    compare_arms = demo.compare_arms

    def compare(arms: Any, **options: Any) -> Comparison:
        given.update(options, drawn=[])

        def draw(seed: int) -> LabeledImages:
            given["drawn"].append(options["train"](seed))
            return given["drawn"][-1]

        return compare_arms(arms, **{**options, "train": draw})

    monkeypatch.setattr(demo, "RECIPE", TINY)
    monkeypatch.setattr(demo, "CLASSIFIER_STEPS", 2)
    monkeypatch.setattr(demo, "compare_arms", compare)

    def run(**options: Any) -> tuple[Comparison, dict[str, Any]]:
        options = {"output": tmp_path / "demo", "seeds": 2, "device": "cpu", "progress": False, **options}
        return run_demo(options.pop("output"), **options), given

    return run


def pixels(data: LabeledImages | Tensor) -> set[bytes]:
    images = data.images if isinstance(data, LabeledImages) else data
    return {image.numpy().tobytes() for image in images}


def test_everything_is_written_and_readable(run, tmp_path, capsys):
    comparison, given = run(first_seed=3, progress=True)
    output = tmp_path / "demo"
    assert {path.name for path in output.iterdir()} == {
        "results.csv",
        "results.json",
        "real-and-synthetic.png",
        "recall.png",
        "bank",
        "training",
    }

    assert json.loads((output / "results.json").read_text()) == comparison.to_dict()
    assert comparison.arms == [REAL, RIVAL, OURS]
    assert comparison.rival == RIVAL
    assert comparison.settings["seeds"] == [3, 4]
    assert comparison.settings["test_images"] == len(load_data("digits", split="test"))
    assert len(comparison.runs) == 6

    for name in ("real-and-synthetic.png", "recall.png"):
        with PIL.Image.open(output / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 100

    train, test = load_data("digits"), load_data("digits", split="test")
    assert torch.equal(given["test"].images, test.images)
    for part in given["drawn"]:
        assert part.counts[0] / part.counts[-1] == pytest.approx(demo.IMBALANCE_FACTOR, rel=0.05)  # whole images
        assert pixels(part) < pixels(train)
    assert pixels(given["drawn"][0]) != pixels(given["drawn"][1])

    last = given["drawn"][-1]
    bank = SampleBank.open(output / "bank")
    assert bank.counts == genaug.balance(last.counts, target="median", cap=5.0)
    for run_of_arm in comparison.runs[-3:]:
        added = bank.counts if run_of_arm["arm"] == OURS else [0] * 10
        assert run_of_arm["counts"] == [real + extra for real, extra in zip(last.counts, added, strict=True)]

    model = genaug.load(output / "training" / "model")
    assert model.sample(torch.tensor([0, 9]), generator=torch.Generator().manual_seed(0)).shape == (2, 1, 8, 8)
    assert model.recipe["seed"] == 4
    assert model.recipe["training"]["steps"] == 3

    captured = capsys.readouterr()
    assert "seed 4: " in captured.err  # progress, in lines where there is no terminal
    printed = " ".join(captured.out.split())
    assert describe_verdict(comparison.difference(OURS)) in printed
    assert "over 2 seeds" in printed
    assert str(output) in printed


def test_validation_leaves_the_test_part_alone(run, capsys):
    comparison, given = run(validation=True)
    test, held_out = pixels(load_data("digits", split="test")), pixels(given["test"])
    assert not held_out & test
    assert held_out < pixels(load_data("digits"))
    assert len(held_out) == comparison.settings["test_images"]
    for part in given["drawn"]:
        assert not pixels(part) & (held_out | test)
    assert f"{len(held_out)} validation images" in capsys.readouterr().out


@pytest.mark.global_rng
def test_an_earlier_demo_is_replaced_only_where_asked_for_and_comes_out_the_same(run, tmp_path):
    torch.manual_seed(1)
    first, _ = run()
    results = tmp_path / "demo" / "results.json"
    before = results.read_bytes()
    with pytest.raises(GenaugError, match="exists already"):
        run()
    assert results.read_bytes() == before
    (tmp_path / "demo" / "recall.png").unlink()
    torch.manual_seed(2)
    second, _ = run(overwrite=True)
    assert (tmp_path / "demo" / "recall.png").is_file()
    for comparison in (first, second):
        for run_of_arm in comparison.runs:
            del run_of_arm["seconds"]
    assert first.runs == second.runs


@pytest.mark.parametrize("change", [{"seeds": 1}, {"seeds": 0}, {"device": "gpu"}])
def test_nothing_is_replaced_where_an_argument_is_wrong(change, run, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "results.json").write_text("{}")
    with pytest.raises(GenaugError, match=next(iter(change))):
        run(overwrite=True, **change)
    assert (tmp_path / "demo" / "results.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["thesis.tex", "training/photo.png", "bank/statement.pdf"])
def test_a_foreign_folder_is_never_overwritten(name, run, tmp_path):
    file = tmp_path / "demo" / name
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    for overwrite, message in ((False, "exists already"), (True, "which was not written by this")):
        with pytest.raises(GenaugError, match=message):
            run(overwrite=overwrite)
    assert file.read_text() == "years of work"


def test_an_output_that_is_a_file(run, tmp_path):
    (tmp_path / "demo").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(GenaugError, match="demo"):
            run(overwrite=overwrite)
    assert (tmp_path / "demo").read_text() == "years of work"


def test_a_demo_that_was_cut_short_can_be_overwritten(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SampleBank, "generate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"results.csv", "results.json", "training"}
    (tmp_path / "demo/results.unfinished").mkdir()
    (tmp_path / "demo/results.unfinished/0123456789abcdef.safetensors").touch()
    run(overwrite=True)
    assert (tmp_path / "demo" / "recall.png").is_file()


def interrupt(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("gap", "start", "interval"),
    [
        ((0.04, 0.027, 0.053), "Mixing in samples raised", "+4.0 points, 95 % interval +2.7 to +5.3."),
        ((-0.04, -0.053, -0.027), "Mixing in samples lowered", "-4.0 points, 95 % interval -5.3 to -2.7."),
        ((0.04, -0.087, 0.167), "No measurable gain in", "+4.0 points, 95 % interval -8.7 to +16.7."),
        ((0.0, 0.0, 0.0), "No measurable gain in", "+0.0 points, 95 % interval +0.0 to +0.0."),
    ],
    ids=["gain", "loss", "too uncertain", "none"],
)
def test_the_verdict_claims_no_more_than_the_interval(gap, start, interval):
    line = describe_verdict(Difference(*gap))
    assert line.startswith(f"{start} balanced accuracy over {RIVAL} sampling alone: ")
    assert line.endswith(interval)
    assert "\n" not in line
