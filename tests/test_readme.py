"""The README's Python is run as it stands, and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from genaug import DataSpec
from genaug.cli import app
from genaug.evaluate.pieces import RIVAL, rival_pieces
from genaug.workflows.benchmarks import Benchmark
from genaug.workflows.model_pieces import model_pieces

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.global_rng  # a DataLoader and torchvision's transforms draw from torch's global generator
def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].steps == 100
    assert names["image"].shape == (3, 8, 8)
    assert names["varied"].shape == (16, 1, 8, 8)
    assert names["rgb"][0][0].size == (8, 8)
    assert names["augmented"].shape == (32, 3, 8, 8)  # of timm's loader
    assert names["mixed"].num_rows > names["real"].num_rows
    assert names["example"]["synthetic"]
    assert names["varied_array"].shape == (8, 8)
    assert names["rotated"].shape == names["jittered"].shape == (64, 1, 8, 8)
    assert names["comparison"].arms == list(names["arms"])


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    calls = [call.strip() for line in lines for call in line.split("&&") if "genaug " in call and "pip" not in call]
    assert len(calls) >= 8
    for call in calls:
        words = shlex.split(call)
        command = commands[words[1]]
        if hasattr(command, "commands"):  # such as evaluate
            command = command.commands[words[2]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known, call


def test_no_two_commands_write_to_one_output():
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    written = [re.findall(r"--output (\S+)", line) for line in lines if "--resume" not in line]
    outputs = [output for found in written for output in found]
    outputs += [output for block in blocks("python") for output in re.findall(r"(?:output|path)=\"(\S+)\"", block)]
    assert len(outputs) > 20
    assert len(outputs) == len(set(outputs))


def test_the_pieces_of_arms_are_all_named():
    table = README.split("| pieces of an arm |")[1].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    benchmark = Benchmark(generator="digits-vae")
    known = {**rival_pieces(DataSpec(1, 8, 8, ("a", "b"))), **model_pieces(benchmark, bank=None, cache=None)}
    assert named == {"plain", RIVAL, *known}
    arm = next(parameter for parameter in _command("evaluate", "utility").params if parameter.name == "arm")
    assert named <= {word.strip(",.;:'") for word in arm.help.split()}


def _command(group: str, name: str):
    return get_command(app).commands[group].commands[name]
