"""The training loop: the same result however it is cut, and nothing lost when it goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import genaug
from genaug.data import LabeledImages, load_data
from genaug.errors import CheckpointError, DataError, DataWarning, GenaugError, RecipeError, TrainingError
from genaug.models import FAMILIES, VAE
from genaug.training import Interrupted, engine, load_recipe, train
from genaug.training.state import list_states, save_state

TINY = {
    "family": "vae",
    "model": {"width": 8, "hidden": 16, "latent_dim": 4},
    "training": {"steps": 12, "batch_size": 16, "warmup_steps": 2, "save_every": 3, "log_every": 2, "sample_every": 5},
}


def recipe(**training: object) -> dict:
    return {**TINY, "training": {**TINY["training"], **training}}


@pytest.fixture(scope="module")
def digits() -> LabeledImages:
    return load_data("digits").subset(torch.arange(300))


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    return train(recipe(), data=digits, output=tmp_path_factory.mktemp("runs") / "whole", progress=False)


def weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / "model" / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def read_log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


class Stop(Exception):
    """Cuts a run short without a chance to save."""


def stop_at(step: int):
    def on_step(done: int) -> None:
        if done == step:
            raise Stop

    return on_step


def test_same_recipe_same_weights_other_seed_other_weights(digits, finished, tmp_path):
    again = train(recipe(), data=digits, output=tmp_path / "again", progress=False)
    assert_same_weights(finished.output, again.output)
    other = train({**recipe(), "seed": 1}, data=digits, output=tmp_path / "other", progress=False)
    assert any(not torch.equal(w, weights(other.output)[name]) for name, w in weights(finished.output).items())


@pytest.mark.parametrize("step", [1, 3, 4, 5, 11])
def test_resume_after_any_step_gives_the_same_bits_and_log(digits, finished, tmp_path, step):
    output = tmp_path / "run"
    with pytest.raises(Stop):
        train(recipe(), data=digits, output=output, progress=False, on_step=stop_at(step))
    result = train(recipe(), data=digits, output=output, progress=False, resume=True)
    assert result.steps == 12
    assert_same_weights(finished.output, output)
    assert [line["step"] for line in read_log(output)] == [2, 4, 6, 8, 10, 12]
    for line, expected in zip(read_log(output), read_log(finished.output), strict=True):
        assert line["learning_rate"] == expected["learning_rate"]


def test_killed_at_any_moment_and_resumed_gives_the_same_bits(digits, tmp_path):
    # SIGKILL leaves no chance to tidy up. One thread on both sides, as results depend on the number of threads.
    script = (
        "import sys, torch\n"
        "from genaug.data import load_data\n"
        "from genaug.training import train\n"
        "digits = load_data('digits').subset(torch.arange(300))\n"
        "train(eval(sys.argv[1]), data=digits, output=sys.argv[2], resume=True, progress=False)\n"
    )
    longer = recipe(steps=4000, save_every=2, sample_every=10**6, log_every=1)
    output, environment = tmp_path / "killed", {**os.environ, "OMP_NUM_THREADS": "1"}
    reached = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script, repr(longer), str(output)], env=environment)
        deadline = time.monotonic() + 120
        while reached_step(output) < reached + 7 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        reached = reached_step(output)
    states = list_states(output / "states")
    assert states, "killed before any state was saved"
    # Go on here for a few steps, and compare with a run that was never cut.
    end = int(states[-1].name.removeprefix("step-")) + 5
    whole = tmp_path / "whole"
    for run in (output, whole):
        with pytest.raises(Stop):
            train(longer, data=digits, output=run, resume=True, progress=False, on_step=stop_at(end))
    saved = [list_states(run / "states")[-1] for run in (output, whole)]
    assert saved[0].name == saved[1].name
    one, two = (load_file(state / "state.safetensors") for state in saved)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not list((output / "states").glob(".*"))  # half-written states are gone


def reached_step(output: Path) -> int:
    try:
        return len((output / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def test_output_has_everything(finished):
    output = finished.output
    assert load_recipe(output / "recipe.yaml").training.steps == 12
    assert [state.name for state in list_states(output / "states")] == ["step-9", "step-12"]
    assert list((output / "tensorboard").glob("events.out.tfevents.*"))
    lines = read_log(output)
    assert {"loss", "reconstruction", "kl", "gradient_norm", "learning_rate", "images_per_second"} <= lines[0].keys()
    for name in ("step-000005", "step-000010", "final"):
        with Image.open(output / "samples" / f"{name}.png") as picture:
            assert picture.size == (8 * 34 + 2, 10 * 34 + 2)  # 8 columns, 10 classes, 32 pixels each and a border of 2
    model = genaug.load(output / "model")
    assert torch.equal(
        model.sample(torch.arange(10), generator=torch.Generator().manual_seed(0)),
        finished.model.sample(torch.arange(10), generator=torch.Generator().manual_seed(0)),
    )
    assert model.recipe == load_recipe(output / "recipe.yaml").to_dict()


def test_densities_are_fitted_and_stored(finished):
    stored = weights(finished.output)
    identity = torch.eye(4 + 2 * 16)  # of the vector, and of a map of 4 x 4 positions
    assert stored["density.scales"].shape == (11, 4, 36, 36)
    assert (stored["density.scales"][:, 0] != identity).any(2).any(1).all()  # thirty images: one component a class


def test_training_learns(digits, tmp_path):
    result = train(recipe(steps=120, batch_size=32), data=digits, output=tmp_path / "run", progress=False)
    lines = read_log(result.output)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_gradients_are_clipped(digits, tmp_path):
    # After one step AdamW's first moment is (1 - beta1) times the clipped gradient.
    train(recipe(steps=1, gradient_clip=1e-3), data=digits, output=tmp_path / "run", progress=False)
    state = load_file(tmp_path / "run/states/step-1/state.safetensors")
    moments = torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith(".exp_avg")])
    assert float(moments.norm()) == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_validation_part_is_held_out_and_measured(digits, tmp_path):
    result = train(recipe(validation_fraction=0.2), data=digits, output=tmp_path / "run", progress=False)
    assert result.scores["held_out_images"] == pytest.approx(60, abs=5)
    assert genaug.load(result.path).scores == result.scores
    assert "validation_elbo_nats" in (result.output / "metrics.jsonl").read_text()
    assert str(result.scores["elbo_nats"]) in (result.path / "README.md").read_text()


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_images_on_the_disk_give_the_same_bits(digits, tmp_path, fraction):
    with pytest.warns(UserWarning, match="temporary file"):
        on_disk = digits.subset(range(300), memory_limit=1e-6)
    assert on_disk.images.is_shared()
    for name, data in (("memory", digits), ("disk", on_disk)):
        train(recipe(validation_fraction=fraction), data=data, output=tmp_path / name, progress=False)
    assert_same_weights(tmp_path / "memory", tmp_path / "disk")
    logs = [read_log(tmp_path / name) for name in ("memory", "disk")]
    for one, other in zip(*logs, strict=True):
        assert {**one, "images_per_second": 0} == {**other, "images_per_second": 0}


def test_a_run_may_go_on_from_the_disk(digits, finished, tmp_path):
    with pytest.raises(Stop):
        train(recipe(), data=digits, output=tmp_path / "run", progress=False, on_step=stop_at(7))
    with pytest.warns(UserWarning, match="temporary file"):
        on_disk = digits.subset(range(300), memory_limit=1e-6)
    train(recipe(), data=on_disk, output=tmp_path / "run", progress=False, resume=True)
    assert_same_weights(finished.output, tmp_path / "run")


def test_bfloat16_trains_float32_weights(digits, tmp_path):
    result = train(recipe(precision="bfloat16", steps=3), data=digits, output=tmp_path / "run", progress=False)
    assert all(tensor.dtype == torch.float32 for tensor in weights(result.output).values())


def test_resume_of_a_finished_or_new_run(digits, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.output, copy)
    with (copy / "model" / "README.md").open("a") as card:
        card.write("\nmy own note\n")
    assert train(recipe(), data=digits, output=copy, resume=True, progress=False).steps == 12
    assert_same_weights(finished.output, copy)
    assert (copy / "model" / "README.md").read_text().endswith("\nmy own note\n")
    assert train(recipe(), data=digits, output=tmp_path / "new", resume=True, progress=False).steps == 12


def test_resume_refuses_other_recipe_and_other_data(digits, finished):
    before = weights(finished.output)
    with pytest.raises(RecipeError, match=r"another recipe: training\.learning_rate was 0\.002, is now 0\.1"):
        train(recipe(learning_rate=0.1), data=digits, output=finished.output, resume=True, progress=False)
    with pytest.raises(DataError, match="other data"):
        train(recipe(), data=digits.subset(range(200)), output=finished.output, resume=True, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(finished.output).items())


def test_resume_before_the_first_state_still_knows_its_recipe_and_data(digits, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(Stop):
        train(recipe(), data=digits, output=output, progress=False, on_step=stop_at(1))
    assert not list_states(output / "states")
    with pytest.raises(RecipeError, match="another recipe: seed was 0, is now 5"):
        train({**recipe(), "seed": 5}, data=digits, output=output, resume=True, progress=False)
    with pytest.raises(DataError, match="other data"):
        train(recipe(), data=digits.subset(range(200)), output=output, resume=True, progress=False)
    assert train(recipe(), data=digits, output=output, resume=True, progress=False).steps == 12


def test_metrics_of_a_finished_run_are_those_of_its_log(digits, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.output, copy)
    result = train(recipe(), data=digits, output=copy, resume=True, progress=False)
    assert result.metrics["loss"] == finished.metrics["loss"] == read_log(finished.output)[-1]["loss"]


def test_damaged_state_is_named(digits, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.output, copy)
    path = copy / "states/step-12/state.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="step-12"):
        train(recipe(), data=digits, output=copy, resume=True, progress=False)


def test_existing_output_is_kept(digits, finished, tmp_path):
    with pytest.raises(GenaugError, match=r"exists already; go on from it \(--resume, resume=True\), choose another"):
        train(recipe(), data=digits, output=finished.output, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(GenaugError, match="never overwritten"):
        train(recipe(), data=digits, output=tmp_path / "mine", overwrite=True, progress=False)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["samples/mine.png", "notes.txt", "model/weights.bin", "states/step-3/other"])
def test_own_files_beside_those_of_a_run_are_kept(digits, tmp_path, name):
    output = tmp_path / "run"
    train(recipe(steps=3), data=digits, output=output, progress=False)
    (output / name).write_text("mine")
    before = sorted(output.rglob("*"))
    with pytest.raises(GenaugError, match=f"holds {name}, which was not written by this"):
        train(recipe(steps=2), data=digits, output=output, progress=False, overwrite=True)
    assert sorted(output.rglob("*")) == before


def test_a_folder_with_a_recipe_of_the_user_is_no_run(digits, tmp_path):
    (tmp_path / "recipe.yaml").write_text("# mine\nfamily: vae\ntraining: {steps: 2, batch_size: 8}\n")
    with pytest.raises(GenaugError, match="never overwritten"):
        train(tmp_path / "recipe.yaml", data=digits, output=tmp_path, progress=False, overwrite=True)
    assert (tmp_path / "recipe.yaml").read_text().startswith("# mine")


def test_output_that_is_a_file_or_a_linked_run(digits, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GenaugError, match="is a file"):
        train(recipe(steps=2), data=digits, output=tmp_path / "file", progress=False, overwrite=True)
    train(recipe(steps=3), data=digits, output=tmp_path / "run", progress=False)
    shutil.move(tmp_path / "run/states", tmp_path / "elsewhere")
    (tmp_path / "run/states").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GenaugError, match="holds states"):
        train(recipe(steps=2), data=digits, output=tmp_path / "run", progress=False, overwrite=True)
    assert list_states(tmp_path / "elsewhere")


def test_nothing_is_removed_before_the_new_run_can_start(digits, tmp_path):
    output = tmp_path / "run"
    train(recipe(steps=3), data=digits, output=output, progress=False)
    for wrong in ({"device": "nowhere"}, {"data": tmp_path / "nothing"}):
        options = {"data": digits, "output": output, "progress": False, "overwrite": True, **wrong}
        with pytest.raises(GenaugError):
            train(recipe(steps=2), **options)
    lonely = digits.subset([digits.targets.index(label) for label in range(10)])
    watched = {"family": "gan", "training": {"steps": 2, "batch_size": 8}}
    with (
        pytest.warns(DataWarning, match="one image only"),
        pytest.raises(DataError, match="at least 2 training images of some class to watch"),
    ):
        train(watched, data=lonely, output=output, progress=False, overwrite=True)
    assert (output / "model/config.json").is_file()
    assert list_states(output / "states")


def test_an_old_run_stays_where_there_is_no_room_for_a_new_one(tmp_path):
    code = f"""
import resource, signal, torch
from genaug.data import load_data
from genaug.training import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recipe = {{"family": "vae", "model": {{"width": 4, "hidden": 8, "latent_dim": 2}}, "training": {{"steps": 2}}}}
data = load_data("digits").subset(range(50))
train(recipe, data=data, output={str(tmp_path / "run")!r}, progress=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    train(recipe, data=data, output={str(tmp_path / "run")!r}, progress=False, overwrite=True)
except Exception as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large); what was there is unchanged" in done.stdout
    assert (tmp_path / "run/model/model.safetensors").is_file()
    assert list_states(tmp_path / "run/states")


def test_a_damaged_state_says_what_to_do(digits, tmp_path):
    output = tmp_path / "run"
    whole = train(recipe(), data=digits, output=output, progress=False)
    newest, before = list_states(output / "states")[-1], list_states(output / "states")[-2]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"differs from .* in state.json; .*; remove {newest} to go on from"):
        train(recipe(), data=digits, output=output, progress=False, resume=True)
    shutil.rmtree(newest)
    assert before.is_dir()
    again = train(recipe(), data=digits, output=output, progress=False, resume=True)
    assert again.steps == whole.steps


def test_overwrite_replaces_a_run(digits, tmp_path):
    train(recipe(steps=2), data=digits, output=tmp_path / "run", progress=False)
    train(recipe(steps=3), data=digits, output=tmp_path / "run", progress=False, overwrite=True)
    assert [state.name for state in list_states(tmp_path / "run/states")] == ["step-3"]


class Diverging(VAE):
    """A VAE whose loss is NaN from the sixth batch on."""

    family = "diverging"
    batches = 0

    def training_loss(self, images: Tensor, labels: Tensor, draws):
        loss, figures = super().training_loss(images, labels, draws)
        self.batches += 1
        return (loss * float("nan") if self.batches > 5 else loss), figures


def test_loss_that_is_not_finite_stops_with_the_last_good_state(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "diverging", Diverging)
    values = {**recipe(), "family": "diverging"}
    with pytest.raises(TrainingError, match=r"step 6: .*not finite; the last good state is .*step-3; try") as caught:
        train(values, data=digits, output=tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    state = load_file(tmp_path / "run/states/step-3/state.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_second_process_is_kept_out(digits, tmp_path):
    # In this process the lock of the running training is seen just as another process sees it.
    output, refused = tmp_path / "run", []

    def try_another(step: int) -> None:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(GenaugError, match="another process writes to it"):
                train(recipe(), data=digits, output=output, progress=False, **options)
            refused.append(step)

    result = train(recipe(steps=2), data=digits, output=output, progress=False, on_step=try_another)
    assert refused == [1, 1, 2, 2]
    assert genaug.load(result.path).recipe["training"]["steps"] == 2
    train(recipe(steps=1), data=digits, output=output, progress=False, overwrite=True)  # it is free again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(digits, finished, tmp_path, number):
    output = tmp_path / "run"

    def interrupt(step: int) -> None:
        if step == 4:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped after step 5; state saved in .*step-5; go on with") as caught:
        train(recipe(), data=digits, output=output, progress=False, on_step=interrupt)
    assert caught.value.signal_number == number
    assert signal.getsignal(number) is before
    train(recipe(), data=digits, output=output, progress=False, resume=True)
    assert_same_weights(finished.output, output)


def test_a_signal_in_the_last_save_is_not_lost(digits, finished, tmp_path, monkeypatch):
    sent: list[int] = []

    def save(states, state, **options):
        if state.step == 12 and not sent:
            sent.append(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return save_state(states, state, **options)

    monkeypatch.setattr(engine, "save_state", save)
    with pytest.raises(Interrupted, match="stopped after step 12; state saved in .*; .* with --resume") as caught:
        train(recipe(), data=digits, output=tmp_path / "run", progress=False)
    assert caught.value.signal_number == signal.SIGTERM
    monkeypatch.undo()
    train(recipe(), data=digits, output=tmp_path / "run", progress=False, resume=True)
    assert_same_weights(finished.output, tmp_path / "run")


def test_more_than_fits_in_memory(digits, tmp_path, monkeypatch):
    def training_loss(self, images, labels, draws):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(VAE, "training_loss", training_loss)
    message = "step 1: does not fit in the memory .*no state was saved yet; try a smaller training.batch_size"
    with pytest.raises(TrainingError, match=message):
        train(recipe(), data=digits, output=tmp_path / "run", progress=False)


def test_second_signal_stops_at_once(digits, tmp_path):
    def press_twice(step: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(recipe(), data=digits, output=tmp_path / "run", progress=False, on_step=press_twice)
    assert not isinstance(caught.value, Interrupted)


def test_trains_outside_the_main_thread(digits, tmp_path):
    done: list[int] = []
    thread = threading.Thread(
        target=lambda: done.append(train(recipe(steps=2), data=digits, output=tmp_path / "run", progress=False).steps)
    )
    thread.start()
    thread.join()
    assert done == [2]


def test_unknown_device(digits, tmp_path):
    with pytest.raises(GenaugError, match="device: nowhere cannot be used"):
        train(recipe(), data=digits, output=tmp_path / "run", device="nowhere", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("limit", "at", "states"), [(20_000, 4, ["step-3"]), (1_500, 1, []), (10, 1, [])])
def test_full_disk_ends_with_one_error_and_keeps_what_was_saved(tmp_path, limit, at, states):
    # A limit on the size of files makes writing fail as a full disk does: of a state, or already of the logs.
    script = (
        "import resource, signal, sys\n"
        "from genaug.errors import GenaugError\n"
        "from genaug.training import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit, at = int(sys.argv[3]), int(sys.argv[4])\n"
        "def shrink(step):\n"
        "    if step == at: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try:\n"
        "    train(eval(sys.argv[1]), data='digits', output=sys.argv[2], progress=False, on_step=shrink)\n"
        "except GenaugError as problem:\n"
        "    print('caught:', problem)\n"
    )
    run = [sys.executable, "-c", script, repr(recipe(log_every=1)), str(tmp_path / "run"), str(limit), str(at)]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert output.startswith("caught:")
    assert "cannot be written" in output
    assert output.count("\n") == 1
    assert [state.name for state in list_states(tmp_path / "run/states")] == states
    assert not list((tmp_path / "run").glob("states/.*"))


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU is waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("family", "fields", "more"),
    [
        ("vae", TINY["model"], 2),  # one_hot looks at the range of labels, though not on a GPU
        ("gan", {"width": 4, "discriminator_width": 4}, 0),
        ("autoencoder", {"width": 4, "degradations": [{"kind": "gaussian-noise", "noise_level": 0.1}]}, 0),
        ("denoiser", {"width": 4, "levels": 1, "blocks": 1}, 0),
    ],
)
@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")  # six steps are too few
def test_a_step_reads_no_number_of_a_tensor_but_those_it_reads_at_once(digits, tmp_path, family, fields, more):
    training = {**recipe(log_every=100, sample_every=100, save_every=100)["training"], "steps": 6}
    with Reads() as reads:
        marks = []
        train(
            {"family": family, "model": fields, "training": training},
            data=digits,
            output=tmp_path / "run",
            device="cpu",
            progress=False,
            on_step=lambda step: marks.append(reads.count),
        )
    # torch's AveragedModel reads its own count twice, which is on the CPU
    assert max(after - before for before, after in pairwise(marks[:-1])) <= 2 + more
