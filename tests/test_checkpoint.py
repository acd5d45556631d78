"""Checkpoints: the format agrees with safetensors' own reader, damage is one error, writing is whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from genaug import checkpoint
from genaug.checkpoint import (
    DTYPES,
    CheckpointConfig,
    check_layout,
    describe_tensors,
    make_header,
    read_checkpoint_config,
    read_header,
    read_tensors,
    write_checkpoint,
    write_tensors,
)
from genaug.errors import CheckpointError, GenaugError
from genaug.models import VAE, VAEConfig
from genaug.spec import DataSpec
from genaug.storage import hash_file

SPEC = DataSpec(channels=1, height=8, width=8, class_names=("ant", "bee"))


def make_model(seed: int = 0, spec: DataSpec = SPEC, **fields: Any) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VAE(spec, VAEConfig(**{"width": 8, "hidden": 8, "latent_dim": 2, **fields})).eval()


def same_weights(model: VAE, other: VAE) -> bool:
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def all_dtypes() -> dict[str, Tensor]:
    """Tensors of every dtype; the first has an odd number of bytes, so that the others are not aligned."""
    return {name: torch.arange(3).to(dtype) for name, dtype in sorted(DTYPES.items(), reverse=True)} | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "naïve \u2713": torch.ones(2, 1, 3, dtype=torch.int64),
    }


def pack(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def entry(dtype: Any = "F32", shape: Any = (1,), span: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span, **more}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_model().save(tmp_path / "model")
    return tmp_path / "model"


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(directory: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        VAE.from_pretrained(directory)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(directory))


# --- the format, against safetensors


def test_header_and_raw_bytes_are_read_by_safetensors(tmp_path: Path) -> None:
    tensors = {name: torch.arange(4).to(dtype) for name, dtype in DTYPES.items()} | {"none": torch.zeros(0, 3)}
    head, places = make_header(describe_tensors(tensors))
    raw = b"".join(bytes(tensor.reshape(-1).view(torch.uint8).tolist()) for tensor in tensors.values())
    (tmp_path / "x.safetensors").write_bytes(head + raw)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)
    assert len(head) % 8 == 0
    assert read_header(tmp_path / "x.safetensors") == places


def test_header_of_a_file_by_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(all_dtypes(), path, metadata={"format": "pt"})
    header = read_header(path)
    assert {name: (info.dtype, info.shape) for name, info in header.items()} == describe_tensors(all_dtypes())
    data = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(header)
        for name, info in header.items():
            raw = file.get_tensor(name).reshape(-1).view(torch.uint8).tolist()
            assert data[info.start : info.end] == bytes(raw)


def test_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = all_dtypes() | {"strided": torch.arange(6.0).reshape(2, 3).T}
    sha256 = write_tensors(path, tensors)
    assert sha256 == hash_file(path)
    loaded = read_tensors(path, describe_tensors(tensors), sha256=sha256)
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert torch.equal(loaded["I64"], torch.arange(3))  # it holds no map of a file that others can change


ONE = {"a": entry()}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a complete safetensors file"),
        (b"\x08\0\0", "not a complete safetensors file"),
        (b"\0" * 8, "not a complete safetensors file"),
        (b"\xff" * 8, "not a complete safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "header of 9223372036854775808 bytes"),
        ((3).to_bytes(8, "little") + b"{}", "not a complete safetensors file"),
        (pack(b"{}" + b" " * (1 << 20)), "not a complete safetensors file"),
        (b"\x80\x04\x95\x10\0\0\0\0" + b"x" * 40, "not a complete safetensors file"),  # a pickle
        (b"PK\x03\x04" + b"\0" * 100, "not a complete safetensors file"),  # a zip archive, as of torch.save
        (pack(b"{]"), "damaged header"),
        (pack(b"{\xff}"), "damaged header"),
        (pack(b"[" * 100_000), "damaged header"),
        (pack(b'{"a": 1, "a": 1}'), "damaged header .*twice"),
        (pack(b'{"a": ' + b"9" * 5000 + b"}"), "damaged header"),
        (pack([1]), "damaged header .not an object"),
        (pack({"a": 1}), "damaged entry for tensor 'a'"),
        (pack({"a": []}), "damaged entry"),
        (pack({"a": "text"}), "damaged entry"),
        (pack({"a\nb": None}), "damaged entry"),
        (pack({"a": {}}), "damaged entry"),
        (pack({"a": entry(more=1)}, b"1234"), "damaged entry"),
        (pack({"a": entry("F8_E4M3", span=(0, 1))}, b"1"), "damaged entry"),
        (pack({"a": entry(["F32"])}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=None)}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape="1")}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[-1])}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[1.0])}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[True])}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[float("nan")])}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[1] * 17)}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[2**48, 2**48], span=(0, 2**98))}), "damaged entry"),
        (pack({"a": entry(shape=[2])}, b"1234"), "damaged entry"),
        (pack({"a": entry(span=(0, 4, 8))}, b"1234"), "damaged entry"),
        (pack({"a": entry(span=4)}, b"1234"), "damaged entry"),
        (pack({"a": entry(span={"0": 0, "4": 4})}, b"1234"), "damaged entry"),
        (pack({"a": entry(span=(-4, 0))}, b"1234"), "damaged entry"),
        (pack({"a": entry(span=(4, 0))}, b"1234"), "damaged entry"),
        (pack({"a": entry(shape=[2**40], span=(0, 2**42))}), "must be .* bytes long by its header"),
        (pack({"a": entry(span=(4, 8))}, b"12345678"), "overlap or leave gaps"),
        (pack({"a": entry(), "b": entry()}, b"1234"), "overlap or leave gaps"),
        (pack({"a": entry(), "b": entry(span=(5, 9))}, b"1" * 9), "overlap or leave gaps"),
        (pack(ONE, b"123"), "truncated or damaged"),
        (pack(ONE, b"12345"), "truncated or damaged"),
        (pack({}, b"1"), "truncated or damaged"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(path))


def test_layout_must_match(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(1)}
    path = tmp_path / "x"
    sha256 = write_tensors(path, tensors)
    header, expected = read_header(path), describe_tensors(tensors)
    check_layout(path, header, expected)
    with pytest.raises(CheckpointError, match=r"missing \['c'\], unexpected \[\]"):
        check_layout(path, header, {**expected, "c": expected["a"]})
    with pytest.raises(CheckpointError, match=r"missing \[\], unexpected \['b'\]"):
        check_layout(path, header, {"a": expected["a"]})
    with pytest.raises(CheckpointError, match=r"'a' must be torch.float32 \[3, 2\], got torch.float32 \[2, 3\]"):
        check_layout(path, header, {**expected, "a": (torch.float32, (3, 2))})
    with pytest.raises(CheckpointError, match=r"'b' must be torch.float64 \[1\], got torch.float32 \[1\]"):
        read_tensors(path, {**expected, "b": (torch.float64, (1,))}, sha256=sha256)
    with pytest.raises(CheckpointError, match="hash .* differs"):
        read_tensors(path, expected, sha256="0" * 64)


# --- damaged checkpoints


def test_truncated_at_every_length(saved: Path) -> None:
    weights = saved / "model.safetensors"
    data = weights.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        weights.write_bytes(data[:length])
        refused(saved, "model.safetensors: (not a complete|damaged|must be .* bytes long)")
    weights.write_bytes(data + b"\0")
    refused(saved, "truncated or damaged")


def test_one_flipped_bit_in_the_weights(saved: Path) -> None:
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    refused(saved, "hash .* differs from .* the file was changed, or its writing was cut short")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("density.means"), r"missing \['density.means'\], unexpected \[\]"),
        (lambda state: state.update(extra=torch.zeros(1)), r"unexpected \['extra'\]"),
        (
            lambda state: state.update({"density.means": torch.zeros(3, 4, 3)}),
            r"must be torch.float32 \[3, 4, 34\], got",
        ),
        (lambda state: state.update({"density.means": torch.zeros(3, 4, 34).half()}), "got torch.float16"),
        (lambda state: state.update({"density.means": torch.zeros(3, 4, 34).double()}), "got torch.float64"),
        (lambda state: state.clear(), "missing"),
    ],
)
def test_wrong_tensors_with_a_right_hash(saved: Path, change: Any, message: str) -> None:
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, saved / "model.safetensors")
    change_config(saved, weights_sha256=hash_file(saved / "model.safetensors"))
    refused(saved, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "config.json.surprise: unknown field; allowed: data_sha256, family,"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "config.json.auto_map: unknown field"),
        ({"family": "diffusion"}, "family must be 'vae', got 'diffusion'"),
        ({"family": 3}, "config.json.family: input should be a valid string"),
        ({"format_version": 99}, "config.json.format_version: must be 1, got 99"),
        ({"format_version": 2, "license": "MIT"}, "must be 1, got 2; it was written by another version of genaug"),
        (
            {"model": {"depth": 3}},
            "config.json: model.depth: unknown field; allowed: beta, .*width|model.depth: unknown",
        ),
        ({"model": {"width": "8"}}, "model.width: input should be a valid integer, got '8'"),
        ({"model": {"width": 0}}, "model.width: must be from 1 to 4096, got 0"),
        ({"model": {"likelihood": "poisson"}}, "model.likelihood: input should be 'bernoulli' or 'gaussian'"),
        ({"model": []}, "config.json.model: input should be"),
        ({"model": {}}, "must be torch.float32|tensors do not match the config"),
        ({"spec": {"channels": 1}}, "must give height and width"),
        ({"spec": {"channels": 1, "height": 8, "width": 10**9}}, "spec.width: must be an integer from 1 to 16384"),
        ({"weights_sha256": ""}, "hash .* differs"),
        ({"weights_sha256": "\n" * 300}, "hash .* differs"),
        ({"scores": {"a": float("nan")}}, "config.json.scores.a: must be plain"),
    ],
)
def test_wrong_configs(saved: Path, changes: dict[str, Any], message: str) -> None:
    change_config(saved, **changes)
    refused(saved, message)


def test_claims_of_petabytes_are_refused_before_anything_is_allocated(saved: Path) -> None:
    huge = VAEConfig(latent_dim=4096, width=4096, blocks=32, hidden=65_536, density_components=256)
    names = [str(index) for index in range(60_000)]
    change_config(
        saved, model=asdict(huge), spec={"channels": 64, "height": 16_384, "width": 16_384, "class_names": names}
    )
    refused(saved, "tensors do not match the config")


def test_other_formats_are_never_read(saved: Path) -> None:
    torch.save(make_model().state_dict(), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    refused(saved, "model.safetensors: no such file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file(saved: Path, name: str) -> None:
    (saved / name).rename(saved.parent / name)
    refused(saved, f"{name}: no such file")
    os.mkfifo(saved / name)
    refused(saved, f"{name}: no such file")
    (saved / name).unlink()
    (saved / name).mkdir()
    refused(saved, f"{name}: no such file")
    (saved / name).rmdir()
    (saved / name).symlink_to(saved.parent / name)  # as in the cache of the hub
    assert same_weights(VAE.from_pretrained(saved), make_model())


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("a" * 300)):
        with pytest.raises(CheckpointError, match="no such directory"):
            read_checkpoint_config(path)


# --- writing


def test_saving_twice_is_an_error_and_keeps_the_first(saved: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    with pytest.raises(GenaugError, match="exists already; .*overwrite=True"):
        make_model(1).save(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    make_model(1, latent_dim=3).save(saved, overwrite=True)
    assert same_weights(VAE.from_pretrained(saved), make_model(1, latent_dim=3))
    assert sorted(os.listdir(saved)) == ["README.md", "config.json", "model.safetensors"]


def test_a_kill_between_the_replacements_shows(saved: Path, tmp_path: Path) -> None:
    make_model(1).save(tmp_path / "new")
    os.replace(tmp_path / "new" / "model.safetensors", saved / "model.safetensors")
    refused(saved, "hash .* differs .* its writing was cut short")


@pytest.mark.global_rng  # the models are made in two threads, and fork_rng is for one
def test_a_reader_beside_a_writer_sees_old_or_new_or_an_error(saved: Path) -> None:
    models = {seed: make_model(seed, hidden=8 + seed) for seed in (0, 1)}
    for seed, model in models.items():
        model.scores = {"seed": seed}
    models[0].save(saved, overwrite=True)
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            models[turn % 2].save(saved, overwrite=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            try:
                model = VAE.from_pretrained(saved)
            except CheckpointError:
                continue
            assert same_weights(model, models[model.scores["seed"]])
    finally:
        done.set()
        writer.join()
    assert same_weights(VAE.from_pretrained(saved), models[0]) or same_weights(VAE.from_pretrained(saved), models[1])


@pytest.mark.parametrize(
    ("changes", "card", "message"),
    [
        ({"scores": {"a": float("nan")}}, "", "must hold plain values that JSON can hold"),
        ({"scores": {"a": torch.zeros(1)}}, "", "must hold plain values"),
        ({"recipe": {"a": {1, 2}}}, "", "must hold plain values"),
        ({}, "\udce9", "must hold plain values"),
        ({"recipe": {"a": "x" * (1 << 20)}}, "", "config.json must be at most 1048576 bytes long"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, changes: dict[str, Any], card: str, message: str
) -> None:
    config = CheckpointConfig(family="vae", model={}, spec=SPEC, weights_sha256="")
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "x", replace(config, **changes), {"a": torch.zeros(1)}, card)
    assert os.listdir(tmp_path) == []


def test_config_holds_what_was_written(tmp_path: Path) -> None:
    config = CheckpointConfig(
        family="vae", model={"a": 1}, spec=SPEC, weights_sha256="", recipe={"b": [1]}, scores={"c": 0.5}
    )
    write_checkpoint(tmp_path / "x", config, {"a": torch.ones(1)}, "the card")
    sha256 = hash_file(tmp_path / "x" / checkpoint.WEIGHTS)
    assert read_checkpoint_config(tmp_path / "x") == replace(config, weights_sha256=sha256)
    assert (tmp_path / "x" / checkpoint.CARD).read_text() == "the card"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for name in ("file/model", "file", "a" * 300):
        for save in (lambda path: make_model().save(path, overwrite=True), make_model().save_pretrained):
            with pytest.raises(GenaugError, match="cannot be written"):
                save(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


def run(script: str, *arguments: object) -> Iterator[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    yield from result.stdout.splitlines()


def test_a_full_disk_keeps_what_was_there(saved: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from genaug.errors import GenaugError
from genaug.models import VAE
from genaug.storage import write_text
saved = Path(sys.argv[1])
model = VAE.from_pretrained(saved)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (
    lambda: model.save(saved.parent / "new"),
    lambda: model.save(saved, overwrite=True),
    lambda: model.save_pretrained(saved),
    lambda: write_text(saved / "README.md", "x" * 5000),
):
    try:
        write()
    except GenaugError as problem:
        print(problem)
"""
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    lines = list(run(script, saved))
    assert len(lines) == 4
    assert all("cannot be written" in line and "File too large" in line for line in lines)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert os.listdir(saved.parent) == ["model"]


def test_hostile_sizes_cost_no_memory(saved: Path, tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
import genaug
from genaug.training.recipe import load_recipe
saved, folder = map(Path, sys.argv[1:])
genaug.load(saved)  # imports what it needs
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(folder.iterdir()):
    try:
        load_recipe(path) if path.suffix == ".yaml" else genaug.load(path)
    except genaug.GenaugError as problem:
        print(path.name, len(str(problem)) < 500)
"""
    folder = tmp_path / "hostile"
    folder.mkdir()
    huge = 1 << 40
    for name, head in {"length": huge - 8, "short": 1 << 30, "zeros": 1 << 19}.items():
        shutil.copytree(saved, folder / name)
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(head.to_bytes(8, "little"))
            file.truncate(huge)  # sparse: takes no room on the disk
    shutil.copytree(saved, folder / "shape")
    spans = {"a": entry(shape=[2**38], span=(0, 2**40))}
    (folder / "shape" / "model.safetensors").write_bytes(pack(spans, b"1234"))
    shutil.copytree(saved, folder / "config")
    os.truncate(folder / "config" / "config.json", huge)
    shutil.copytree(saved, folder / "claims")
    change_config(folder / "claims", model={"width": 4096, "hidden": 65_536}, spec={**SPEC.to_dict(), "channels": 64})
    (folder / "recipe.yaml").write_text("family: vae\n")
    os.truncate(folder / "recipe.yaml", huge)
    (folder / "laughs.yaml").write_text("a: &a [x, x]\n" + "".join(f"b{i}: &a [*a, *a]\n" for i in range(60)))
    names = ["claims", "config", "laughs.yaml", "length", "recipe.yaml", "shape", "short", "zeros"]
    assert list(run(script, saved, folder)) == [f"{name} True" for name in names]
