"""What every family shares: saving and loading, the hub's conventions, and calls without side effects."""

import copy
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelHubMixin
from safetensors.torch import load_file, save_file
from torch import nn

import genaug
from genaug import __version__
from genaug.data import load_data
from genaug.errors import CheckpointError, DataError, GenaugError
from genaug.models import FAMILIES, VAE, AutoencoderConfig, GANConfig, Model, VAEConfig, require
from genaug.models.base import METHODS
from genaug.models.card import make_card
from genaug.models.running import draw, draw_uniform, inference
from genaug.models.saved import download
from genaug.spec import DataSpec
from genaug.training import Recipe
from genaug.zoo import load

SPEC = DataSpec(channels=3, height=6, width=5, class_names=("ant", "bee"))
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


def make_model(seed: int = 0, **fields: Any) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VAE(SPEC, VAEConfig(**{"width": 8, "hidden": 8, "latent_dim": 2, **fields})).eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(model: Model, other: Model) -> None:
    assert (model.spec, model.config) == (other.spec, other.config)
    torch.testing.assert_close(dict(model.state_dict()), dict(other.state_dict()), rtol=0, atol=0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_model().save(tmp_path / "model")
    return tmp_path / "model"


def hub_cache(root: Path, models: dict[str, Path]) -> Path:
    """Lay out checkpoints, by revision, as the cache of huggingface_hub has them: blobs, and links to them."""
    folder = root / "models--owner--name"
    for name in ("blobs", "refs"):
        (folder / name).mkdir(parents=True)
    for revision, directory in models.items():
        (folder / "refs" / revision).write_text(COMMITS[revision])
        snapshot = folder / "snapshots" / COMMITS[revision]
        snapshot.mkdir(parents=True)
        for file in directory.iterdir():
            blob = hashlib.sha256(file.read_bytes()).hexdigest()
            (folder / "blobs" / blob).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(f"../../blobs/{blob}")
    return root


# --- saving and loading


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", [SPEC, DataSpec(channels=1, height=4, width=9)])
def test_each_family_comes_back_whole(tmp_path: Path, family: str, spec: DataSpec) -> None:
    with torch.random.fork_rng(devices=[]):
        model = FAMILIES[family](spec, FAMILIES[family].config_class(width=8))
    model.recipe, model.scores = {"family": family, "seed": 3}, {"score": 0.25}
    model.save(tmp_path / "model")
    loaded = FAMILIES[family].from_pretrained(tmp_path / "model")
    assert_same(loaded, model)
    assert (loaded.recipe, loaded.scores) == (model.recipe, model.scores)
    assert type(loaded) is FAMILIES[family]
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    images, labels = torch.rand(3, spec.channels, spec.height, spec.width, generator=seeded()), torch.zeros(3).long()
    pictures = [m.eval().illustrate(images, labels, generator=seeded()) for m in (model, loaded)]
    assert torch.equal(*pictures)


def test_files_are_what_other_tools_expect(saved: Path) -> None:
    model = make_model()
    assert sorted(os.listdir(saved)) == ["README.md", "config.json", "model.safetensors"]
    torch.testing.assert_close(load_file(saved / "model.safetensors"), dict(model.state_dict()), rtol=0, atol=0)
    config = json.loads((saved / "config.json").read_text())
    assert config["weights_sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert (config["family"], config["spec"]) == ("vae", SPEC.to_dict())
    assert config["versions"] == {"genaug": __version__, "torch": torch.__version__}
    assert config["model"]["latent_dim"] == 2


def test_a_loaded_model_trains_and_saves_again(saved: Path, tmp_path: Path) -> None:
    model = VAE.from_pretrained(saved)
    images, labels = torch.rand(4, 3, 6, 5, generator=seeded()), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    draws = model.draw_for_training(len(images), generator=seeded())
    model.training_loss(images, labels, draws)[0].backward()
    optimizer.step()
    model.save(tmp_path / "again")
    assert_same(VAE.from_pretrained(tmp_path / "again"), model)
    assert_same(VAE.from_pretrained(saved), make_model())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_16_bits_come_back_as_32_rounded_ones(tmp_path: Path, dtype: str) -> None:
    model = make_model()
    model.save(tmp_path / "whole")
    model.save(tmp_path / "half", weights_dtype=dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]  # the header stays
    again = VAE.from_pretrained(tmp_path / "half")
    for name, tensor in model.state_dict().items():
        expected = tensor.to(getattr(torch, dtype)).to(tensor.dtype) if tensor.dtype == torch.float32 else tensor
        assert torch.equal(again.state_dict()[name], expected)
    again.save(tmp_path / "again", weights_dtype=dtype)
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "again")]
    assert same[0] == same[1]
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    config["weights_dtype"] = "float32"
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"must be torch.float32 .*got torch.{dtype}"):
        VAE.from_pretrained(tmp_path / "half")


def test_weights_that_16_bits_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        next(model.parameters()).fill_(1e5)
    with pytest.raises(GenaugError, match="must be finite to be saved"):
        model.save(tmp_path / "model", weights_dtype="float16")
    with pytest.raises(GenaugError, match="weights_dtype must be one of float32, float16, bfloat16, got 'int8'"):
        model.save(tmp_path / "model", weights_dtype="int8")
    assert not (tmp_path / "model").exists()


def test_models_are_copied_and_pickled_for_workers() -> None:
    model = make_model()
    assert_same(copy.deepcopy(model), model)
    assert_same(pickle.loads(pickle.dumps(model)), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_are_refused_where_the_model_runs(dtype: torch.dtype) -> None:
    model = make_model().to(dtype)
    with pytest.raises(GenaugError, match=f"weights must be float32, got {dtype}; for less, .* torch.autocast"):
        model.sample(torch.tensor([0]))


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    VAE.from_pretrained(saved)
    make_model().save(saved, overwrite=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_could_not_be_loaded_are_not_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(GenaugError, match=f"must be .*torch.float32.* to be saved, got .*{dtype}.*model.float"):
        make_model().to(dtype).save(tmp_path / "model")
    assert os.listdir(tmp_path) == []
    make_model().to(dtype).float().save(tmp_path / "model")
    VAE.from_pretrained(tmp_path / "model")


def test_channels_last_weights_come_back(tmp_path: Path) -> None:
    model = make_model().to(memory_format=torch.channels_last)
    model.save(tmp_path / "model")
    assert_same(VAE.from_pretrained(tmp_path / "model"), model)


def test_another_family(saved: Path) -> None:
    class Other(VAE):
        family = "other"

    with pytest.raises(CheckpointError, match="config.json: family must be 'other', got 'vae'"):
        Other.from_pretrained(saved)


# --- the conventions of the hub


def test_is_a_mixin_of_the_hub() -> None:
    assert issubclass(Model, ModelHubMixin)


def test_paths_in_the_home_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_model(0).save("~/one")
    make_model(0).save_pretrained("~/other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
    assert load("~/one").family == load("~/other").family


def test_save_pretrained_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    assert make_model(0).save_pretrained(path) is None
    assert_same(VAE.from_pretrained(path), make_model(0))
    (path / "README.md").write_text("my own card, né")
    (path / "notes.txt").write_text("kept")
    assert make_model(1, latent_dim=3).save_pretrained(str(path)) is None
    assert_same(VAE.from_pretrained(str(path)), make_model(1, latent_dim=3))
    assert (path / "README.md").read_text() == "my own card, né"
    assert sorted(os.listdir(path)) == ["README.md", "config.json", "model.safetensors", "notes.txt"]


def test_save_pretrained_keeps_the_older_one_where_it_fails(saved: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    model = make_model(1)
    model.scores = {"score": float("nan")}
    with pytest.raises(CheckpointError, match="plain values"):
        model.save_pretrained(saved)
    with pytest.raises(GenaugError, match="to be saved"):
        make_model(1).half().save_pretrained(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert_same(VAE.from_pretrained(saved), make_model())


def test_a_card_that_cannot_be_kept_is_one_error(saved: Path) -> None:
    (saved / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(GenaugError, match="README.md: the model card cannot be kept .*; remove it first"):
        make_model(1).save_pretrained(saved)
    assert_same(VAE.from_pretrained(saved), make_model())
    assert (saved / "README.md").read_bytes() == b"caf\xe9"


def test_an_id_in_the_cache(saved: Path, tmp_path: Path) -> None:
    make_model(1).save(tmp_path / "other")
    cache = hub_cache(tmp_path / "cache", {"main": saved, "v1": tmp_path / "other"})
    for options in ({}, {"revision": "main"}, {"revision": COMMITS["main"]}, {"local_files_only": True}):
        assert_same(VAE.from_pretrained("owner/name", cache_dir=cache, **options), make_model(0))
    assert_same(VAE.from_pretrained("owner/name", cache_dir=str(cache), revision="v1"), make_model(1))
    for model_id, options in [
        ("owner/other", {}),
        ("owner/name", {"revision": "v2"}),
        ("owner/name", {"revision": "../x"}),
    ]:
        with pytest.raises(CheckpointError, match=f"^{model_id}: cannot be fetched from the Hugging Face hub"):
            VAE.from_pretrained(model_id, cache_dir=cache, **options)


def test_half_a_checkpoint_in_the_cache(saved: Path, tmp_path: Path) -> None:
    (saved / "config.json").unlink()
    cache = hub_cache(tmp_path / "cache", {"main": saved})
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        VAE.from_pretrained("owner/name", cache_dir=cache)


def test_a_damaged_checkpoint_in_the_cache(saved: Path, tmp_path: Path) -> None:
    with (saved / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    cache = hub_cache(tmp_path / "cache", {"main": saved})
    with pytest.raises(CheckpointError, match="hash .* differs"):
        VAE.from_pretrained("owner/name", cache_dir=cache)


@pytest.mark.parametrize("name", ["a/../b", "a/b/c", "", "a..b/c", "a/b\n", "a\0/b", "-a/b", "a--b/c", "x" * 300])
def test_ids_that_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (VAE.from_pretrained, download):
        with pytest.raises(CheckpointError, match="cannot be fetched from the Hugging Face hub") as caught:
            call(name, cache_dir=tmp_path / "cache")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", [Path("owner/name"), "./nope", "../nope", "/nothing/there", "~/nope", Path("~/nope")])
def test_a_path_is_never_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"^{Path(name).expanduser()}: no such directory"):
        VAE.from_pretrained(name)


def test_a_path_may_begin_at_home(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    for name in ("~/model", Path("~/model")):
        assert_same(VAE.from_pretrained(name), make_model())
    with pytest.raises(CheckpointError, match="~nobody-of-this-name/model: cannot be expanded"):
        VAE.from_pretrained("~nobody-of-this-name/model")


def test_a_directory_comes_before_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model().save(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert_same(VAE.from_pretrained("owner/name"), make_model())


def test_unknown_arguments(saved: Path) -> None:
    with pytest.raises(TypeError, match="unexpected arguments: strict"):
        VAE.from_pretrained(saved, strict=False)


# --- cards


def test_card_says_what_is_known() -> None:
    model = make_model()
    card = make_card(model)
    assert card.startswith("---\nlibrary_name: genaug\n")
    assert f"{sum(p.numel() for p in model.parameters()):,}" in card
    for text in ("3x6x5", "ant, bee", "Not measured.", "not recorded"):
        assert text in card
    model.recipe, model.scores = {"seed": 41}, {"elbo": 1.25, "nested": {"a": 1}}
    card = make_card(model)
    assert "| elbo | 1.25 |" in card
    assert '"seed": 41' in card
    assert "nested" not in card


def test_a_card_of_ones_own(tmp_path: Path) -> None:
    make_model().save(tmp_path / "model", card="mine")
    assert (tmp_path / "model" / "README.md").read_text() == "mine"


# --- calls


def test_checks_of_batches() -> None:
    model = make_model()
    images = torch.zeros(2, 3, 6, 5)
    assert torch.equal(model.check_batch(images, None), torch.tensor([2, 2]))
    assert torch.equal(model.check_batch(images, torch.tensor([0, 1])), torch.tensor([0, 1]))
    for wrong, labels, message in [
        (images[0], None, r"\(N, C, H, W\), got \(3, 6, 5\); add images"),
        (images[:, :1], None, "3 channels"),
        (images, torch.tensor([0]), "as many as images"),
        (images, torch.tensor([0, 3]), "from 0 to 2"),
    ]:
        with pytest.raises(DataError, match=message):
            model.check_batch(wrong, labels)


def test_require_names_what_a_family_can_do() -> None:
    model = make_model()
    assert require(model, "sample") == model.sample
    with pytest.raises(GenaugError, match="^restore: vae cannot do this; it can: sample, encode, decode, vary$"):
        require(model, "restore")
    with pytest.raises(GenaugError, match=f"it can: nothing of {', '.join(METHODS)}"):
        require(nn.Linear(1, 1, device="meta"), "sample")


@pytest.mark.parametrize("family", FAMILIES)
def test_images_that_a_model_makes_are_contiguous(family: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        model = FAMILIES[family](SPEC, FAMILIES[family].config_class(width=8))
    images, labels = torch.rand(3, 3, 6, 5, generator=seeded()), torch.tensor([0, 1, 1])
    calls = {
        "sample": lambda: model.sample(labels, batch_size=2),
        "decode": lambda: model.decode(torch.zeros(3, model.latent_size)),
        "vary": lambda: model.vary(images, strength=0.5, seeds=labels),
        "restore": lambda: model.restore(images, batch_size=2),
    }
    with torch.random.fork_rng(devices=[]):  # samples without a generator are drawn with torch's own
        made = {name: call() for name, call in calls.items() if callable(getattr(model, name, None))}
    assert made
    for one in made.values():
        assert one.is_contiguous()
        assert one.view(3, -1).shape == (3, 90)
    save_file(made, tmp_path / "made.safetensors")


def test_inference_gives_every_mode_back_even_after_an_error() -> None:
    model = make_model().train()
    model.decoder.eval()
    modes = [module.training for module in model.modules()]

    def fail() -> None:
        with inference(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_draws_follow_the_generator() -> None:
    cpu = torch.device("cpu")
    assert torch.equal(draw((2, 3), seeded(), cpu), torch.randn(2, 3, generator=seeded()))
    assert torch.equal(draw_uniform((2, 3), seeded(), cpu), torch.rand(2, 3, generator=seeded()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        without = draw((4,), None, cpu), draw_uniform((4,), None, cpu)
        torch.manual_seed(3)
        assert torch.equal(without[0], torch.randn(4))
        assert torch.equal(without[1], torch.rand(4))


def test_a_family_without_extras() -> None:
    class Bare(Model):
        family = "bare"

    model = Bare(SPEC, None)
    assert model.measure(torch.zeros(0), torch.zeros(0)) == {}
    assert model.fit_after_training(torch.zeros(0), torch.zeros(0)) is None
    with pytest.raises(NotImplementedError):
        model.training_loss(torch.zeros(0), torch.zeros(0), {})


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [2, 6])
def test_pairs_are_refused_by_name_unless_they_are_learned_from(name: str, channels: int) -> None:
    family, spec = FAMILIES[name], DataSpec(channels, 8, 8, ("a", "b"))
    learned = family.learned_spec(spec, family.config_class(), paired=False)
    assert learned == (DataSpec(channels) if name == "denoiser" else spec)  # as a model of the family has it
    with pytest.raises(DataError, match=f"got pairs, of {channels} channels together; .*model.supervision=pairs"):
        family.learned_spec(spec, family.config_class(), paired=True)


def test_plain_mistakes_are_told_in_words() -> None:
    model = genaug.load("digits-vae")
    labels = torch.tensor([3])
    for wrong, message in ((3, "labels must be an int64 tensor .* got int"), (None, "labels must be an int64 tensor")):
        with pytest.raises(DataError, match=message):
            model.sample(wrong)
    with pytest.raises(GenaugError, match=r"generator must be a torch.Generator, got 0; pass torch.Generator\(\)"):
        model.sample(labels, generator=0)
    latents = model.encode(load_data("digits").images[:2])
    with pytest.raises(GenaugError, match="latents must be a tensor, got ndarray; convert"):
        model.decode(latents.numpy())
    torch.testing.assert_close(model.decode(latents.double()), model.decode(latents))  # as scikit-learn gives them


def test_configurations_are_checked_where_they_are_made() -> None:
    for make, message in (
        (lambda: VAEConfig(likelihood="normal"), "likelihood must be one of bernoulli, gaussian, got 'normal'"),
        (lambda: VAEConfig(width=2.5), "width must be an integer from 1 to 4096, got 2.5"),
        (lambda: VAEConfig(width="16"), "width must be an integer from 1 to 4096, got '16'"),
        (lambda: GANConfig(augment=None), "augment must be a list of .*, got None"),
        (lambda: AutoencoderConfig(hidden=64), "hidden must be a list of integers, got 64"),
        (lambda: Recipe(family="vaee", model=None), "family must be one of .*, got 'vaee'"),
        (
            lambda: Recipe(family="vae", model={"width": 8}),
            "model must be a VAEConfig .*, got {'width': 8}; plain values",
        ),
        (lambda: Recipe(family="vae", model=GANConfig()), "model must be a VAEConfig for family vae, got GANConfig"),
        (
            lambda: Recipe(family="vae", model=VAEConfig(), training={"steps": 5}),  # type: ignore[arg-type]
            "training must be a TrainingConfig .*, got {'steps': 5}; plain values are for load_recipe",
        ),
    ):
        with pytest.raises(GenaugError, match=message):
            make()
