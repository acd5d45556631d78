"""What is looked at while a model learns and at its end."""

import warnings

import pytest
import torch

import genaug
from genaug.data import LabeledImages, load_data
from genaug.errors import DataWarning, TrainingWarning
from genaug.training import load_recipe, train
from genaug.training.engine import _build
from genaug.training.logs import MetricsLog
from genaug.training.looks import Looks

GAN = {
    "family": "gan",
    "model": {"width": 4, "discriminator_width": 4, "latent_dim": 4, "style_dim": 8},
    "training": {"steps": 4, "batch_size": 16, "warmup_steps": 1, "sample_every": 2},
}
VAE = {"family": "vae", "model": {"width": 4, "hidden": 8, "latent_dim": 4}}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> LabeledImages:
    return load_data("digits").subset(torch.arange(400))


def make_looks(recipe: dict, data: LabeledImages, output, *, held_out: int = 0) -> Looks:
    made, rows = load_recipe(recipe), torch.arange(len(data))
    state = _build(made, data, rows[held_out:], CPU)
    return Looks(state, made, data, rows[held_out:], rows[:held_out], output, made.to_dict())


@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")  # nothing was learned
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_of_a_watched_model_are_those_of_the_weights_that_are_written(digits, tmp_path, dtype) -> None:
    training = {**GAN["training"], "weights_dtype": dtype}
    looks = make_looks({**GAN, "training": training}, digits, tmp_path, held_out=200)
    looks.prepare(progress=False)
    with MetricsLog(tmp_path, step=0) as log:
        before = looks.look(log, told_apart=None)["intra_class_distance"]
    looks.finish()
    written = genaug.load(tmp_path / "model")
    found = looks.watch.observe(written).intra_class_distance
    assert written.scores["intra_class_distance"] == pytest.approx(found, abs=1e-4)
    assert (round(found, 4) == round(before, 4)) == (dtype == "float32")


def test_many_rows_are_spread_to_the_last_one(digits, tmp_path) -> None:
    looks = make_looks(VAE, digits, tmp_path)
    looks.kept = torch.zeros(1, dtype=torch.int64).expand(2**24 + 4)  # float32 rounds the last index up to 2**24 + 4
    with MetricsLog(tmp_path, step=0) as log:
        looks.look(log, told_apart=None)
    assert (tmp_path / "samples" / "step-000000.png").is_file()


def test_a_gan_is_trained_where_a_class_has_no_images(digits, tmp_path) -> None:
    """Neither pictures nor what is watched are of that class; a GAN that goes on from it may learn it."""
    without = digits.subset((digits.labels != 3).nonzero().flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # a few steps are too few
        warnings.simplefilter("ignore", DataWarning)
        first = train(GAN, data=without, output=tmp_path / "first", device="cpu", progress=False)
        again = train(GAN, data=digits, output=tmp_path / "again", start=first.path, device="cpu", progress=False)
    assert first.model.known_classes == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    with pytest.raises(genaug.DataError, match=r"without images of \['3'\]"):
        first.model.sample(torch.tensor([3]))
    assert again.model.known_classes == list(range(10))
