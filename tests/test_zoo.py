"""What a name means: a path, an id on the hub, or a shipped model."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import genaug
from genaug.errors import CheckpointError, GenaugError
from genaug.models import FAMILIES, VAE, VAEConfig
from genaug.models.saved import is_path
from genaug.spec import DataSpec
from genaug.zoo import list_models, load, resolve, shipped

SPEC = DataSpec(channels=1, height=8, width=8, class_names=("ant", "bee"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_model() -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(SPEC, VAEConfig(width=8, hidden=8, latent_dim=2)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_model().save(tmp_path / "model")
    return tmp_path / "model"


def weights_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + bytes(tensor.reshape(-1).view(torch.uint8).tolist()))
    return digest.hexdigest()


# --- names


@pytest.mark.parametrize(
    "name", [Path("x"), Path("a/b"), "/x", "./x", "../x", ".", "..", "~", "~/x", "~user/x", "\\\\host\\x", "./a/../b"]
)
def test_paths(name: str | Path) -> None:
    assert is_path(name)


@pytest.mark.parametrize("name", ["", "x", "a/b", "digits-vae", "a/./b", "a/..", "C:\\x", " ./x", ".x", "...", "..x"])
def test_no_paths(name: str) -> None:
    assert not is_path(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be a shipped model's name, a hub id .owner/name. or a path"),
        (" ", "must be a shipped model's name"),
        ("no-such-model", "^no-such-model: no such shipped model; there are: "),
        ("..x", "must be a shipped model's name"),
        ("a..b", "must be a shipped model's name"),
        ("a/..", "must be a shipped model's name"),
        ("digits-vae/..", "must be a shipped model's name"),
        ("digits-vae/../digits-vae", "must be a shipped model's name"),
        ("a/../../etc", "must be a shipped model's name"),
        ("a..b/c", "must be a shipped model's name"),
        ("a/b/c", "must be a shipped model's name"),
        ("a/", "must be a shipped model's name"),
        ("-a/b", "must be a shipped model's name"),
        ("a\\b", "must be a shipped model's name"),
        ("https://huggingface.co/a/b", "must be a shipped model's name"),
        ("a/b\n", "must be a shipped model's name"),
        ("a\0", "must be a shipped model's name"),
        ("é", "must be a shipped model's name"),
        ("x" * 10_000 + "!", "must be a shipped model's name"),
        ("./nothing", "^nothing: no such directory"),
        ("../nothing", "no such directory"),
        ("/nothing", "^/nothing: no such directory"),
        ("/" + "a" * 300, "no such directory"),
        ("/a\0b", "without null characters"),
        ("/a\nb", "^/a b: no such directory"),
        (Path("digits-vae"), "^digits-vae: no such directory"),
        ("~nobody-of-this-name/x", "cannot be expanded"),
        (5, "^name must be a string or a Path, got int"),
        (None, "got NoneType"),
        (b"digits-vae", "got bytes"),
    ],
)
def test_unknown_names_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (resolve, load):
        with pytest.raises(CheckpointError, match=message) as caught:
            call(name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


# --- paths


def test_every_spelling_of_a_path(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    monkeypatch.setenv("HOME", str(saved.parent))
    (saved.parent / "link").symlink_to(saved)
    names = ["./model", "~/model", str(saved), saved, Path("model"), f"../{saved.parent.name}/model", "./link"]
    for name in names:
        model = load(name)
        assert type(model) is VAE
        assert not model.training
        assert weights_hash(model) == weights_hash(make_model())
    monkeypatch.chdir(saved)
    assert weights_hash(load(".")) == weights_hash(make_model())


def test_a_directory_in_place_of_a_shipped_model_gives_a_hint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    with pytest.raises(CheckpointError, match="no such shipped model; .*; for a directory write ./model"):
        load("model")


def test_unknown_family(saved: Path) -> None:
    config = saved / "config.json"
    config.write_text(config.read_text().replace('"family": "vae"', '"family": "os.system"'))
    with pytest.raises(CheckpointError, match=f"family must be one of {', '.join(FAMILIES)}, got 'os.system'"):
        load(saved)


def test_devices(saved: Path) -> None:
    assert load(saved).device.type == "cpu"
    assert load(saved, device="cpu").device.type == "cpu"
    assert load(saved, device=torch.device("cpu")).device.type == "cpu"
    for device in ("nonsense", "cuda:99", "meta"):
        with pytest.raises(GenaugError, match=f"^device: {device} cannot be used"):
            load(saved, device=device)


def test_public_names() -> None:
    assert genaug.load is load
    assert genaug.list_models is list_models


# --- shipped models


def test_shipped_folders() -> None:
    assert (shipped("recipes") / "digits-vae.yaml").is_file()
    assert shipped("pretrained").is_dir()
    assert list_models() == sorted(list_models())
    assert "digits-vae" in list_models()


@pytest.mark.parametrize("name", list_models())
def test_shipped_models_load(name: str) -> None:
    model = load(name)
    assert not model.training
    assert resolve(name) == shipped("pretrained") / name
    if model.family == "denoiser":
        images = model.restore(torch.full((2, model.spec.channels, 20, 30), 0.5))  # type: ignore[operator]
        assert images.shape[2:] == (20, 30)
        assert (images - 0.5).abs().max() < 0.02
    else:
        labels = torch.arange(model.spec.num_classes)
        images = model.sample(labels, generator=torch.Generator().manual_seed(0))  # type: ignore[operator]
        assert len(images) == len(labels)
    model.spec.check_images(images)
    assert model.recipe is not None
    assert model.scores


# --- the hub


def test_offline_is_one_error() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(CheckpointError, match="^genaug-tests/nothing: cannot be fetched from the Hugging Face hub"):
        load("genaug-tests/nothing")


@pytest.mark.parametrize("name", ["a--b/c", "a/b.git", "a" * 100 + "/b"])
def test_what_the_hub_does_not_allow_is_one_error(name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be fetched from the Hugging Face hub"):
        load(name)


def test_an_id_in_the_cache_of_the_hub(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "hub" / "models--owner--name"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        blob = hashlib.sha256((saved / file).read_bytes()).hexdigest()
        (saved / file).rename(folder / "blobs" / blob)
        (snapshot / file).symlink_to(f"../../blobs/{blob}")
    script = """
import sys, torch, genaug
sys.path.insert(0, sys.argv[1])
from test_zoo import weights_hash
print(weights_hash(genaug.load("owner/name")))
try:
    genaug.load("owner/other")
except genaug.CheckpointError as problem:
    print(problem)
"""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_CACHE"}
    environment["HF_HOME"] = str(tmp_path / "home")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == weights_hash(make_model())
    assert second.startswith("owner/other: cannot be fetched from the Hugging Face hub")


def test_a_directory_is_not_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="run/model: is a directory here; to load it write ./run/model"):
        load("run/model")
