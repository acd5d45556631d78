"""Models that an arm trains for each seed: once for each part and seed, kept, resumed, shared between processes."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import genaug
from genaug import SampleBank
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, DataWarning, GenaugError, RecipeError
from genaug.evaluate.generators import LatentSmote, Trained, Variations
from genaug.evaluate.makers import pass_over
from genaug.features import fit_features
from genaug.filters import NotACopy
from genaug.images import to_uint8
from genaug.models.running import draw_seeds
from genaug.seeding import derive_seed, make_generator
from genaug.training import load_recipe
from genaug.training import train as train_model

CPU = torch.device("cpu")
VAE: dict[str, Any] = {
    "family": "vae",
    "model": {"width": 4, "latent_dim": 4, "map_channels": 1, "hidden": 8},
    "training": {"steps": 6, "batch_size": 16, "save_every": 3, "validation_fraction": 0.2},
}
GAN: dict[str, Any] = {
    "family": "gan",
    "model": {"discriminator_width": 4, "discriminator_steps": 2},
    "training": {"steps": 4, "batch_size": 16, "warmup_steps": 1, "validation_fraction": 0.2},
}
WANTED = [0, 0, 9, 3, 0, 0, 0, 0, 0, 5]


@pytest.fixture(scope="module")
def part() -> LabeledImages:
    return load_data("digits").subset(range(300))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache that tests share; none of them changes what others put there."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache) -> Trained:
    return Trained(VAE, cache=cache)


@pytest.fixture(scope="module")
def model(trained, part) -> Any:
    return trained.fit(part, seed=1, device=CPU)


def make(maker: Any, train: LabeledImages, counts: list[int] = WANTED, *, seed: int = 1) -> SampleBank:
    return maker(train, counts, seed=seed, device=CPU)


def everything(bank: SampleBank) -> torch.Tensor:
    return bank.images(range(len(bank)))


def files(folder: Path) -> dict[str, int]:
    """Return when each file was written, in nanoseconds."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def equal(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


# --- training


def test_the_model_is_that_of_the_recipe_with_the_seed_of_the_repetition(part, model, tmp_path) -> None:
    recipe = load_recipe(VAE, overrides=["seed=1"])
    expected = train_model(recipe, data=part, output=tmp_path / "run", device="cpu", progress=False).model
    assert equal(model, expected)
    assert model.recipe == recipe.to_dict()
    bank, oracle = make(Trained(VAE), part), SampleBank.generate(expected, WANTED, seed=1, progress=False)
    assert torch.equal(everything(bank), everything(oracle))
    assert bank.counts == WANTED
    assert (
        bank.provenance.source
        == f"Trained(recipe={load_recipe(VAE)!r}, overrides=(), filters=(), start=None, classifier_steps=1000)"
    )
    assert bank.provenance.source_sha256 == oracle.provenance.source_sha256
    assert (bank.provenance.seed, bank.spec) == (1, part.spec)


def test_samples_depend_on_the_seed(trained, part) -> None:
    one, other = (everything(make(trained, part, seed=seed)) for seed in (1, 2))
    assert torch.equal(one, everything(make(Trained(VAE), part, seed=1)))
    assert not torch.equal(one, other)


def test_overrides_and_a_recipe_of_any_kind_make_one_model(part, cache, tmp_path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps({**VAE, "training": {**VAE["training"], "steps": 400}, "seed": 77}))
    recipe = load_recipe(VAE)
    makers = [Trained(path, overrides=["training.steps=6", "seed=5"], cache=cache), Trained(recipe, cache=cache)]
    assert all(equal(maker.fit(part, seed=1, device=CPU), makers[0].fit(part, seed=1, device=CPU)) for maker in makers)
    assert makers[0]._key(part.fingerprint(), 1) == makers[1]._key(part.fingerprint(), 1)


def test_a_recipe_is_read_once(tmp_path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(VAE))
    before = Trained(path, overrides=["model.beta=0.5"])
    path.write_text(json.dumps({**VAE, "seed": 77, "training": {**VAE["training"], "steps": 400}}))
    assert before == Trained(VAE, overrides=["model.beta=0.5"])
    assert Trained(path).seeded(1).training.steps == 400


# --- the cache


def test_a_model_is_trained_once_for_each_recipe_part_and_seed(part, tmp_path) -> None:
    maker = Trained(VAE, cache=tmp_path / "runs" / "cache")
    first = maker.fit(part, seed=1, device=CPU)
    before = files(tmp_path)
    assert equal(pickle.loads(pickle.dumps(maker)).fit(part, seed=1, device=CPU), first)
    assert files(tmp_path) == before
    assert len(list((tmp_path / "runs" / "cache").glob("*/model"))) == 1
    make(maker, part, seed=2)
    make(maker, part.subset(range(280)))
    make(Trained(VAE, overrides=["model.beta=0.5"], cache=maker.cache), part)
    assert len(list((tmp_path / "runs" / "cache").glob("*/model"))) == 4
    assert before.items() <= files(tmp_path).items()


def test_accepted_samples_are_kept_for_each_filters_and_counts(part, tmp_path) -> None:
    maker = Trained(VAE, filters=["copies"], cache=tmp_path, classifier_steps=4)
    first = make(maker, part)
    before = files(tmp_path)
    again = make(maker, part)
    assert files(tmp_path) == before
    assert again.path == first.path
    assert torch.equal(everything(again), everything(first))
    assert again.provenance == first.provenance
    others = [
        make(Trained(VAE, cache=tmp_path), part),
        make(Trained(VAE, filters=["copies"], cache=tmp_path, classifier_steps=5), part),
        make(maker, part, [1] * 10),
        make(maker, part, seed=2),
    ]
    assert len({bank.path for bank in [first, *others]}) == 5
    assert len(list(tmp_path.glob("*/model"))) == 2
    assert torch.equal(everything(make(Trained(VAE, filters=["copies"], classifier_steps=4), part)), everything(first))


def test_a_run_that_was_cut_off_goes_on(part, model, trained, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 4:
            raise Stop

    output = tmp_path / trained._key(part.fingerprint(), 1)
    options: dict[str, Any] = {"data": part, "output": output, "device": "cpu", "progress": False}
    with pytest.raises(Stop):
        train_model(load_recipe(VAE, overrides=["seed=1"]), on_step=stop, **options)
    state = output / "states" / "step-3" / "state.safetensors"
    written = state.stat().st_mtime_ns
    assert not (output / "model").exists()
    assert equal(Trained(VAE, cache=tmp_path).fit(part, seed=1, device=CPU), model)
    assert state.stat().st_mtime_ns == written  # the first half was not trained again


def test_a_run_that_was_cut_off_before_its_first_step_is_begun(part, model, trained, tmp_path) -> None:
    output = tmp_path / trained._key(part.fingerprint(), 1)
    output.mkdir()
    (output / ".lock").touch()
    (output / ".genaug.tmp-killed").write_text("")
    assert equal(Trained(VAE, cache=tmp_path).fit(part, seed=1, device=CPU), model)


def test_processes_that_share_a_cache_train_once(part, model, tmp_path) -> None:
    code = (
        "import json, sys, torch\n"
        "from genaug.data import load_data\n"
        "from genaug.evaluate.generators import Trained\n"
        "maker, part = Trained(json.loads(sys.argv[1]), cache=sys.argv[2]), load_data('digits').subset(range(300))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "maker.fit(part, seed=1, device=torch.device('cpu'))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(VAE), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        assert equal(Trained(VAE, cache=tmp_path).fit(part, seed=1, device=CPU), model)
        written = files(tmp_path)
        other.communicate(timeout=240)
    assert other.returncode == 0
    # whoever came second found the files of the first, and left them; without a lock it is told that another trains
    assert files(tmp_path) == written


def test_a_damaged_model_is_not_used(part, tmp_path) -> None:
    maker = Trained(VAE, cache=tmp_path)
    maker.fit(part, seed=1, device=CPU)
    weights = next(tmp_path.glob("*/model/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(GenaugError, match="model.safetensors"):
        maker.fit(part, seed=1, device=CPU)


def test_a_cache_that_cannot_be_a_folder(part, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GenaugError, match="file: cannot be written"):
        make(Trained(VAE, cache=tmp_path / "file"), part)


# --- a start


@pytest.mark.filterwarnings("ignore:.*hardly vary:genaug.errors.TrainingWarning")
@pytest.mark.filterwarnings("ignore:.*told apart:genaug.errors.TrainingWarning")
@pytest.mark.filterwarnings("ignore:at the end:genaug.errors.TrainingWarning")
def test_a_gan_starts_from_a_vae_of_the_same_part_and_seed(part, model, trained, cache, tmp_path) -> None:
    before = files(cache)
    named = {**GAN, "training": {**GAN["training"], "start": "fashion-mnist-vae"}}
    maker = Trained(named, start=Trained(VAE, cache=cache), cache=tmp_path)
    gan = maker.fit(part, seed=1, device=CPU)
    assert {name: written for name, written in files(cache).items() if name in before} == before
    state = load_file(cache / trained._key(part.fingerprint(), 1) / "model" / "model.safetensors")
    means = gan.generator.vae.density.means
    assert torch.equal(means, state["density.means"])
    facts = json.loads(next(tmp_path.glob("*/run.json")).read_text())
    assert (
        facts["start_sha256"]
        == json.loads((cache / trained._key(part.fingerprint(), 1) / "model" / "config.json").read_text())[
            "weights_sha256"
        ]
    )
    assert len(list(tmp_path.glob("*/model"))) == 1


def test_a_start_without_a_cache_is_kept_beside_what_starts_from_it(part, trained, tmp_path) -> None:
    started = Trained(VAE, start=Trained(VAE), cache=tmp_path).fit(part, seed=1, device=CPU)
    assert len(list(tmp_path.glob("*/model"))) == 2
    assert (tmp_path / trained._key(part.fingerprint(), 1) / "model").is_dir()
    assert equal(started, Trained(VAE, start=trained).fit(part, seed=1, device=CPU))


def test_a_model_that_others_trained_is_no_start() -> None:
    with pytest.raises(GenaugError, match=r"training.start must be left out, got 'solar-vae': .* training part alone"):
        Trained("solar-gan")
    assert Trained("solar-gan", overrides=["training.start=null"]).family.family == "gan"


# --- filters


def test_filters_are_fitted_to_what_the_model_learned_from(model, trained, part, cache) -> None:
    counts = [0, 0, 3, 3] + 6 * [0]
    maker = Trained(VAE, filters=["copies"], cache=cache, classifier_steps=12)
    bank = make(maker, part, counts)
    kept = part.subset(part.split(0.2, seed=1)[0])
    copies = NotACopy(fit_features(kept, seed=derive_seed(1, "filters"), steps=12, device="cpu"), kept)
    oracle = SampleBank.generate(model, counts, seed=1, filters=[copies], progress=False)
    assert torch.equal(everything(bank), everything(oracle))
    assert bank.provenance.filters == ("NotACopy",)
    assert bank.provenance.acceptance == oracle.provenance.acceptance


def test_a_class_that_filters_leave_short_is_named(part, cache) -> None:
    # after so few steps the samples of all classes look alike, so a classifier agrees on hardly any class
    maker = Trained(VAE, filters=["agreement"], cache=cache, classifier_steps=2)
    with pytest.warns(DataWarning, match=r"fewer samples than wanted of \d of 10 classes"):
        bank = make(maker, part, [2] * 10)
    assert 0 < len(bank) < 20
    assert bank.counts == list(bank.provenance.counts)


# --- variations and latents


def test_variations_are_those_of_the_model_of_each_image_in_turn(part, model, trained) -> None:
    maker = Variations(trained, strength=0.4)
    counts = [0, 40] + 8 * [0]
    rows = pass_over(part, 1, 40, seed=1)
    assert 20 < part.counts[1] < 40  # some images are varied twice
    seeds = draw_seeds(40, make_generator(1, "variations", 1))
    expected = to_uint8(model.vary(part.images[rows], part.labels[rows], strength=0.4, seeds=seeds))
    bank = make(maker, part, counts)
    assert torch.equal(everything(bank), expected)
    assert len(everything(bank).flatten(1).unique(dim=0)) == 40
    assert bank.provenance.source == repr(maker)
    assert torch.equal(everything(make(maker, part, counts)), expected)


def test_variations_keep_what_the_model_cannot_draw(part, model, trained) -> None:
    rows = pass_over(part, 1, 5, seed=1)
    seeds = draw_seeds(5, make_generator(1, "variations", 1))
    images, labels = part.images[rows], part.labels[rows]
    varied, rebuilt = (model.vary(images, labels, strength=strength, seeds=seeds) for strength in (0.4, 0.0))
    bank = make(Variations(trained, strength=0.4, keep_residual=True), part, [0, 5] + 8 * [0])
    assert torch.equal(everything(bank), to_uint8((images / 255 + varied - rebuilt).clamp(0, 1)))


def test_variations_of_no_strength_are_reconstructions(part, model, trained) -> None:
    bank = make(Variations(trained, strength=0), part, [0, 0, 4] + 7 * [0])
    rows = pass_over(part, 2, 4, seed=1)
    expected = model.decode(model.encode(part.images[rows], part.labels[rows]), part.labels[rows])
    assert torch.equal(everything(bank), to_uint8(expected))


def test_latent_smote_decodes_what_the_library_finds_among_latents(part, model, trained) -> None:
    smote = pytest.importorskip("imblearn.over_sampling").SMOTE
    maker = LatentSmote(trained, neighbors=2)
    bank = make(maker, part)
    assert bank.counts == WANTED
    assert bank.provenance.source == repr(maker)
    latents = model.encode(part.images, part.labels).numpy()
    for index in (2, 3, 9):
        there, count = part.counts[index], WANTED[index]
        sampler = smote(
            sampling_strategy={index: there + count},
            k_neighbors=2,
            random_state=derive_seed(1, "latent smote", index) % 2**32,
        )
        points = sampler.fit_resample(latents, part.labels.numpy())[0][len(part) :]
        expected = model.decode(torch.from_numpy(points.astype(np.float32)), torch.full((count,), index))
        drawn = bank.images(range(*bank.rows(index))).float() / 255
        # encoded in batches of another size, and rounded to 8 bits
        torch.testing.assert_close(drawn, expected, atol=0.5 / 255 + 1e-4, rtol=0)


def test_a_class_of_one_image_and_one_of_none(part, tmp_path) -> None:
    pytest.importorskip("imblearn")
    rows = torch.nonzero((part.labels != 7) & (part.labels != 8)).flatten().tolist()
    one = int(torch.nonzero(part.labels == 8)[0])
    few = part.subset([*rows, one])
    maker = LatentSmote(Trained(VAE, overrides=["training.validation_fraction=0"], cache=tmp_path))
    with pytest.warns(DataWarning, match="no images of|one image only"):
        model = maker.trained.fit(few, seed=0, device=CPU)
    image, label = part.images[one][None], torch.tensor([8])
    reconstruction = to_uint8(model.decode(model.encode(image, label), label))
    drawn = make(maker, few, [0] * 8 + [3, 0], seed=0)
    assert (everything(drawn).int() - reconstruction.int()).abs().max() <= 1  # in batches of another size
    varied = make(Variations(maker.trained), few, [0] * 8 + [3, 0], seed=0)
    assert varied.counts == [0] * 8 + [3, 0]
    for other in (maker, maker.trained, Variations(maker.trained)):
        with pytest.raises(DataError, match=r"counts must be 0 for classes that train has no images of, .* \['7'\]"):
            make(other, few, [0] * 7 + [1, 0, 0], seed=0)


# --- what cannot be used


def test_what_cannot_be_used() -> None:
    pytest.importorskip("imblearn")
    with pytest.raises(RecipeError, match="no such shipped recipe"):
        Trained("digits-vea")
    with pytest.raises(RecipeError, match="stpes"):
        Trained(VAE, overrides=["training.stpes=3"])
    with pytest.raises(GenaugError, match="filters must be of agreement, band, copies, discriminator"):
        Trained(VAE, filters=["bnad"])
    with pytest.raises(GenaugError, match="strength must be from 0 to 1, got 2"):
        Variations(Trained(VAE), strength=2)
    with pytest.raises(GenaugError, match="neighbors must be an integer of at least 1, got 0"):
        LatentSmote(Trained(VAE), neighbors=0)
    with pytest.raises(GenaugError, match="vary: gan cannot do this; it can: sample"):
        Variations(Trained(GAN))
    with pytest.raises(GenaugError, match="encode: gan cannot do this"):
        LatentSmote(Trained(GAN))
    for kind in (Variations, LatentSmote):
        with pytest.raises(GenaugError, match=r"trained must have no filters, .* got \['band'\]"):
            kind(Trained(VAE, filters=["band"]))


def test_a_model_that_cannot_sample_is_not_trained(part, tmp_path) -> None:
    with pytest.raises(GenaugError, match="sample: denoiser cannot do this"):
        make(Trained({"family": "denoiser"}, cache=tmp_path), part)
    with pytest.raises(DataError, match="counts must ask for at least one sample"):
        make(Trained(VAE, cache=tmp_path), part, [0] * 10)
    assert not list(tmp_path.iterdir())


def test_the_cache_is_not_in_the_representation(trained, cache) -> None:
    texts = [repr(maker) for maker in (trained, Variations(trained), Trained(GAN, start=trained))]
    assert not [text for text in texts if str(cache) in text]
    assert texts[1] == f"Variations(trained={texts[0]}, strength=0.3, keep_residual=False)"


def test_a_model_from_the_cache_is_that_of_load(part, model, trained, cache) -> None:
    path = cache / trained._key(part.fingerprint(), 1) / "model"
    assert equal(genaug.load(path), model)
