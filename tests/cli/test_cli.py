"""The command line: what it writes, what it refuses, and what it says, in one line, when something is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import typer
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

import genaug
from genaug import GenaugError, RecipeError, SampleBank
from genaug.cli import app
from genaug.cli.options import one_line_errors, parse_size

COMMANDS = ("demo", "train", "sample", "denoise", "models", "bench")
RECIPE = """\
family: vae
seed: 3
model: {width: 8, hidden: 16, latent_dim: 4}
training: {steps: 4, batch_size: 16, learning_rate: 1e-3, log_every: 1, sample_every: 2, save_every: 2}
"""
PATHS = {**os.environ, "PYTHONPATH": str(Path(genaug.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a tiny recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained once, to be read only."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(RECIPE)
    result = call("train", folder / "tiny.yaml", "--data", "digits", "--output", folder / "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    return folder / "run"


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(*arguments: Any) -> Any:
    return call("train", "tiny.yaml", "--data", "digits", "--device", "cpu", "--quiet", *arguments)


def refused(result: Any, *words: str) -> None:
    """Check for exit status 1 and one line that says why, without a traceback."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    table = r"\d+ images [^\n]+\n.+ exact duplicates\n"  # where the data could be read before something else was wrong
    assert re.fullmatch(rf"(?:{table})?error: [^\n]+\n", result.stderr, re.DOTALL)
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    return (one / "model/model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()


# --- help and imports


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Example: genaug {command}" in result.stdout
    assert "--debug" in result.stdout


def test_help_tells_defaults_in_words():
    for command, default in (("sample", "all"), ("train", "the recipe's"), ("denoise", "denoised")):
        words = call(command, "--help").stdout.replace("│", " ").split()  # in columns, which break lines
        assert f"[default: {default}]" in " ".join(words)


def test_help_lists_all_commands_and_no_arguments_show_it():
    shown = call("--help")
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\b", shown.stdout, re.MULTILINE)
    assert call("-h").stdout == shown.stdout
    assert "Usage:" in call().output


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['genaug', '--help']\n"
        "from genaug.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "loaded = {'torch', 'torchvision', 'numpy', 'pydantic', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], env=PATHS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_importing_genaug_imports_no_heavy_library():
    heavy = "torch torchvision albumentations datasets sklearn torchmetrics kornia ray matplotlib"
    code = f"import sys, genaug; loaded = set({heavy.split()}) & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], env=PATHS, check=True)


@pytest.mark.parametrize("name", genaug.__all__)
def test_every_public_name_resolves(name):
    assert getattr(genaug, name).__doc__
    assert name in dir(genaug)


def test_an_unknown_public_name():
    with pytest.raises(AttributeError, match="module 'genaug' has no attribute 'nonsense'"):
        _ = genaug.nonsense  # type: ignore[attr-defined]


# --- train


def test_train_writes_everything(run_dir):
    assert {path.name for path in run_dir.iterdir()} == {
        "metrics.jsonl", "model", "recipe.yaml", "run.json", "samples", "states", "tensorboard"
    }  # fmt: skip
    model = genaug.load(run_dir / "model")
    assert model.spec.class_names == tuple("0123456789")
    assert model.sample(torch.tensor([1, 2]), generator=torch.Generator().manual_seed(0)).shape == (2, 1, 8, 8)

    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    assert recipe["seed"] == 3
    assert recipe["training"]["steps"] == 4
    assert recipe == model.recipe

    lines = [line for line in metrics(run_dir) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in lines)

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx({line["step"]: line["loss"] for line in lines})  # as float32

    pictures = sorted((run_dir / "samples").iterdir())
    assert [picture.name for picture in pictures] == ["final.png", "step-000002.png", "step-000004.png"]
    for picture in pictures:
        with PIL.Image.open(picture) as image:
            image.load()
            assert image.height > 10 * 8  # a row for each class
    assert sorted(path.name for path in (run_dir / "states").iterdir()) == ["step-2", "step-4"]


def test_train_says_where_the_model_is_and_shows_progress(here):
    result = call("train", "tiny.yaml", "--data", "digits", "--device", "cpu")
    assert result.exit_code == 0
    assert result.stdout == "model: runs/tiny/model\n"  # the default output
    assert (here / "runs/tiny/model/config.json").is_file()
    assert "vae 4/4" in result.stderr


def test_set_and_seed_override_the_recipe(here):
    result = train("--output", "run", "--set", "training.steps=2", "--set", "model.width=4", "--seed", 11)
    assert result.exit_code == 0
    assert result.stderr == ""  # --quiet
    recipe = yaml.safe_load((here / "run/recipe.yaml").read_text())
    assert (recipe["training"]["steps"], recipe["model"]["width"], recipe["seed"]) == (2, 4, 11)
    assert genaug.load("./run/model").config.width == 4


def test_scores_are_printed(here):
    result = train("--output", "run", "--set", "training.validation_fraction=0.2")
    assert result.exit_code == 0
    lines = dict(line.split(": ") for line in result.stdout.splitlines())
    scores = genaug.load("./run/model").scores
    assert scores
    assert {name: lines[name] for name in scores} == {name: str(value) for name, value in scores.items()}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.step=2", ["training.step", "unknown field; allowed:", "steps"]),
        ("training.steps=many", ["training.steps", "'many'"]),
        ("training.steps=-1", ["training", "must be from 1", "-1"]),
        ("model.width=0", ["model", "width", "must be from 1", "got 0"]),
        ("family=ddpm", ["family", "must be one of", "vae", "'ddpm'"]),
        ("training.steps", ["'training.steps'", "must be of the form field=value"]),
        ("training.steps=[", ["training.steps", "not valid YAML"]),
    ],
)
def test_a_wrong_override(assignment, words, here):
    refused(train("--output", "run", "--set", assignment), *words)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "tiny.yaml", "--data", "cifar"], ["'cifar'", "digits"]),
        (["train", "tiny.yaml", "--data", "./photos"], ["photos", "no such folder"]),
        (["train", "tiny.yaml", "--data", "digits", "--resize", "8"], ["resize", "HEIGHTxWIDTH", "'8'"]),
        (["train", "tiny.yaml", "--data", "digits", "--device", "gpu"], ["device: gpu cannot be used"]),
        (["train", "digits-gan", "--data", "digits"], ["'digits-gan'", "no such shipped recipe", "digits-vae"]),
        (["train", "other.yaml", "--data", "digits"], ["other.yaml", "no such file"]),
        (["sample", "digits-gan"], ["digits-gan", "no such shipped model"]),
        (["sample", "./model"], ["model", "no such directory"]),
        (
            ["bench", "nonsense"],
            ["import, engine, arms, training, bank, sampling, transforms, loaders, denoise, jitter", "'nonsense'"],
        ),
    ],
)
def test_what_is_not_there(arguments, words, here):
    refused(call(*arguments), *words)
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


def test_debug_shows_the_exception(here):
    result = train("--debug", "--set", "training.step=2")
    assert result.exit_code == 1
    assert isinstance(result.exception, RecipeError)


def test_existing_output_is_replaced_only_where_asked_for(here):
    assert train("--output", "run").exit_code == 0
    before = (here / "run/recipe.yaml").read_bytes()
    refused(train("--output", "run", "--set", "training.steps=2"), "run: exists already", "--overwrite")
    assert (here / "run/recipe.yaml").read_bytes() == before
    assert train("--output", "run", "--set", "training.steps=2", "--overwrite").exit_code == 0
    assert [line["step"] for line in metrics(here / "run") if "loss" in line] == [1, 2]
    assert [path.name for path in (here / "run/states").iterdir()] == ["step-2"]


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]], ids=["plain", "overwrite", "resume"])
def test_a_foreign_folder_is_never_overwritten(flags, here):
    (here / "thesis").mkdir()
    (here / "thesis/model").write_text("years of work")
    refused(train("--output", "thesis", *flags), "thesis")
    refused(call("demo", "--output", "thesis", "--device", "cpu", *set(flags) - {"--resume"}), "thesis")
    assert [path.read_text() for path in (here / "thesis").iterdir()] == ["years of work"]


def test_resume_goes_on_where_a_run_stopped(here, run_dir):
    assert train("--output", "run").exit_code == 0
    for name in ("model/model.safetensors", "states/step-4/state.json", "states/step-4/state.safetensors"):
        (here / "run" / name).unlink()
    (here / "run/states/step-4").rmdir()
    result = train("--output", "run", "--resume")
    assert result.exit_code == 0
    assert [line["step"] for line in metrics(here / "run") if "loss" in line] == [1, 2, 3, 4]
    assert same_weights(here / "run", run_dir)


def test_resume_refuses_another_recipe_or_other_data(here, run_dir):
    refused(
        call("train", run_dir.parent / "tiny.yaml", "--data", "digits", "--output", run_dir, "--resume", "--seed", 4),
        "another recipe: seed was 3, is now 4",
    )
    command = ["train", run_dir.parent / "tiny.yaml", "--data", "digits", "--output", run_dir, "--resume"]
    refused(call(*command, "--resize", "9x9"), "other data")


def test_ctrl_c_saves_the_state_and_resume_completes(here):
    steps = 400  # long enough to be caught, short enough to complete
    arguments = ["train", "tiny.yaml", "--data", "digits", "--output", "run", "--device", "cpu", "--quiet"]
    arguments += [
        "--set",
        f"training.steps={steps}",
        "--set",
        "training.save_every=1000",
        "--set",
        "training.sample_every=1000",
    ]
    code = "from genaug.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=here, env=PATHS, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while process.poll() is None and not _holds_a_line(here / "run/metrics.jsonl"):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    found = re.fullmatch(r"stopped after step (\d+); state saved in (\S+); go on with --resume\n", said)
    assert found, said
    stopped, state = int(found[1]), here / found[2]
    assert 1 <= stopped < steps
    assert state == here / f"run/states/step-{stopped}"
    assert json.loads((state / "state.json").read_text())["step"] == stopped
    assert not (here / "run/model").exists()

    result = call(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert [line["step"] for line in metrics(here / "run") if "loss" in line] == list(range(1, steps + 1))
    assert genaug.load("./run/model").recipe["training"]["steps"] == steps


def _holds_a_line(path: Path) -> bool:
    return path.is_file() and "\n" in path.read_text()


# --- sample


def drawn(model: Path, counts: dict[str, int], *, seed: int = 0) -> SampleBank:
    return SampleBank.generate(genaug.load(model), counts, seed=seed, progress=False)


def said(line: str) -> str:
    return f"{line}\nNot audited for copies of training images, which --data gives.\n"


def everything(bank: SampleBank) -> torch.Tensor:
    return bank.images(range(len(bank)))


def test_sample_as_image_folders(here, run_dir):
    result = call("sample", run_dir / "model", "--per-class", 3, "--quiet")
    assert result.exit_code == 0
    assert result.stdout == said("30 samples: samples")
    folder = ImageFolder(here / "samples")
    assert folder.classes == list("0123456789")
    assert [folder.targets.count(label) for label in range(10)] == [3] * 10
    expected = everything(drawn(run_dir / "model", dict.fromkeys("0123456789", 3)))
    for (path, _), image in zip(folder.samples, expected, strict=True):
        with PIL.Image.open(path) as opened:
            assert torch.equal(torch.tensor(list(opened.tobytes()), dtype=torch.uint8).view(8, 8), image[0])


def test_sample_as_a_bank(here, run_dir):
    result = call(
        "sample", run_dir / "model", "--format", "bank", "--output", "bank", "--class", 7, "--class", 2,
        "--per-class", 4, "--seed", 5, "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0
    bank = SampleBank.open("bank")
    assert bank.counts == [0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    assert torch.equal(everything(bank), everything(drawn(run_dir / "model", {"7": 4, "2": 4}, seed=5)))


def test_sample_as_parquet(here, run_dir, tmp_path):
    import datasets

    result = call(
        "sample", run_dir / "model", "--format", "parquet", "--output", "new/data.parquet", "--per-class", 2, "--quiet"
    )
    assert result.exit_code == 0
    assert result.stdout == said("20 samples: new/data.parquet")
    table = datasets.load_dataset(
        "parquet", data_files=str(here / "new/data.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table.features["label"].names == list("0123456789")
    assert table["label"] == [label for label in range(10) for _ in range(2)]
    assert table[0]["image"].size == (8, 8)


def test_sample_replaces_its_own_output_alone(here, run_dir):
    command = ["sample", run_dir / "model", "--per-class", 1, "--quiet"]
    assert call(*command).exit_code == 0
    refused(call(*command), "samples: exists already", "--overwrite")
    assert call(*command, "--overwrite").exit_code == 0
    (here / "samples/notes.txt").write_text("years of work")
    refused(call(*command, "--overwrite"), "samples", "holds more than an earlier export")
    assert (here / "samples/notes.txt").read_text() == "years of work"


def test_sample_into_what_is_there(here, run_dir, monkeypatch):
    command = ["sample", run_dir / "model", "--per-class", 1, "--quiet"]
    (here / "empty").mkdir()
    refused(
        call(*command, "--format", "parquet", "--output", "empty"),
        "empty: is a folder, and parquet is written as a file",
        "empty/samples.parquet",
    )
    refused(call(*command, "--output", "tiny.yaml", "--overwrite"), "tiny.yaml: is a file, and imagefolder")
    assert list((here / "empty").iterdir()) == []
    monkeypatch.chdir(here / "empty")
    assert call(*command, "--output", ".").exit_code == 0
    assert ImageFolder(here / "empty").targets == list(range(10))


def test_sample_has_a_default_output_of_each_kind(here, run_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    command = ["sample", run_dir / "model", "--per-class", 1, "--quiet", "--format"]
    assert call(*command, "parquet").stdout == said("10 samples: samples.parquet")
    assert call(*command, "bank").stdout == said("10 samples: samples")
    assert call(*command, "bank", "--output", "~/bank").exit_code == 0
    assert SampleBank.open(here / "home/bank").counts == SampleBank.open("samples").counts == [1] * 10
    assert sorted(path.name for path in here.iterdir()) == ["home", "samples", "samples.parquet", "tiny.yaml"]
    refused(call(*command, "bank", "--output", "~nobody-of-this-name/x"), "cannot be expanded")


def test_sample_of_an_unknown_class(here, run_dir):
    refused(call("sample", run_dir / "model", "--class", "seven"), "'seven'", "known:", "'7'")
    assert not (here / "samples").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sample", "digits-vae", "--format", "zip"], "imagefolder"),
        (["sample", "digits-vae", "--per-class", "0"], "per-class"),
        (["demo", "--seeds", "1"], "seeds"),
        (["train", "digits-vae"], "data"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage(arguments, word, here):
    result = call(*arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert "Traceback" not in result.output


# --- models, bench


def test_models_lists_what_is_shipped():
    result = call("models")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if "digits-vae" in line)
    assert "vae" in line
    assert "1x8x8" in line


def test_bench_prints_a_ratio():
    result = call("bench", "bank", "--repeats", 3)
    assert result.exit_code == 0
    assert re.search(r"\d+\.\d\d ms\W+\d+\.\d\d ms\W+\d+\.\d{3}", result.stdout)


# --- what commands share


@pytest.mark.parametrize(
    ("problem", "status", "line"),
    [
        (GenaugError("steps must be at least 1"), 1, "error: steps must be at least 1\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3\n"),
    ],
)
def test_how_a_command_ends(problem, status, line):
    @one_line_errors
    def command() -> None:
        raise problem

    single = typer.Typer()
    single.command()(command)
    result = CliRunner().invoke(single, [])
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", line)


def test_sigterm_ends_a_command_that_leaves_nothing_half_written(tmp_path):
    code = (
        "import sys, time, typer\n"
        "from genaug.cli.options import one_line_errors\n"
        "from genaug.storage import Path, new_directory\n"
        "@one_line_errors\n"
        "def command() -> None:\n"
        "    with new_directory(Path('bank'), last='a') as aside:\n"
        "        (aside / 'a').write_text('half')\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(60)\n"
        "app = typer.Typer()\n"
        "app.command()(command)\n"
        "app()\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=PATHS, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (143, "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_hidden():
    @one_line_errors
    def command() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        command()


@pytest.mark.parametrize("text", ["8", "8x", "x8", "0x8", "8x8x8", "-8x8", "8.0x8", "axb", "8x99999", "", "²x8"])
def test_sizes_that_are_refused(text):
    with pytest.raises(GenaugError, match="resize: must be HEIGHTxWIDTH"):
        parse_size(text)


def test_sizes():
    assert parse_size(None) is None
    assert parse_size("40X24") == (40, 24)
