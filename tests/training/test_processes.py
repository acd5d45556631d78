"""Two processes train as one with twice the batch; started as users start them."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genaug
from genaug.data import load_data
from genaug.errors import GenaugError, ResumeWarning
from genaug.training import load_recipe, train
from genaug.training.estimate import estimate_seconds
from genaug.training.processes import Processes

SCRIPT = """
import sys
import torch
from genaug.data import load_data
from genaug.errors import GenaugError
from genaug.training import train

torch.set_num_threads(1)
recipe, folder = eval(sys.argv[1]), sys.argv[2]

class Stop(Exception):
    pass

def stop(step):
    if step == 7:
        raise Stop

result = train(recipe, data=load_data("digits"), output=f"{folder}/two", device="cpu", progress=False)
assert result.steps == 12 and result.model.recipe["seed"] == 3
try:
    train(recipe, data=load_data("digits"), output=f"{folder}/cut", device="cpu", progress=False, on_step=stop)
except Stop:
    pass
try:
    train(recipe, data=load_data("digits"), output=f"{folder}/two", device="cpu", progress=False)
except GenaugError as problem:  # found by the main process, raised in both
    assert "exists already" in str(problem), problem
else:
    raise AssertionError("not refused")
import os
recipe["seed"] = int(os.environ["RANK"])
try:
    train(recipe, data=load_data("digits"), output=f"{folder}/mixed", device="cpu", progress=False)
except GenaugError as problem:
    assert "processes 1 have another recipe or other data than process 0" in str(problem), problem
else:
    raise AssertionError("not refused")
"""


GAN_SCRIPT = """
import sys
import warnings
import torch
from genaug.data import load_data
from genaug.training import train

torch.set_num_threads(1)
warnings.simplefilter("ignore")  # after twelve steps samples are all alike
train(eval(sys.argv[1]), data=load_data("digits"), output=f"{sys.argv[2]}/two", device="cpu", progress=False)
"""


def gan_recipe(batch_size: int) -> dict:
    small = {"width": 4, "discriminator_width": 4, "latent_dim": 4, "style_dim": 8, "minibatch_std": 4}
    return {**recipe(batch_size), "family": "gan", "model": small}


def recipe(batch_size: int) -> dict:
    training = {"steps": 12, "batch_size": batch_size, "precision": "float32", "save_every": 5, "log_every": 2}
    return {
        "family": "vae",
        "seed": 3,
        "model": {"width": 8, "hidden": 16, "latent_dim": 4},
        "training": {**training, "sample_every": 6},
    }


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    return launch(tmp_path_factory.mktemp("processes"), SCRIPT, recipe(16))


def launch(folder: Path, script: str, made: dict) -> Path:
    """Run a script in two processes and return the folder that they wrote to."""
    (folder / "script.py").write_text(script)
    # --multi_gpu is what makes it start several; without GPUs they meet over gloo
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    with socket.create_server(("localhost", 0)) as free:
        options += [f"--main_process_port={free.getsockname()[1]}"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, str(folder / "script.py")]
    run = subprocess.run([*command, repr(made), str(folder)], capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return folder


def test_weights_are_those_of_one_process_with_twice_the_batch(launched, tmp_path):
    alone = train(recipe(32), data=load_data("digits"), output=tmp_path / "one", device="cpu", progress=False)
    one, two = (load_file(path / "model.safetensors") for path in (alone.path, launched / "two/model"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4)  # sums in another order


@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")
def test_a_watched_family_too(tmp_path):
    launch(tmp_path, GAN_SCRIPT, gan_recipe(16))
    alone = train(gan_recipe(32), data=load_data("digits"), output=tmp_path / "one", device="cpu", progress=False)
    one, two = (load_file(path / "model.safetensors") for path in (alone.path, tmp_path / "two/model"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4)
    assert genaug.load(tmp_path / "two/model").scores == pytest.approx(alone.scores, rel=1e-3)


def test_one_log_one_checkpoint_one_set_of_pictures(launched):
    output = launched / "two"
    lines = (output / "metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [f'{{"step": {step}' for step in (2, 4, 6, 8, 10, 12)]
    assert sorted(path.name for path in (output / "samples").iterdir()) == [
        "final.png",
        "step-000006.png",
        "step-000012.png",
    ]
    assert len(list((output / "tensorboard").iterdir())) == 1
    assert sorted(path.name for path in (output / "states").iterdir()) == ["step-10", "step-12"]
    assert genaug.load(output / "model").recipe["training"]["batch_size"] == 16


def test_resumed_on_another_number_it_says_what_changes(launched):
    message = r"began with 2 processes \(32 images a step\) and goes on with 1 \(16\)"
    options = {"data": load_data("digits"), "output": launched / "cut", "device": "cpu", "progress": False}
    with pytest.warns(ResumeWarning, match=message):
        assert train(recipe(16), resume=True, **options).steps == 12


def test_processes_with_different_recipes_are_refused_before_anything_is_written(launched):
    assert not (launched / "mixed").exists()


@pytest.mark.parametrize(("size", "fits"), [("", True), ("1", True), ("two", False)])
def test_world_size_of_the_environment(monkeypatch, size, fits):
    monkeypatch.setenv("WORLD_SIZE", size)
    if fits:
        assert Processes("cpu").count == 1
    else:
        with pytest.raises(GenaugError, match="WORLD_SIZE must be the number of processes, got 'two'"):
            Processes("cpu")


def test_the_few_steps_of_an_estimate_warn_of_nothing():
    assert estimate_seconds(load_recipe(gan_recipe(16)), load_data("digits")) > 0  # warnings are errors here


def test_time_is_estimated_in_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(GenaugError, match="without a launcher"):
        estimate_seconds(load_recipe("demo-vae"), load_data("digits"))


def test_alone_without_a_launcher():
    alone = Processes("cpu")
    assert (alone.count, alone.rank, alone.is_main) == (1, 0, True)
    rows = torch.arange(6)
    assert torch.equal(alone.share(rows), rows)
    figures = {"loss": torch.tensor(2.0)}
    assert alone.average([], figures) is figures
    assert alone.from_main(lambda: 5) == 5
