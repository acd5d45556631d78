"""Every shipped model meets the scores it records, and every shipped recipe trains."""

from pathlib import Path

import pytest

import genaug
from genaug.data import load_data, stratified_split
from genaug.training import load_recipe, train
from genaug.training.recipe_files import list_recipes
from genaug.zoo import shipped

MODELS = genaug.list_models()


def check_scores(name, data):
    model = genaug.load(name)
    _, held_out = stratified_split(
        data.labels, fraction=model.recipe["training"]["validation_fraction"], seed=model.recipe["seed"]
    )
    part = data.subset(held_out)
    scores = model.measure(part.images, part.labels)
    assert scores["held_out_images"] == model.scores["held_out_images"]
    for key in ("elbo_nats", "bits_per_dim", "reconstruction_mse"):
        # other processors round otherwise, and mean squared errors are given to six places
        assert scores[key] == pytest.approx(model.scores[key], rel=2e-3, abs=1e-6)


def test_scores_of_digits_are_the_recorded_ones():
    check_scores("digits-vae", load_data("digits"))


def test_scores_of_solar_are_the_recorded_ones(data_dir):
    check_scores("solar-vae", load_data(data_dir / "solar"))


@pytest.mark.parametrize("name", ["denoiser-gray", "denoiser-color"])
def test_scores_of_denoisers_are_the_recorded_ones(name, data_dir):
    model = genaug.load(name)
    gray = model.spec.channels == 1
    data = load_data(data_dir / "denoise/bsds400-train.parquet", patches=(96, 96), grayscale=gray)
    _, held_out = data.split(model.recipe["training"]["validation_fraction"], seed=model.recipe["seed"])
    scores = model.measure(data.images, data.labels, rows=held_out)
    assert scores == pytest.approx(model.scores, abs=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_model_comes_with_its_recipe_and_card(name):
    model = genaug.load(name)
    assert load_recipe(name).to_dict() == model.recipe
    card = (shipped("pretrained") / name / "README.md").read_text()
    assert f'genaug.load("{name}")' in card
    score = next(value for name, value in model.scores.items() if name.startswith(("intra_class", "elbo_nats", "psnr")))
    assert f"{score:.2f}" in card


def test_models_are_small_enough_to_ship():
    files = [path for path in shipped("pretrained").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000_000


@pytest.mark.filterwarnings("ignore::genaug.errors.TrainingWarning")  # after two steps samples of a GAN are alike
@pytest.mark.parametrize("name", list_recipes())
def test_recipe_trains_two_steps_and_says_its_command(name, tmp_path):
    header = Path(shipped("recipes") / f"{name}.yaml").read_text().split("family:")[0]
    assert all(word in header for word in ("# command:", "# time:", "# score:"))
    few = ["training.steps=2", "training.batch_size=16"]
    whole = load_recipe(name)
    if whole.family == "gan":
        few += ["model.discriminator_steps=0", "training.watch_features=classifier", "training.start=null"]
    start = "digits-vae" if whole.training.start else None
    assert whole.training.start in (None, "fashion-mnist-vae", "solar-vae")
    recipe = load_recipe(name, overrides=few)
    assert train(recipe, data="digits", output=tmp_path / "run", start=start, progress=False).steps == 2
