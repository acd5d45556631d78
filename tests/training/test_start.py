"""Training that starts from another model: what is taken over, and what does not fit."""

import warnings

import pytest
import torch
from safetensors.torch import load_file

import genaug
from genaug import DataSpec
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, RecipeError, TrainingWarning
from genaug.training import load_recipe, train

GAN = {
    "family": "gan",
    "model": {"discriminator_width": 4, "discriminator_steps": 4},
    "training": {"steps": 6, "batch_size": 16, "warmup_steps": 1, "save_every": 3, "validation_fraction": 0.2},
}


@pytest.fixture(scope="module")
def digits() -> LabeledImages:
    return load_data("digits").subset(torch.arange(400))


@pytest.fixture(scope="module")
def vae(digits, tmp_path_factory):
    recipe = {
        "family": "vae",
        "model": {"width": 4, "latent_dim": 4, "map_channels": 1, "hidden": 8},
        "training": {"steps": 3, "batch_size": 16, "validation_fraction": 0.2},
    }
    output = tmp_path_factory.mktemp("vae") / "run"
    return train(recipe, data=digits, output=output, device="cpu", progress=False)


def recipe(vae, **training: object) -> dict:
    return {**GAN, "training": {**GAN["training"], "start": str(vae.path), **training}}


def run(made: dict, digits: LabeledImages, output, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*hardly vary", TrainingWarning)  # six steps are too few
        return train(made, data=digits, output=output, device="cpu", progress=False, **options)


def test_the_generator_stays_the_decoder_until_its_first_step(digits, vae, tmp_path) -> None:
    still = run(recipe(vae, steps=4), digits, tmp_path / "still").model
    moved = run(recipe(vae), digits, tmp_path / "moved").model
    labels = torch.arange(50).remainder(10)
    before = vae.model.state_dict()
    for name, tensor in still.generator.vae.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-5)
    weights = [model.generator.vae.decoder.to_images[-1].weight for model in (still, moved)]
    assert not torch.allclose(*weights, atol=1e-6)
    assert torch.equal(moved.generator.vae.density.means, vae.model.density.means)
    first = {name: tensor for name, tensor in still.discriminator.state_dict().items() if "original" in name}
    then = moved.discriminator.state_dict()
    assert all(not torch.equal(tensor, then[name]) for name, tensor in first.items() if tensor.ndim == 4)
    assert moved.sample(labels, generator=torch.Generator().manual_seed(0)).shape == (50, 1, 8, 8)


def test_a_resumed_run_comes_out_the_same(digits, vae, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 5:
            raise Stop

    whole = run(recipe(vae), digits, tmp_path / "whole")
    with pytest.raises(Stop):
        run(recipe(vae), digits, tmp_path / "cut", on_step=stop)
    cut = run(recipe(vae), digits, tmp_path / "cut", resume=True)
    one, two = (load_file(result.path / "model.safetensors") for result in (whole, cut))
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items())
    assert genaug.load(cut.path).recipe == load_recipe(recipe(vae)).to_dict()


def test_what_is_written_in_16_bits_is_what_is_returned(digits, vae, tmp_path) -> None:
    result = run(recipe(vae, weights_dtype="float16"), digits, tmp_path / "run")
    written = load_file(result.path / "model.safetensors")
    kept = result.model.state_dict()
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    assert all(torch.equal(tensor.float(), kept[name]) for name, tensor in written.items())


def test_what_does_not_fit_is_refused(digits, vae, tmp_path) -> None:
    output = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"training.start: family vae cannot start from another model"):
        run({"family": "vae", "training": {"start": str(vae.path), "validation_fraction": 0.2}}, digits, output)
    with pytest.raises(RecipeError, match=r"training.start: model.width must be left out"):
        run({**recipe(vae), "model": {"width": 8}}, digits, output)
    with pytest.raises(RecipeError, match="model.decoder must be left out"):
        load_recipe({"family": "gan", "model": {"decoder": {"width": 8}}})
    with pytest.raises(RecipeError, match=r"training.start: .*nowhere"):
        run(recipe(vae, start="./nowhere"), digits, output)
    others = LabeledImages(digits.images, digits.labels % 2, DataSpec(1, 8, 8, ("even", "odd")))
    with pytest.raises(DataError, match=r"training.start must be of the images and classes of the data"):
        run(recipe(vae), others, output)
    assert not output.exists()


def test_images_held_out_that_the_start_may_have_seen_are_named(digits, vae, tmp_path) -> None:
    with pytest.warns(TrainingWarning, match="was trained with seed 0 and validation_fraction 0.2, so it may have"):
        run(recipe(vae, validation_fraction=0.3), digits, tmp_path / "run")
