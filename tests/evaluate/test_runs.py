"""Comparisons that are cut off and resumed, run side by side, or given what does not fit."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import v2

from genaug import DataError, DataSpec, GenaugError, SampleBank
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.data.allocation import allocate_pixels
from genaug.errors import DataWarning, ResumeWarning
from genaug.evaluate import Arm, Budget, Comparison, compare_arms, comparison, jobs, runs, unfinished
from genaug.evaluate.checks import check_arms
from genaug.evaluate.intervals import paired_difference
from genaug.evaluate.losses import Focal
from genaug.evaluate.makers import Noise, Replay, Reserve
from genaug.evaluate.parts import find_shared
from genaug.evaluate.runs import describe_arm
from genaug.models import GAN, VAE, GANConfig, SmallCNN, VAEConfig
from genaug.seeding import own_randomness

CPU = torch.device("cpu")
ARMS = {"plain": Arm(), "balanced": Arm(balanced=True), "focal": Arm(loss=Focal(gamma=1.0))}


def small(spec: DataSpec) -> SmallCNN:
    return SmallCNN(spec, width=4)


def draw(seed: int) -> LabeledImages:
    pool = load_data("digits")
    return pool.subset(longtail_indices(pool.labels, imbalance_factor=10, seed=seed))


@pytest.fixture(scope="module")
def train_part() -> LabeledImages:
    return draw(0)


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test").subset(torch.arange(100))


def compare(train: Any, test: LabeledImages, *, arms: Any = ARMS, **options: Any) -> Comparison:
    given = {
        "rival": "plain",
        "seeds": 2,
        "budget": Budget(steps=2, batch_size=8),
        "classifier": small,
        "device": "cpu",
    }
    return compare_arms(arms, train=train, test=test, **{**given, "progress": False, **options})


def without_times(comparison: Comparison) -> list[dict[str, Any]]:
    runs = [{key: value for key, value in run.items() if key != "seconds"} for run in comparison.runs]
    return sorted(runs, key=lambda run: (run["seed"], run["arm"]))


# --- resumed


def test_runs_of_another_environment_are_told(train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    compare(train_part, test_part, output=output)
    results = json.loads(output.read_text())
    assert re.fullmatch(r"genaug \S+, torch \S+, CPU with \S+", results["runs"][0]["environment"])
    results["runs"] = results["runs"][:2]
    results["runs"][0]["environment"] = "genaug 0.0.1, torch 2.0, CPU with DEFAULT"
    del results["runs"][1]["environment"]  # of a run that does not tell
    output.write_text(json.dumps(results))
    with pytest.warns(ResumeWarning, match="holds runs made by genaug 0.0.1, torch 2.0, CPU with DEFAULT, and the oth"):
        compare(train_part, test_part, output=output, resume=True)


def test_a_comparison_goes_on_where_it_was_cut_off(train_part, test_part, tmp_path):
    output, steps = tmp_path / "results.json", []

    def stop() -> None:
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(train_part, test_part, output=output, on_step=stop)
    assert len(json.loads(output.read_text())["runs"]) == 3
    done: list[int] = []
    resumed = compare(train_part, test_part, output=output, resume=True, on_step=lambda: done.append(1))
    assert len(done) == 2 * 3  # three runs of two steps
    assert without_times(resumed) == without_times(compare(train_part, test_part))
    assert json.loads(output.read_text()) == resumed.to_dict()
    again = compare(train_part, test_part, output=output, resume=True, on_step=lambda: done.append(1))
    assert len(done) == 6
    assert again == resumed


def stop_after(count: int) -> Any:
    """A function that raises at its call of this number."""
    calls = []

    def step() -> None:
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt

    return step


def keep_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "INTERVAL", 0.0)
    monkeypatch.setattr(unfinished, "SHARE", float("inf"))


@pytest.fixture
def cut_off(train_part, test_part, tmp_path, monkeypatch) -> dict[str, Any]:
    """What to resume a comparison with whose fourth run was cut off after the third of ten steps."""
    keep_every_state(monkeypatch)
    copies = Arm(source=Replay(), every=1.0, replace=0.5, until=0.5, adjustment=1.0)
    mixup = Arm(mix=partial(v2.MixUp, alpha=1.0), transform=v2.RandomHorizontalFlip())
    arms = {"plain": Arm(), "balanced": Arm(balanced=True), "copies": copies, "mixup": mixup}
    given = {"arms": arms, "output": tmp_path / "results.json", "budget": Budget(steps=10, batch_size=8)}
    with pytest.raises(KeyboardInterrupt):
        compare(train_part, test_part, **given, on_step=stop_after(33))
    assert len(json.loads(given["output"].read_text())["runs"]) == 3
    return given


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_goes_on_where_it_was_cut_off(optimizer, train_part, test_part, tmp_path, monkeypatch):
    keep_every_state(monkeypatch)
    budget = Budget(steps=10, batch_size=8, optimizer=optimizer, schedule="steps", learning_rate=0.01)
    given = {"output": tmp_path / "results.json", "budget": budget, "arms": {"plain": Arm()}, "seeds": 1}
    for count in (4, 3):
        with pytest.raises(KeyboardInterrupt):
            compare(train_part, test_part, **given, resume=True, on_step=stop_after(count))
    assert not given["output"].exists()  # no run is done
    steps: list[int] = []
    resumed = compare(train_part, test_part, **given, resume=True, on_step=lambda: steps.append(1))
    assert len(steps) == 10 - 4 - 3
    assert without_times(resumed) == without_times(compare(train_part, test_part, **{**given, "output": None}))
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json"]


def test_all_runs_of_a_comparison_go_on(cut_off, train_part, test_part, tmp_path):
    assert len(os.listdir(tmp_path / "results.unfinished")) == 1  # those of runs that are done are gone
    steps: list[int] = []
    resumed = compare(train_part, test_part, **cut_off, resume=True, on_step=lambda: steps.append(1))
    assert len(steps) == 80 - 33
    whole = compare(train_part, test_part, **{**cut_off, "output": None})
    assert without_times(resumed) == without_times(whole)
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json"]


def test_time_of_a_run_counts_what_it_took_before(cut_off, train_part, test_part, tmp_path):
    (path,) = (tmp_path / "results.unfinished").iterdir()
    state = load_file(path)
    assert state["step"] == 3
    assert 0 < state["seconds"] < 100
    save_file({**state, "seconds": torch.tensor(1000.0)}, path)
    resumed = compare(train_part, test_part, **cut_off, resume=True)
    assert 1000 < max(run["seconds"] for run in resumed.runs) < 1100


@pytest.mark.parametrize(
    "change", [{"budget": Budget(steps=11, batch_size=8)}, {"seeds": [1]}, {"environment": "other"}]
)
def test_a_state_is_of_no_other_run(change, cut_off, train_part, test_part, tmp_path, monkeypatch):
    for path in tmp_path.glob("results.*s*"):  # but the states
        if path.is_file():
            path.unlink()
    if "environment" in change:
        monkeypatch.setattr(runs, "describe_environment", lambda device: change.pop("environment"))
    steps: list[int] = []
    asked = {**cut_off, "arms": {"mixup": cut_off["arms"]["mixup"]}, "seeds": [0], **change, "rival": "mixup"}
    asked.pop("environment", None)
    with pytest.warns(ResumeWarning, match=r"results.unfinished holds 1 states of runs with other settings, or in ano"):
        compare(train_part, test_part, **asked, resume=True, on_step=lambda: steps.append(1))
    assert len(steps) == asked["budget"].steps
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"some text"])
def test_a_state_that_is_damaged_is_named(content, cut_off, train_part, test_part, tmp_path):
    (path,) = (tmp_path / "results.unfinished").iterdir()
    whole = path.read_bytes()
    for text in (content, whole[: len(whole) // 2]):
        path.write_bytes(text)
        with pytest.raises(GenaugError, match=rf"{path.name} must hold the state of a run, got .*; delete it to beg"):
            compare(train_part, test_part, **cut_off, resume=True)
        assert path.read_bytes() == text
    path.unlink()
    compare(train_part, test_part, **cut_off, resume=True)


def test_a_state_of_another_network_is_named(cut_off, train_part, test_part, tmp_path):
    (path,) = (tmp_path / "results.unfinished").iterdir()
    state = load_file(path)
    save_file({**state, "net.head.weight": torch.zeros(10, 6)}, path)
    with pytest.raises(GenaugError, match=r"must hold a state of this classifier, got .*size mismatch.*; delete it"):
        compare(train_part, test_part, **cut_off, resume=True)


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), MemoryError("no memory")])
def test_a_state_that_cannot_be_read_is_not_to_be_deleted(
    problem, cut_off, train_part, test_part, tmp_path, monkeypatch
):
    def fail(*arguments: Any, **options: Any) -> Any:
        raise problem

    (path,) = (tmp_path / "results.unfinished").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(GenaugError, match=rf"{path.name} cannot be read \({type(problem).__name__}: ") as caught:
            compare(train_part, test_part, **cut_off, resume=True)
    assert "delete" not in str(caught.value)


def test_a_state_of_shared_weights_and_one_of_more_than_tensors(tmp_path, monkeypatch):
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        torch.nn.init.ones_(net[0].weight)
        net[1].weight = net[0].weight
        return net, torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)

    keep_every_state(monkeypatch)
    with own_randomness(0, CPU):
        (net, optimizer), (other, another) = make(), make()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    kept = unfinished.Unfinished(tmp_path / "state.safetensors")
    kept.save_in_time(net, optimizer, step=7)
    assert kept.restore(other, another) == 7
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters(), strict=True))
    torch.testing.assert_close(another.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0)
    monkeypatch.setattr(torch.nn.Linear, "get_extra_state", lambda self: "words")
    with pytest.warns(ResumeWarning, match="the state of a run was not kept"):
        kept.save_in_time(net, optimizer, step=8)
    assert unfinished.count_steps(kept.path) == 7


def test_a_state_that_cannot_be_kept_ends_no_run(train_part, test_part, tmp_path, monkeypatch):
    keep_every_state(monkeypatch)
    (tmp_path / "results.unfinished").write_text("mine")  # in the place of the folder
    given = {"arms": {"plain": Arm()}, "seeds": 1, "output": tmp_path / "results.json"}
    with pytest.warns(ResumeWarning, match=r"the state of a run was not kept \(.*cannot be written.*\); it goes on"):
        found = compare(train_part, test_part, **given, resume=True)
    assert len(found.runs) == 1
    assert (tmp_path / "results.unfinished").read_text() == "mine"


def test_states_are_not_lost_by_mistake(cut_off, train_part, test_part, tmp_path):
    cut_off["output"].unlink()
    cut_off["output"].with_suffix(".csv").unlink()
    before = os.listdir(tmp_path / "results.unfinished")
    with pytest.raises(GenaugError, match=r"unfinished: exists already; go on from it \(--resume, resume=True\), ch"):
        compare(train_part, test_part, **cut_off)
    assert os.listdir(tmp_path / "results.unfinished") == before
    (tmp_path / "results.unfinished/mine.txt").touch()
    (tmp_path / "results.unfinished/.genaug.tmp-0123abcd").touch()  # of a process that was killed
    steps: list[int] = []
    compare(train_part, test_part, **cut_off, overwrite=True, on_step=lambda: steps.append(1))
    assert len(steps) == 80
    assert os.listdir(tmp_path / "results.unfinished") == ["mine.txt"]


def test_what_a_killed_process_left_is_removed_at_once(cut_off, train_part, test_part, tmp_path):
    left = tmp_path / "results.unfinished/.genaug.tmp-0123abcd"
    left.touch()
    with pytest.raises(KeyboardInterrupt):
        compare(train_part, test_part, **cut_off, resume=True, on_step=stop_after(1))
    assert not left.exists()
    assert len(unfinished.list_states(left.parent)) == 1


def test_no_states_are_kept_of_what_cannot_be_recognized(cut_off, train_part, test_part, tmp_path):
    unclear = {"classifier": lambda spec: small(spec), "on_step": stop_after(5)}
    for path in (cut_off["output"], cut_off["output"].with_suffix(".csv")):
        path.unlink()
    with pytest.raises(GenaugError, match="runs cannot be resumed where"):
        compare(train_part, test_part, **cut_off, **unclear, resume=True)
    with pytest.raises(KeyboardInterrupt):
        compare(train_part, test_part, **cut_off, **unclear, overwrite=True)
    assert not list(tmp_path.iterdir())


def test_another_comparison_is_kept_out_of_its_results(train_part, test_part, tmp_path):
    # In this process the lock of the running comparison is seen just as another process sees it.
    output, refused = tmp_path / "results.json", []

    def try_another() -> None:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(GenaugError, match="results.json: another process writes to it"):
                compare(train_part, test_part, output=output, **options)
        compare(train_part, test_part, arms={"plain": Arm()}, seeds=1, output=tmp_path / f"{len(refused)}.json")
        refused.append(1)

    result = compare(train_part, test_part, output=output, on_step=try_another)
    assert len(refused) == 2 * 6
    assert json.loads(output.read_text()) == result.to_dict()
    assert compare(train_part, test_part, output=output, resume=True) == result  # it is free again


def test_more_seeds_and_arms_are_added_to_what_is_there(train_part, test_part, tmp_path):
    output, done = tmp_path / "results.json", []
    first = compare(train_part, test_part, arms={"plain": Arm()}, output=output, resume=True)  # there is none yet
    grown = compare(train_part, test_part, seeds=[0, 1, 2], output=output, resume=True, on_step=lambda: done.append(1))
    assert len(done) == 2 * 7
    assert [run for run in grown.runs if run["arm"] == "plain" and run["seed"] < 2] == first.runs
    assert without_times(grown) == without_times(compare(train_part, test_part, seeds=3))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget": Budget(steps=3, batch_size=8)}, "different: steps"),
        ({"arms": {**ARMS, "balanced": Arm(balanced=True, learning_rate=1e-3)}}, "different: arm 'balanced'"),
        ({"classifier": SmallCNN}, "different: classifier"),
    ],
)
def test_results_of_another_comparison_are_not_resumed(change, named, train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    compare(train_part, test_part, seeds=[0], output=output)
    before = output.read_text()
    with pytest.raises(GenaugError, match=f"{named}.*; give the same"):
        compare(train_part, test_part, output=output, resume=True, **change)
    with pytest.raises(GenaugError, match=r"different: train_sha256\)"):
        compare(draw(1), test_part, output=output, resume=True)
    assert output.read_text() == before


HEAD = '{"rival": "plain", "class_names": ["a", "b"], "test_labels": "0 1", '
WRONG_SETTINGS, WRONG_RUNS = HEAD + '"settings": [], "runs": []}', HEAD + '"settings": {"arms": {}}, "runs": [{}]}'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 3}', "\xff\x00", WRONG_SETTINGS, WRONG_RUNS])
def test_files_that_hold_no_results_are_not_resumed(text, train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    output.write_bytes(text.encode("latin-1"))
    with pytest.raises(GenaugError, match=r"results.json must hold the results of a comparison, got"):
        compare(train_part, test_part, output=output, resume=True)
    assert output.read_bytes() == text.encode("latin-1")


def test_runs_that_would_be_lost_are_kept(train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    compare(train_part, test_part, output=output, seeds=[0])
    before = output.read_text()
    with pytest.raises(GenaugError, match=r"holds 1 runs that are not asked for now, such as focal, seed 0; ask for"):
        compare(
            train_part, test_part, arms={"plain": Arm(), "balanced": Arm(balanced=True)}, output=output, resume=True
        )
    assert output.read_text() == before


def test_a_difference_is_found_once_for_the_same_runs(train_part, test_part, tmp_path, monkeypatch):
    found = []

    def note(*arguments: Any, **options: Any) -> Any:
        found.append(1)
        return paired_difference(*arguments, **options)

    monkeypatch.setattr(comparison, "paired_difference", note)
    comparison._difference.cache_clear()
    options = {"budget": Budget(steps=20, batch_size=8), "output": tmp_path / "results.json"}
    compare(train_part, test_part, **options)  # written after each of six runs
    assert len(found) == 2  # of two arms to the rival
    again = compare(train_part, test_part, resume=True, **options)
    assert len(found) == 2
    again.difference("focal", metric="accuracy")
    assert len(found) == 3


# --- side by side


MODULE = """
import multiprocessing
import os
import pathlib
import time

from genaug import GenaugError
from genaug.data import load_data, longtail_indices
from genaug.evaluate import Arm, compare_arms, jobs, unfinished
from genaug.evaluate.makers import Noise
from genaug.models import GAN, VAE, GANConfig, SmallCNN, VAEConfig


def small(spec):
    return SmallCNN(spec, width=4)


def draw(seed):
    pool = load_data("digits")
    return pool.subset(longtail_indices(pool.labels, imbalance_factor=10, seed=seed))


TRIED = []
if "EVERY_STATE" in os.environ:
    unfinished.INTERVAL, unfinished.SHARE = 0.0, float("inf")


def trains(net):  # and is not only tried before
    if net.training and multiprocessing.parent_process() is None and len(TRIED) < 1:
        TRIED.append(net)
        return False
    return net.training


class Failing(SmallCNN):
    def forward(self, images):
        if trains(self):
            raise GenaugError("this one fails")
        return super().forward(images)


class Noted(SmallCNN):
    def forward(self, images):
        if trains(self):
            pathlib.Path(os.environ["NOTES"], f"{os.getpid()} {time.monotonic_ns()}").touch()
        return super().forward(images)


class Looking(Noise):
    def __call__(self, train, counts, *, seed, device):
        own = jobs._shared["test"].images
        words = f"{train.images.is_shared()} {own.is_shared()} {len(jobs._payload)} {train.fingerprint()[:8]}"
        pathlib.Path(os.environ["NOTES"], words).touch()
        return super().__call__(train, counts, seed=seed, device=device)


class Interrupted(Noted):
    def forward(self, images):
        found = super().forward(images)
        if multiprocessing.parent_process() is not None and self.training:
            raise KeyboardInterrupt
        return found


class Dying(SmallCNN):  # in the seventh step of its first run
    def forward(self, images):
        if self.training and multiprocessing.parent_process() is not None and "DIES" in os.environ:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 7:
                os._exit(1)
        return super().forward(images)


class Slow(Noted):
    def forward(self, images):
        found = super().forward(images)
        if multiprocessing.parent_process() is not None and self.training:
            time.sleep(600)
        return found


class Pausing(SmallCNN):
    def forward(self, images):
        if self.training:
            time.sleep(0.1)
        return super().forward(images)


if __name__ == "__main__":
    test = load_data("digits", split="test")
    arms = {"plain": Arm(), "balanced": Arm(balanced=True)}
    compare_arms(arms, train=draw, test=test, rival="plain", classifier=Slow, jobs=2, progress=False)
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> Any:
    """A module of a user's, which other processes can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "my_comparison.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_comparison", raising=False)  # that of another test, which knows what it tried
    return importlib.import_module("my_comparison")


def test_runs_side_by_side_are_those_one_after_another(module, test_part, tmp_path):
    arms = {**ARMS, "mixup": Arm(mix=partial(v2.MixUp, alpha=1.0)), "flips": Arm(transform=v2.RandomHorizontalFlip())}
    output = tmp_path / "results.json"
    many = compare(module.draw, test_part, arms=arms, classifier=module.small, jobs=2, output=output)
    one = compare(module.draw, test_part, arms=arms, classifier=module.small)
    assert without_times(many) == without_times(one)
    assert many.difference("mixup") == one.difference("mixup")
    assert json.loads(output.read_text()) == many.to_dict()


def test_runs_of_a_process_that_died_go_on(module, train_part, test_part, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERY_STATE", "1")
    given = {"classifier": module.Dying, "budget": Budget(steps=10, batch_size=8), "jobs": 2, "arms": {"plain": Arm()}}
    output = tmp_path / "results.json"
    with monkeypatch.context() as patch:
        patch.setenv("DIES", "1")
        with pytest.raises(GenaugError, match="a process of a run died"):
            compare(train_part, test_part, **given, output=output)
    states = unfinished.list_states(tmp_path / "results.unfinished")
    assert max(unfinished.count_steps(path) for path in states) == 6
    resumed = compare(train_part, test_part, **given, output=output, resume=True)
    assert without_times(resumed) == without_times(compare(train_part, test_part, **given))
    assert sorted(os.listdir(tmp_path)) == ["modules", "results.csv", "results.json"]


def test_steps_in_other_processes_are_counted_while_they_are_made(module, train_part, test_part, monkeypatch):
    monkeypatch.setattr(jobs, "REFRESH", 0.01)
    tasks = [jobs.Task("plain", Arm(), seed) for seed in range(3)]
    shared = {"train": train_part, "test": test_part, "classifier": module.Pausing, "budget": Budget(steps=10)}
    made: list[int] = []
    after = [
        sum(made)
        for _ in jobs.run_tasks(
            tasks, {**shared, "device": CPU}, {}, jobs=2, update=lambda steps, description=None: made.append(steps)
        )
    ]
    assert sum(1 for steps in made if steps) > len(tasks)  # not in one leap for each run
    assert after[0] >= 10
    assert sum(made) == 30


def test_pixels_on_the_disk_are_shared_and_the_others_kept_once(module, train_part, test_part, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    (tmp_path / "notes").mkdir()
    pixels = allocate_pixels(train_part.images.shape, memory_limit=1e-9).copy_(train_part.images)
    on_disk = LabeledImages(pixels, train_part.labels, train_part.spec)
    arms = {"plain": Arm(), "looking": Arm(source=module.Looking())}
    many = compare(on_disk, test_part, arms=arms, classifier=module.small, jobs=2)
    assert os.listdir(tmp_path / "notes") == [f"True False 0 {train_part.fingerprint()[:8]}"]
    one = compare(train_part, test_part, arms={**arms, "looking": Arm(source=Noise())}, classifier=module.small)
    assert without_times(many) == without_times(one)


def test_what_cannot_be_sent_to_other_processes_is_named(train_part, test_part):
    with pytest.raises(GenaugError, match=r"with jobs above 1 .* must be picklable, got .*lambda.*; use jobs=1"):
        compare(train_part, test_part, classifier=lambda spec: small(spec), jobs=2)
    with pytest.raises(GenaugError, match=r"must be importable in other processes, got: .*test"):
        compare(train_part, test_part, jobs=2)  # functions of a test are not


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_a_run_is_raised(jobs, module, train_part, test_part):
    with pytest.raises(GenaugError, match="this one fails"):
        compare(train_part, test_part, classifier=module.Failing, jobs=jobs)


def test_an_interrupted_run_ends_all_of_them(module, train_part, test_part, tmp_path, monkeypatch):
    """As Ctrl-C does that reaches a generator's training in a worker, whose executor would go on with the next task."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    (tmp_path / "notes").mkdir()
    with pytest.raises(GenaugError, match="a process of a run died"):
        compare(train_part, test_part, classifier=module.Interrupted, jobs=2, seeds=8)
    assert 1 <= len(list((tmp_path / "notes").iterdir())) <= 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_end_with_the_process_that_started_them(module, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    process = subprocess.Popen([sys.executable, module.__file__], env={**os.environ, "NOTES": str(notes)})
    try:
        while len(pids := {name.split()[0] for name in os.listdir(notes)}) < 2:
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while (left := list(filter(is_alive, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def is_alive(pid: str) -> bool:
    try:
        return "zombie" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


# --- files, seeds and arms that are not there


def test_files_beside_the_results_are_kept_too(train_part, test_part, tmp_path):
    (tmp_path / "results.csv").write_text("mine")
    for resume in (False, True):
        with pytest.raises(GenaugError, match="results.csv: exists already"):
            compare(train_part, test_part, output=tmp_path / "results.json", resume=resume)
    with pytest.raises(GenaugError, match="output must be a JSON file, beside which a CSV file is written"):
        compare(train_part, test_part, output=tmp_path / "table.csv")
    assert (tmp_path / "results.csv").read_text() == "mine"
    compare(train_part, test_part, output=tmp_path / "results.json", overwrite=True)
    assert (tmp_path / "results.csv").read_text().startswith("arm,seed,accuracy")


def test_results_are_those_of_the_rival_that_is_asked_for_now(train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    first = compare(train_part, test_part, output=output)
    other = next(name for name in first.arms if name != first.rival)
    again = compare(train_part, test_part, output=output, resume=True, rival=other)
    assert json.loads(output.read_text()) == again.to_dict()
    assert again.to_dict()["rival"] == other


def test_what_cannot_be_recognized_is_not_resumed(train_part, test_part, tmp_path):
    output = tmp_path / "results.json"
    compare(train_part, test_part, output=output, classifier=lambda spec: SmallCNN(spec, width=2))
    with pytest.raises(GenaugError, match=r"resumed where \['classifier'\] hold a lambda.*define it in a module"):
        compare(train_part, test_part, output=output, resume=True, classifier=lambda spec: SmallCNN(spec, width=8))


class Brighten:
    """A transform whose repr does not tell its values."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, image: Tensor) -> Tensor:
        return (image.int() + self.amount).clamp(max=255).to(torch.uint8)


def test_objects_and_draws_that_differ_are_not_resumed(train_part, test_part, tmp_path):
    arms = [{"plain": Arm(), "bright": Arm(transform=Brighten(amount))} for amount in (0, 100)]
    compare(train_part, test_part, output=tmp_path / "objects.json", arms=arms[0])
    with pytest.raises(GenaugError, match=r"where \['bright'\] hold .* an object without a repr"):
        compare(train_part, test_part, output=tmp_path / "objects.json", arms=arms[1], resume=True)
    compare(draw, test_part, output=tmp_path / "drawn.json")
    assert draw(0).fingerprint() == train_part.fingerprint()
    with pytest.raises(GenaugError, match=r"of another comparison \(different: train\)"):
        compare(train_part, test_part, output=tmp_path / "drawn.json", resume=True)
    again = compare(draw, test_part, output=tmp_path / "drawn.json", resume=True)
    assert len(again.runs) == 6


def test_arms_and_metrics_that_are_not_there(train_part, test_part):
    found = compare(train_part, test_part, seeds=np.int64(2))
    assert found.settings["seeds"] == [0, 1]
    for call in (found.difference, found.recall, lambda name: found.values(name, "accuracy")):
        with pytest.raises(GenaugError, match="arm must be one that was run, .*, got 'typo'"):
            call("typo")
    with pytest.raises(GenaugError, match="metric must be one of accuracy, .*, got 'typo'"):
        found.values("plain", "typo")
    for wrong in (2.0, [0, 0], [], [0.5], "2", None):
        with pytest.raises(GenaugError, match="seeds must be at least one integer"):
            compare(train_part, test_part, seeds=wrong)


# --- what does not fit


def test_one_class_is_not_enough(train_part, test_part):
    ones = train_part.subset(torch.nonzero(train_part.labels == 1).flatten())
    with pytest.raises(DataError, match=r"train must hold images of at least two classes, got \['1'\] alone"):
        compare(ones, test_part)
    with pytest.raises(DataError, match=r"test must hold images of at least two classes"):
        compare(train_part, test_part.subset(torch.nonzero(test_part.labels == 1).flatten()))


def test_a_class_with_one_image_is_trained_on(train_part, test_part):
    rows = torch.cat([torch.nonzero(train_part.labels != 9).flatten(), torch.nonzero(train_part.labels == 9)[0]])
    result = compare(train_part.subset(rows), test_part, seeds=1)
    assert result.settings["train_counts"][9] == 1
    assert len(result.runs) == 3


def test_a_class_that_one_part_lacks_is_told(train_part, test_part):
    for part, other, held in ((train_part, test_part, "train"), (test_part, train_part, "test")):
        without = part.subset(torch.nonzero(part.labels != 9).flatten())
        parts = (without, other) if held == "train" else (other, without)
        with pytest.warns(DataWarning, match=rf"{held} holds no images of \['9'\]"):
            compare(*parts, seeds=1)


class Pixels(torch.nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)


def perceptron(spec: DataSpec) -> torch.nn.Module:
    layers = [layer for width in (64, 64, 64) for layer in (torch.nn.Linear(width, 64), torch.nn.ReLU())]
    return torch.nn.Sequential(Pixels(), *layers, torch.nn.Linear(64, spec.num_classes))


def test_a_classifier_that_diverges_is_told(train_part, test_part):
    arms = {"plain": Arm(), "fast": Arm(learning_rate=10.0)}
    budget = Budget(steps=30, batch_size=8, optimizer="sgd", learning_rate=1e-6)
    with pytest.warns(DataWarning, match="arm 'fast', seed 0: the classifier diverged"):
        result = compare(train_part, test_part, arms=arms, seeds=1, budget=budget, classifier=perceptron)
    assert [run.get("diverged", False) for run in result.runs] == [False, True]


def test_shared_images_are_named(train_part, test_part):
    both = LabeledImages(
        torch.cat([test_part.images[:2], train_part.images]),
        torch.cat([test_part.labels[:2], train_part.labels]),
        train_part.spec,
    )
    assert find_shared(both, test_part) == [0, 1]
    with pytest.raises(DataError, match=r"got 2 shared, images \[0, 1\] of train; remove them"):
        compare(both, test_part)


def test_a_bank_of_other_classes_is_refused_before_anything_is_trained(train_part, test_part):
    class Other:
        spec = DataSpec(1, 8, 8, ("cat", "dog"))

        def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            return torch.rand(len(labels), 1, 8, 8, generator=generator)

    bank, steps = SampleBank.generate(Other(), 3, seed=0, progress=False), []
    with pytest.raises(DataError, match=r"arm 'mixed': source must have the classes of real, got .*cat"):
        compare(train_part, test_part, arms={**ARMS, "mixed": Arm(source=bank)}, on_step=lambda: steps.append(1))
    assert not steps


@pytest.mark.parametrize("make", [lambda test: Replay()(test, [2] * 10, seed=0, device=CPU), Reserve])
def test_images_of_the_test_part_are_refused(make: Any, train_part, test_part):
    steps: list[int] = []
    arms = {"plain": Arm(), "mixed": Arm(source=make(test_part))}
    with pytest.raises(DataError, match=r"arm 'mixed': source must hold no images that arms are tested on, got \d+"):
        compare(train_part, test_part, arms=arms, on_step=lambda: steps.append(1))
    assert not steps
    check_arms({"mixed": Arm(source=Replay()(train_part, [2] * 10, seed=0, device=CPU))}, train_part, test_part)


def test_a_gan_that_never_saw_a_class(train_part, test_part):
    with torch.random.fork_rng():
        gan = GAN(train_part.spec, GANConfig(width=4, latent_dim=4))
    gan.class_shares.copy_(torch.tensor([1.0] * 9 + [0.0]))
    arms = {"plain": Arm(), "mixed": Arm(source=gan, every=0.5)}
    with pytest.warns(DataWarning, match=r"source has no samples of \['9'\], so none are mixed in"):
        found = compare(train_part, test_part, arms=arms, seeds=1)
    added = [count - real for count, real in zip(found.runs[1]["counts"], train_part.counts, strict=True)]
    assert added[9] == 0 < min(added[:9])
    gan.class_shares.copy_(torch.tensor([1.0] + [0.0] * 9))  # the largest class, which gets none
    steps: list[int] = []
    with pytest.raises(DataError, match="arm 'mixed': source must have samples of a class that gets some"):
        compare(train_part, test_part, arms={**arms, "mixed": Arm(source=gan)}, on_step=lambda: steps.append(1))
    assert not steps


def test_a_reserve_of_training_images_is_refused(train_part, test_part):
    steps: list[int] = []
    arms = {"plain": Arm(), "mixed": Arm(source=Reserve(train_part), every=0.1)}
    message = rf"arm 'mixed': source must hold no images that arms are trained on, got {len(train_part)} of them"
    with pytest.raises(DataError, match=message):
        compare(train_part, test_part, arms=arms, on_step=lambda: steps.append(1))
    assert not steps


class Drawn:
    """The training part of each seed."""

    def __init__(self, *parts: LabeledImages) -> None:
        self.parts = parts

    def __call__(self, seed: int) -> LabeledImages:
        return self.parts[seed]


def test_the_parts_of_later_seeds_are_checked_too(train_part, test_part):
    pool, done = load_data("digits"), []
    own, reserve = pool.subset(range(0, len(pool), 2)), pool.subset(range(1, len(pool), 2))
    arms = {"plain": Arm(), "mixed": Arm(source=Reserve(reserve), every=0.1)}
    with pytest.raises(DataError, match=r"arm 'mixed', seed 1: source must hold no images that arms are trained on"):
        compare(Drawn(own, pool), test_part, arms=arms, on_step=lambda: done.append(1))
    assert len(done) == 3 * 2  # both arms of the first seed, and the plain one of the next
    even = train_part.subset(torch.cat([torch.nonzero(train_part.labels == c).flatten()[:9] for c in range(10)]))
    arms["mixed"] = Arm(source=Replay()(train_part, [50] * 10, seed=0, device=CPU))
    with pytest.raises(DataError, match="arm 'mixed', seed 1 mixes in nothing"):
        compare(Drawn(train_part, even), test_part, arms=arms)


def test_an_arm_that_mixes_in_nothing_is_refused(train_part, test_part):
    even = train_part.subset(torch.cat([torch.nonzero(train_part.labels == c).flatten()[:9] for c in range(10)]))
    for source in (Noise(), Replay()(even, [2] * 10, seed=0, device=CPU)):
        with pytest.raises(DataError, match=r"arm 'mixed' mixes in nothing, .*target='median'.* set every"):
            compare(even, test_part, arms={"plain": Arm(), "mixed": Arm(source=source)})
        check_arms({"mixed": Arm(source=source, every=1.0)}, even, test_part)


def total(logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    return logits.sum(), torch.ones(len(logits))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (torch.nn.CrossEntropyLoss(), r"loss must take \(logits, targets, .* but fails \(TypeError"),
        (total, r"loss must return losses \(N,\) and weights \(N,\)"),
    ],
)
def test_losses_of_another_form_are_refused(loss: Any, message: str, train_part, test_part):
    steps: list[int] = []
    with pytest.raises(GenaugError, match=rf"arm 'own': {message}"):
        compare(train_part, test_part, arms={"plain": Arm(), "own": Arm(loss=loss)}, on_step=lambda: steps.append(1))
    assert not steps


# --- arms in words


def test_sources_are_told_apart_by_what_they_hold(train_part):
    banks = [Noise()(train_part, [2] * 10, seed=seed, device=CPU) for seed in (0, 0, 1)]
    with torch.random.fork_rng(devices=[]):
        models = [VAE(train_part.spec, VAEConfig(width=4, hidden=8, latent_dim=3)) for _ in range(2)]
    words = [describe_arm(Arm(source=source))["source"] for source in (*banks, *models, models[0])]
    assert words[0] == words[1] != words[2]
    assert words[3] == words[5] != words[4]


def test_arms_in_words_are_the_same_in_every_process():
    arm = Arm(balanced=True, loss=Focal(gamma=1.0), mix=partial(v2.MixUp, alpha=0.2), source=lambda *a, **k: None)
    assert describe_arm(arm) == {
        "balanced": "True",
        "loss": "Focal(gamma=1.0)",
        "mix": "functools.partial(<class 'torchvision.transforms.v2._augment.MixUp'>, alpha=0.2)",
        "source": "<function test_arms_in_words_are_the_same_in_every_process.<locals>.<lambda>>",
    }
    assert describe_arm(Arm()) == {}
