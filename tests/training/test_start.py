"""Training that starts from another model: what is taken over, and what does not fit."""

import warnings

import pytest
import torch
import yaml
from safetensors.torch import load_file

import genaug
from genaug import DataSpec
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, DataWarning, RecipeError, TrainingWarning
from genaug.training import load_recipe, train
from genaug.training.engine import _build
from genaug.training.start import find_start

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


def recipe(**training: object) -> dict:
    return {**GAN, "training": {**GAN["training"], **training}}


def run(made: dict, digits: LabeledImages, output, *, start, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*hardly vary", TrainingWarning)  # six steps are too few
        return train(made, data=digits, output=output, start=start, device="cpu", progress=False, **options)


def test_the_generator_stays_the_decoder_until_its_first_step(digits, vae, tmp_path) -> None:
    result = run(recipe(), digits, tmp_path / "run", start=vae.path)
    early, late = (load_file(tmp_path / "run" / "states" / f"step-{step}" / "state.safetensors") for step in (3, 6))
    before = vae.model.state_dict()
    decoder = {name: tensor for name, tensor in early.items() if name.startswith("model.generator.vae.")}
    assert len(decoder) > 10
    assert all(
        torch.equal(tensor, before[name.removeprefix("model.generator.vae.")]) for name, tensor in decoder.items()
    )
    moved = [name for name, tensor in decoder.items() if not torch.equal(tensor, late[name])]
    assert "model.generator.vae.decoder.to_images.2.weight" in moved
    assert not any(".density." in name for name in moved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        fresh = _build(
            load_recipe(recipe()), digits, torch.arange(400), torch.device("cpu"), find_start(vae.path)
        ).model
    learned = {name: tensor for name, tensor in fresh.discriminator.named_parameters() if tensor.ndim > 1}
    assert all(not torch.equal(tensor, early[f"model.discriminator.{name}"]) for name, tensor in learned.items())
    labels = torch.arange(50).remainder(10)
    assert result.model.sample(labels, generator=torch.Generator().manual_seed(0)).shape == (50, 1, 8, 8)


def test_a_resumed_run_comes_out_the_same(digits, vae, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 5:
            raise Stop

    options = {"start": vae.path}
    whole = run(recipe(), digits, tmp_path / "whole", **options)
    with pytest.raises(Stop):
        run(recipe(), digits, tmp_path / "cut", **options, on_step=stop)
    with pytest.raises(RecipeError, match=r"started from another model, .* not None; give the same start"):
        run(recipe(), digits, tmp_path / "cut", start=None, resume=True)
    cut = run(recipe(), digits, tmp_path / "cut", **options, resume=True)
    one, two = (load_file(result.path / "model.safetensors") for result in (whole, cut))
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items())
    assert genaug.load(cut.path).recipe == load_recipe(recipe()).to_dict()


def test_what_is_written_in_16_bits_is_what_is_returned(digits, vae, tmp_path) -> None:
    result = run(recipe(weights_dtype="float16"), digits, tmp_path / "run", start=vae.path)
    written = load_file(result.path / "model.safetensors")
    kept = result.model.state_dict()
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    assert all(torch.equal(tensor.float(), kept[name]) for name, tensor in written.items())


def test_weights_that_16_bits_cannot_hold_are_written_in_32(digits, vae, tmp_path) -> None:
    large = tmp_path / "large"
    with torch.no_grad():
        vae.model.density.means[0] += 1e6
    vae.model.save(large)
    with torch.no_grad():
        vae.model.density.means[0] -= 1e6
    with pytest.warns(TrainingWarning, match="float16 cannot hold the weights: written as float32"):
        result = run(recipe(weights_dtype="float16"), digits, tmp_path / "run", start=large)
    assert {tensor.dtype for tensor in load_file(result.path / "model.safetensors").values()} == {torch.float32}


def test_what_does_not_fit_is_refused(digits, vae, tmp_path) -> None:
    output = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"start: .* of other shapes, made with model.latent_dim 4, .*; set the same"):
        run({"family": "vae", "training": {"validation_fraction": 0.2}}, digits, output, start=vae.path)
    with pytest.raises(RecipeError, match=r"start: .*autoencoder starts from another one of it, got one of family vae"):
        run({"family": "autoencoder", "training": {"validation_fraction": 0.2}}, digits, output, start=vae.path)
    with pytest.raises(RecipeError, match=r"start: model.width must be left out"):
        run({**recipe(), "model": {"width": 8}}, digits, output, start=vae.path)
    with pytest.raises(RecipeError, match=r"start: .*nowhere"):
        run(recipe(), digits, output, start="./nowhere")
    others = LabeledImages(digits.images, digits.labels % 2, DataSpec(1, 8, 8, ("even", "odd")))
    with pytest.raises(DataError, match=r"start must be of the images and classes of the data"):
        run(recipe(), others, output, start=vae.path)
    assert not output.exists()


def test_a_denoiser_goes_on_from_a_shipped_one_on_images_of_another_size(digits, tmp_path) -> None:
    shipped = genaug.load("denoiser-gray")
    # the same weights, learned from noisy images alone: fields that make no weights may differ
    made = {
        "family": "denoiser",
        "model": {"supervision": "neighbor2neighbor", "crop": 8},
        "training": {"steps": 1, "batch_size": 4, "learning_rate": 1e-9, "validation_fraction": 0.05},
    }
    result = run(made, digits, tmp_path / "run", start="denoiser-gray")
    assert result.model.spec == shipped.spec
    images = digits.images[:4]
    torch.testing.assert_close(result.model.restore(images), shipped.restore(images), atol=1e-4, rtol=0)


def test_recipes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(RecipeError, match="model.decoder must be left out"):
        load_recipe({"family": "gan", "model": {"decoder": {"width": 8}}})
    with pytest.raises(RecipeError, match=r"must be a shipped model's name or a hub id, got './vae/model'"):
        load_recipe(recipe(start="./vae/model"))
    with pytest.raises(RecipeError, match=r"model.discriminator_steps must be below training.steps \(4\).*got 4"):
        load_recipe(recipe(steps=4))
    with pytest.raises(RecipeError, match=r"model.discriminator_steps must be below training.steps \(1\).*got 1"):
        load_recipe({"family": "gan", "model": {"discriminator_steps": 1}, "training": {"steps": 1}})


def test_a_start_by_its_name_in_the_recipe(digits, tmp_path) -> None:
    made = recipe(start="digits-vae", validation_fraction=0.1)
    model = run(
        {**made, "model": {**made["model"], "discriminator_steps": 5}}, digits, tmp_path / "run", start=None
    ).model
    shipped = genaug.load("digits-vae")
    assert torch.equal(model.generator.vae.density.means, shipped.density.means)
    assert model.config.decoder == shipped.config


@pytest.mark.parametrize("earlier", [{"training": None}, {"training": []}, {}, None])
def test_images_held_out_that_the_start_may_have_seen_are_named(digits, vae, tmp_path, earlier) -> None:
    with pytest.warns(TrainingWarning, match="with seed 0 and validation_fraction 0.2, not 0 and 0.3, so it"):
        run(recipe(validation_fraction=0.3), digits, tmp_path / "run", start=vae.path)
    recorded, vae.model.recipe = vae.model.recipe, earlier
    vae.model.save(tmp_path / "other")
    vae.model.recipe = recorded
    with pytest.warns(TrainingWarning, match="was trained with seed None and validation_fraction None, not 0 and 0.2"):
        run(recipe(), digits, tmp_path / "again", start=tmp_path / "other")


def test_a_start_that_learned_from_a_part_chosen_otherwise_is_named(digits, tmp_path) -> None:
    training = {"steps": 1, "batch_size": 16, "validation_fraction": 0.1}
    recipe = {"family": "vae", "model": {"width": 8}, "training": training}
    train(recipe, data=digits, output=tmp_path / "vae", progress=False)
    options = {"start": tmp_path / "vae" / "model", "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        train(recipe, data=digits, output=tmp_path / "same", **options)
    with pytest.warns(TrainingWarning, match="was trained on other data, or a part chosen by other options"):
        train(recipe, data=digits.subset(range(200)), output=tmp_path / "other", **options)
    text = (tmp_path / "same" / "recipe.yaml").read_text()
    assert "start: null" in text  # a path means nothing elsewhere


def test_a_run_tells_the_start_that_was_given(digits, tmp_path) -> None:
    training = {"steps": 1, "batch_size": 16, "start": "digits-vae"}
    model = {"latent_dim": 16, "map_channels": 1, "width": 16}  # as digits-vae has
    recipe = {"family": "vae", "model": model, "training": training}
    train(recipe, data=digits, output=tmp_path / "first", progress=False)
    train(recipe, data=digits, start=tmp_path / "first" / "model", output=tmp_path / "second", progress=False)
    starts = [
        yaml.safe_load((tmp_path / name / "recipe.yaml").read_text())["training"]["start"]
        for name in ("first", "second")
    ]
    assert starts == ["digits-vae", None]


def test_a_checkpoint_tells_the_start_that_was_used(digits, vae, tmp_path) -> None:
    """By path it is null, since a path means nothing elsewhere; never that which the recipe would have taken."""
    result = run(recipe(start="digits-vae"), digits, tmp_path / "path", start=vae.path)
    assert result.model.recipe["training"]["start"] is None
    assert genaug.load(result.path).recipe["training"]["start"] is None


def test_only_fields_that_make_weights_are_asked_for(digits, vae, tmp_path) -> None:
    changed = {**vae.model.recipe, "model": {**vae.model.recipe["model"], "width": 8, "beta": 0.5}}
    with pytest.raises(RecipeError, match=r"of other shapes, made with model.width 4; set the same"):
        run(changed, digits, tmp_path / "run", start=vae.path)
