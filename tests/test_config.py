"""Plain values to dataclasses: every wrong field is one line with its path, and hostile files cost nothing."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from genaug.checkpoint import CheckpointConfig
from genaug.config import MAX_CONFIG_BYTES, parse_config, read_bounded, read_json, unique_keys
from genaug.errors import CheckpointError, DataError, GenaugError, RecipeError, shorten
from genaug.models import VAEConfig
from genaug.spec import DataSpec

SPEC = {"channels": 3, "height": 6, "width": 5, "class_names": ["ant", "bee"]}
SAVED = {"family": "vae", "model": {}, "spec": SPEC, "weights_sha256": ""}


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Fail, rather than stop the whole run, where opening a file blocks."""

    def stop(*_: object) -> None:
        raise TimeoutError("the call hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# --- errors


def test_every_error_is_a_genaug_error_and_one_line() -> None:
    for error in (CheckpointError, DataError, RecipeError, GenaugError):
        problem = error("a\nb\r\nc\u2028d")
        assert isinstance(problem, GenaugError)
        assert isinstance(problem, ValueError)
        assert str(problem) == "a b c d"


def test_shorten_copes_with_anything() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(10**10_000) == "a value of type int"
    assert shorten(deep) == "a value of type list"
    assert shorten("a\nb") == r"'a\nb'"
    assert shorten("x" * 1000, 20) == "'" + "x" * 16 + "..."
    while deep:  # the interpreter would free it recursively
        deep = deep.pop()


# --- plain values


def test_builds_nested_dataclasses() -> None:
    config = parse_config(CheckpointConfig, SAVED, where="c", error=CheckpointError)
    assert config.spec == DataSpec(channels=3, height=6, width=5, class_names=("ant", "bee"))
    assert parse_config(VAEConfig, asdict(VAEConfig()), where="c", error=CheckpointError) == VAEConfig()
    assert parse_config(VAEConfig, {"beta": 2}, where="c", error=CheckpointError).beta == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"colour": 1},
            "c.colour: unknown field; allowed: data_sha256, family, format_version, model, recipe, scores, spec, ",
        ),
        ({"__pydantic_config__": {}}, "c.__pydantic_config__: unknown field"),
        ({"a\nb": 1}, "c.a b: unknown field"),
        ({"spec": {**SPEC, "depth": 1}}, "c.spec.depth: unknown field; allowed: channels, class_names, height, width"),
        ({"spec": {}}, "c.spec.channels: missing field"),
        ({"spec": {**SPEC, "channels": "3"}}, "c.spec.channels: input should be a valid integer, got '3'"),
        ({"spec": {**SPEC, "channels": 3.0}}, "c.spec.channels: input should be a valid integer, got 3.0"),
        ({"spec": {**SPEC, "channels": True}}, "c.spec.channels: input should be a valid integer, got True"),
        ({"spec": {**SPEC, "channels": 0}}, "c.spec.channels: must be an integer from 1 to 64, got 0"),
        ({"spec": {**SPEC, "class_names": "ab"}}, "c.spec.class_names: input should be a valid"),
        ({"spec": {**SPEC, "class_names": ["a", 1]}}, "c.spec.class_names.1: input should be a valid string, got 1"),
        ({"spec": {**SPEC, "class_names": ["a", "a"]}}, "c.spec.class_names: must not repeat"),
        ({"spec": None}, "c.spec: input should be an object, got None"),
        ({"spec": [1]}, "c.spec: input should be an object"),
        ({"model": 1}, "c.model: input should be"),
        ({"format_version": True}, "c.format_version: input should be a valid integer"),
        ({"family": None}, "c.family: input should be a valid string, got None"),
        ({"versions": {"a": 1}}, "c.versions.a: input should be a valid string"),
        ({"scores": {"a": [1, float("nan")]}}, "c.scores.a.1: must be plain .*finite.*, got nan"),
        ({"scores": {"a": float("inf")}}, "c.scores.a: must be plain .*, got inf"),
        ({"scores": {"a": {1, 2}}}, "c.scores.a: must be plain .*, got {1, 2}"),
        ({"scores": {(1, 2): 3}}, "c.scores: must be plain"),
        ({"family": "x", "spec": 1, "model": 2}, r"c.model: .* \(and 1 more\)"),
    ],
)
def test_each_wrong_field_is_one_line_with_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{message}") as caught:
        parse_config(CheckpointConfig, {**SAVED, **change}, where="c", error=CheckpointError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("values", [None, 1, "text", [], [SAVED], True, object(), b"bytes", float("nan")])
def test_other_values_than_a_dict_are_refused(values: Any) -> None:
    with pytest.raises(RecipeError, match="^file: "):
        parse_config(CheckpointConfig, values, where="file", error=RecipeError)


def test_deep_and_circular_values_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    circular: dict[str, Any] = {}
    circular["self"] = circular
    nested: dict[str, Any] = {}
    for _ in range(500):
        nested = {"a": nested}
    for values in (deep, circular, nested):
        with pytest.raises(CheckpointError, match="^c"):
            parse_config(CheckpointConfig, {**SAVED, "model": values}, where="c", error=CheckpointError)


# --- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": \xff\xfe}', "not valid JSON"),
        (b"\x80\x04\x95", "not valid JSON"),  # the start of a pickle
        (b'{"a": 1, "a": 1}', "a key stands twice"),
        (b'{"b": {"a": 1, "a": 2}}', "a key stands twice"),
        (b'{"b": ' + b"[" * 200_000, "not valid JSON"),
        (b'{"b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b'{"b": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1]", "must hold a JSON object, got .1."),
        (b"null", "must hold a JSON object, got None"),
        (b"NaN", "must hold a JSON object, got nan"),
        (b"{" + b" " * MAX_CONFIG_BYTES + b"}", "larger than 1048576 bytes"),
    ],
)
def test_malformed_json_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}") as caught:
        read_json(path, error=CheckpointError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_reads_what_json_writes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SAVED, indent=2))
    assert read_json(path, error=CheckpointError) == SAVED
    (tmp_path / "link.json").symlink_to("config.json")
    assert read_json(tmp_path / "link.json", error=CheckpointError) == SAVED


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "dangling", "loop", "below a file", "long", "null"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str, no_hang: None) -> None:
    path = tmp_path / "config.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        path.write_text("{}")
        path = path / "config.json"
    elif kind == "long":
        path = tmp_path / ("a" * 300)
    elif kind == "null":
        path = tmp_path / "a\0b"
    with pytest.raises(DataError, match="no such file|cannot be read"):
        read_bounded(path, 10, error=DataError)


def test_length_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10, error=DataError) == b"x" * 10
    with pytest.raises(DataError, match="larger than 9 bytes"):
        read_bounded(path, 9, error=DataError)


def test_unique_keys() -> None:
    assert unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="twice"):
        unique_keys([("a", 1), ("a", 1)])
