"""Damaged and hostile files: each loads to what it says, or is one error of ours; no hang, no memory, no code run.

`pytest --nightly tests/fuzz` tries thousands of examples of each kind, drawn anew (`--hypothesis-seed=N` repeats a
run); the suite tries the same few every time.
"""

import ctypes
import hashlib
import json
import math
import os
import pickle
import re
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

import genaug
from genaug import CheckpointError, DataError, DataSpec, GenaugError, RecipeError
from genaug.bank import SampleBank
from genaug.checkpoint import read_header
from genaug.models import VAE, Model, VAEConfig
from genaug.training.recipe import Recipe, load_recipe
from genaug.training.run_folder import RunFacts, own_folder
from genaug.training.state import TrainingState, load_state, save_state

SPEC = DataSpec(channels=1, height=8, width=8, class_names=("ant", "bee"))
CANARY = "canary"  # in the current directory: what a file would make if its code ran

EXAMPLES, NIGHTLY_EXAMPLES = 110, 3500  # of each of the five kinds
CPU_SECONDS, WALL_SECONDS = 10, 120  # most examples take milliseconds: these only tell a hang
MEMORY = 256 << 20  # for one example; the longest JSON that is read, 1 MiB of empty lists, takes up to half of it
MESSAGE = 600  # characters, without the path


# --- bounds


class Hang(BaseException):
    """Not an Exception, so that nothing on the way takes it for an error of its own."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise `Hang` in the block after too much time of the processor, or too long a wait."""

    def stop(number: int, frame: Any) -> None:
        raise Hang(f"still running after {CPU_SECONDS} s of the processor or {WALL_SECONDS} s")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


class PeakMemory:
    """Resident memory of this process in bytes, above where it stood; 0 where the system does not tell."""

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):  # other systems have none
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier examples have freed would hide what this one takes
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
        except OSError:
            self._start = None
        else:
            self._start = self._read("VmRSS")

    def growth(self) -> int:
        """How high the memory rose."""
        return 0 if self._start is None else self._read("VmHWM") - self._start

    def kept(self) -> int:
        """How much more there is now."""
        return 0 if self._start is None else self._read("VmRSS") - self._start

    @staticmethod
    def _read(name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) << 10


def check_message(problem: GenaugError, folder: Path) -> None:
    """One line that a terminal can show, without control characters that a file put there, of bounded length."""
    text = str(problem).replace(str(folder), "")
    assert 0 < len(text) < MESSAGE, text[:1000]
    assert text.isprintable(), ascii(text)


@dataclass
class Tally:
    """What became of the examples of a kind."""

    loaded: int = 0
    refused: int = 0
    peak: int = 0

    def attempt(self, load: Callable[[], None], folder: Path) -> None:
        memory = PeakMemory()
        try:
            with time_limit():
                load()
        except GenaugError as problem:
            check_message(problem, folder)
            self.refused += 1
        else:
            self.loaded += 1
        self.peak = max(self.peak, memory.growth())
        assert memory.growth() < MEMORY, f"{memory.growth() >> 20} MiB"
        assert not os.path.exists(CANARY), "code from the file was run"


# --- edits of bytes

PLACE = st.integers(0, 1 << 16)
EDIT = st.tuples(
    st.sampled_from(["flip", "set", "delete", "insert", "repeat", "cut", "swap"]), PLACE, PLACE, st.binary(max_size=6)
)


def edit_bytes(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for kind, place, number, some in edits:
        if not changed:
            break
        place %= len(changed)
        length = 1 + number % min(200, len(changed))
        if kind == "flip":
            changed[place] ^= 1 << number % 8
        elif kind == "set":
            changed[place] = number % 256
        elif kind == "delete":
            del changed[place : place + length]
        elif kind == "insert":
            changed[place:place] = some
        elif kind == "repeat":
            changed[place:place] = changed[place : place + length]
        elif kind == "cut":
            del changed[place:]
        else:
            other = number % len(changed)
            changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed)


# --- edits of JSON

RAW = {  # written as they stand, where the text "@raw:NAME@" would be
    "digits": "9" * 5000,
    "exponent": "1e999",
    "nan": "NaN",
    "list": "[" * 100_000 + "]" * 100_000,
    "object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "shallow": "[" * 150 + "]" * 150,
    "deeper": '{"a":' * 400 + "1" + "}" * 400,
    "many": "[" + "[]," * 300_000 + "[]]",
    "surrogate": r'"\ud800"',
    "broken": "{]",
    "nothing": "",
    "octal": "007",
}
RUN_ME = f"touch {CANARY}"
STRINGS = [
    "",
    "\0",
    "a\nb\u2028c\x85d",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnp.exe",
    "naïve ✓ 🙂",
    "x" * 10_000,
    "../../etc/passwd",
    "/dev/zero",
    "__import__('os').system('" + RUN_ME + "')",
    "!!python/object/apply:os.system",
    "os.system",
    "0" * 64,
    "vae",
    "images",
    "U8",
    "F16",
    "I64",
]
NUMBERS = [2**31, 2**47, 2**48, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 10**4200, -1, 0, 1, 1e-300, 1e300]
TEXT = st.sampled_from(STRINGS) | st.text(max_size=8)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats()
    | TEXT
    | st.sampled_from([*NUMBERS, *(f"@raw:{name}@" for name in RAW)])
)
ODD = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(TEXT, PLAIN, max_size=3)
JSON_EDIT = st.tuples(
    st.sampled_from(["replace", "replace", "replace", "delete", "rename", "add", "swap", "wrap", "scale", "twice"]),
    PLACE,
    PLACE,
    TEXT,
    ODD,
)
ENCODINGS = st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-32"])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and dicts: what holds it, and its key or index there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def edit_json(values: dict[str, Any], edits: list[Any], encoding: str) -> bytes:
    values = json.loads(json.dumps(values))
    twice = []
    for kind, place, number, name, odd in edits:
        there = list(places(values))
        if not there:
            break
        holder, key = there[place % len(there)]
        if kind == "replace":
            holder[key] = odd
        elif kind == "delete":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[name] = holder.pop(key)
        elif kind == "add" and isinstance(holder, dict):
            holder[name] = odd
        elif kind == "swap":
            other, at = there[number % len(there)]
            holder[key], other[at] = json.loads(json.dumps([other[at], holder[key]]))
        elif kind == "wrap":
            holder[key] = [holder[key]]
        elif kind == "scale" and type(holder[key]) in (int, float):
            holder[key] = holder[key] * 2 if number % 2 else -holder[key]
        elif kind == "twice" and isinstance(holder, dict):
            twice.append((number, key, odd))
    text = json.dumps(values)
    for number, key, odd in twice:
        objects = [found.end() for found in re.finditer(r'\{(?=")', text)]
        if objects:
            at = objects[number % len(objects)]
            text = f"{text[:at]}{json.dumps(key)}: {json.dumps(odd)}, {text[at:]}"
    for name, raw in RAW.items():
        text = text.replace(f'"@raw:{name}@"', raw)
    return text.encode(encoding)


# --- edits of tensor files


class Exploit:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (RUN_ME,)


def zipped_pickle() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Exploit()))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


FOREIGN = {
    "empty": b"",
    "pickle": pickle.dumps(Exploit()),
    "zip": zipped_pickle(),
    "zeros": bytes(4096),
    "length": b"\xff" * 8,
    "text": b"#!/bin/sh\n" + RUN_ME.encode(),
}
TENSOR_EDITS = ["names", "retype", "reshape", "drop", "copy", "order", "values", "offsets", "metadata", "slack"]
HARMLESS_EDIT = st.tuples(st.sampled_from(["order", "values"]), PLACE, PLACE, st.just(""), st.none())
TENSOR_EDIT = st.tuples(st.sampled_from(TENSOR_EDITS), PLACE, PLACE, TEXT, ODD)
SIZES = {"BOOL": 1, "U8": 1, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "U16": 2}
VALUES = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.0, -1.0, 1e10]


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def pack(header: bytes, payload: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + payload


def edit_tensors(data: bytes, edits: list[Any]) -> bytes:
    """Edits that give well-formed files: other names, types, shapes, orders and values of the tensors."""
    header, payload = unpack(data)
    parts = [
        (name, entry["dtype"], entry["shape"], payload[slice(*entry["data_offsets"])])
        for name, entry in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [0]))
        if name != "__metadata__"
    ]
    before: dict[str, Any] = {}
    shift = 0
    slack = b""
    for kind, place, number, text, odd in edits:
        if not parts:
            break
        place %= len(parts)
        name, dtype, shape, raw = parts[place]
        other = number % len(parts)
        if kind == "names":
            parts[place], parts[other] = (parts[other][0], *parts[place][1:]), (name, *parts[other][1:])
        elif kind == "retype":
            new = sorted(SIZES)[number % len(SIZES)]
            parts[place] = (name, new, shape, raw[: math.prod(shape) * SIZES[new]])
        elif kind == "reshape":
            shapes = [shape[::-1], [math.prod(shape)], [*shape, 1], [1, *shape], [0, *shape], [2**40, *shape]]
            parts[place] = (name, dtype, shapes[number % len(shapes)], raw)
        elif kind == "drop":
            del parts[place]
        elif kind == "copy":
            parts.append((text, dtype, shape, raw))
        elif kind == "order":
            parts.insert(other, parts.pop(place))
        elif kind == "values" and len(raw) >= 8:
            form: Any = {"F32": "<f4", "I64": "<i8"}.get(dtype, "u1")
            array = np.frombuffer(raw, form).copy()
            value = VALUES[number % len(VALUES)] if form == "<f4" else (-1, 0, 1, 255, 2**62)[number % 5]
            array[number % len(array)] = np.array(value).astype(form)
            parts[place] = (name, dtype, shape, array.tobytes())
        elif kind == "offsets":
            shift = (-8, 1, 8, 2**47)[number % 4]
        elif kind == "metadata":
            before = {"__metadata__": odd if number % 2 else {text: "pt"}}
        elif kind == "slack":
            slack = b"\0" * (number % 16)
    end, entries, chunks = 0, before, []
    for index, (name, dtype, shape, raw) in enumerate(parts):
        moved = shift if index == len(parts) - 1 else 0
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end + moved, end + len(raw) + moved]}
        end += len(raw)
        chunks.append(raw)
    return pack(edit_json(entries, [], "utf-8"), b"".join(chunks) + slack)


@dataclass(frozen=True)
class Damage:
    """What is done to a directory of a tensor file and a JSON file that holds its hash."""

    tensors: tuple[str, Any] | None
    facts: tuple[str, Any] | None
    right_hash: bool

    def apply(self, data: bytes, facts: bytes, hash_name: str) -> tuple[bytes, bytes]:
        if self.tensors is not None:
            data = self._tensors(data, *self.tensors)
        if self.right_hash:
            values = json.loads(facts)
            facts = json.dumps({**values, hash_name: hashlib.sha256(data).hexdigest()}).encode()
        if self.facts is not None:
            kind, how = self.facts
            facts = edit_bytes(facts, how) if kind == "bytes" else edit_json(json.loads(facts), *how)
        return data, facts

    @staticmethod
    def _tensors(data: bytes, kind: str, how: Any) -> bytes:
        header, payload = unpack(data)
        head = data[8 : len(data) - len(payload)]
        if kind == "bytes":
            return edit_bytes(data, how)
        if kind == "header bytes":
            return pack(edit_bytes(head, how), payload)
        if kind == "payload bytes":
            return data[: len(data) - len(payload)] + edit_bytes(payload, how)
        if kind == "header":
            return pack(edit_json(header, *how), payload)
        if kind == "length":
            return how.to_bytes(8, "little") + data[8:]
        return FOREIGN[how] if kind == "foreign" else edit_tensors(data, how)


def some(strategy: Any) -> Any:
    return st.lists(strategy, min_size=1, max_size=3)


JSON_DAMAGE = st.tuples(st.just("bytes"), some(EDIT)) | st.tuples(
    st.just("json"), st.tuples(some(JSON_EDIT), ENCODINGS)
)
TENSOR_DAMAGE = st.one_of(
    st.tuples(st.just("bytes"), some(EDIT)),
    st.tuples(st.just("header bytes"), some(EDIT)),
    st.tuples(st.just("payload bytes"), some(EDIT)),
    st.tuples(st.just("header"), st.tuples(some(JSON_EDIT), ENCODINGS)),
    st.tuples(st.just("length"), st.integers(0, 2**64 - 1) | st.integers(0, 5000)),
    st.tuples(st.just("foreign"), st.sampled_from(sorted(FOREIGN))),
    st.tuples(st.just("tensors"), some(TENSOR_EDIT)),
    st.tuples(st.just("tensors"), some(HARMLESS_EDIT)),
    st.tuples(st.just("tensors"), some(HARMLESS_EDIT)),
)
DAMAGE = st.one_of(
    st.builds(Damage, TENSOR_DAMAGE, st.none(), st.sampled_from([True, True, True, False])),
    st.builds(Damage, st.none(), JSON_DAMAGE, st.just(False)),
    st.builds(Damage, TENSOR_DAMAGE, JSON_DAMAGE, st.just(True)),
)


# --- running examples


@pytest.fixture
def try_all(
    nightly: bool, figures: list[str], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any, Callable[[Any], Callable[[], None]]], Tally]:
    """Run a function on examples: it writes the file, and returns what loads and checks it."""
    monkeypatch.chdir(tmp_path)

    def run(strategy: Any, prepare: Callable[[Any], Callable[[], None]]) -> Tally:
        tally = Tally()

        @settings(
            max_examples=NIGHTLY_EXAMPLES if nightly else EXAMPLES,
            derandomize=not nightly,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def attempt(example: Any) -> None:
            tally.attempt(prepare(example), tmp_path)

        memory = PeakMemory()
        attempt()
        kept = memory.kept()
        figures.append(
            f"{request.node.name}: {tally.loaded + tally.refused} examples, "
            f"{tally.loaded} loaded, {tally.refused} refused, "
            f"peak memory of one {tally.peak / 2**20:.1f} MiB, kept after all {kept / 2**20:.1f} MiB"
        )
        assert kept < MEMORY
        return tally

    return run


def same_bytes(tensor: Tensor, other: Tensor) -> bool:
    return (tensor.dtype, tensor.shape) == (other.dtype, other.shape) and torch.equal(
        tensor.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
    )


def same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(same_bytes(found[name], expected[name]) for name in found)


def holds(values: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether `values` are what was `given`, and defaults elsewhere."""
    return given.keys() <= values.keys() and all(values[name] == given[name] for name in given)


def make_model() -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(SPEC, VAEConfig(width=4, hidden=8, latent_dim=2)).eval()


# --- checkpoints


def check_model(model: Model, data: bytes, facts: bytes) -> None:
    """The model is what the files say, by readers of others; and it can be drawn from."""
    values = json.loads(facts)
    assert hashlib.sha256(data).hexdigest() == values["weights_sha256"]
    assert model.family == values["family"]
    assert holds(asdict(model.config), values["model"])
    assert holds(model.spec.to_dict(), values["spec"])
    assert (model.recipe, model.scores) == (values.get("recipe"), values.get("scores", {}))
    assert same_tensors(model.state_dict(), load_tensors(data))
    labels = torch.tensor([0, 1, model.null_label])
    images = model.sample(labels, generator=torch.Generator().manual_seed(0))
    assert images.shape == (3, model.spec.channels, model.spec.height, model.spec.width)
    assert ((images >= 0) & (images <= 1) | images.isnan()).all()
    extreme = max(float(tensor.abs().max()) for tensor in model.state_dict().values()) > 1e9
    with suppress(GenaugError) if extreme else nullcontext():  # they may overflow, which reaches no bank
        SampleBank.generate(model, 1, seed=0, progress=False)


def test_checkpoints(try_all: Any, tmp_path: Path) -> None:
    make_model().save(tmp_path / "model")
    weights, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    original = weights.read_bytes(), config.read_bytes()

    def prepare(damage: Damage) -> Callable[[], None]:
        data, facts = damage.apply(*original, "weights_sha256")
        weights.write_bytes(data)
        config.write_bytes(facts)

        def load() -> None:
            try:
                model = genaug.load(tmp_path / "model")
            except GenaugError:
                assert (data, facts) != original
                raise
            check_model(model, data, facts)

        return load

    tally = try_all(DAMAGE, prepare)
    assert tally.loaded > 0
    assert tally.refused > tally.loaded


# --- banks


class Noise:
    """Uniform noise of the class's own brightness."""

    spec = SPEC

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(len(labels), 1, 8, 8, generator=generator) * (labels + 1).reshape(-1, 1, 1, 1) / 2


def check_bank(bank: SampleBank, data: bytes, facts: bytes) -> None:
    values, tensors = json.loads(facts), load_tensors(data)
    assert holds(json.loads(json.dumps(bank.provenance.to_dict())), {**values, "spec": bank.spec.to_dict()})
    assert holds(bank.spec.to_dict(), values["spec"])
    assert all(rate is None or 0 <= rate <= 1 for rate in bank.provenance.acceptance)
    assert len(bank) == sum(bank.counts) == len(tensors["images"])
    assert same_bytes(bank.images(range(len(bank))), tensors["images"])
    assert same_bytes(bank.labels, tensors["labels"])
    bank.spec.check_images(bank.images(range(len(bank))))
    labels = torch.tensor([index for index, count in enumerate(bank.counts) if count])
    assert len(bank.sample(labels, generator=torch.Generator().manual_seed(0))) == len(labels)


def test_banks(try_all: Any, tmp_path: Path) -> None:
    SampleBank.generate(Noise(), [3, 4], seed=0, path=tmp_path / "bank", progress=False)
    images, provenance = tmp_path / "bank" / "images.safetensors", tmp_path / "bank" / "provenance.json"
    original = images.read_bytes(), provenance.read_bytes()

    def prepare(damage: Damage) -> Callable[[], None]:
        data, facts = damage.apply(*original, "images_sha256")
        for path, content in ((images, data), (provenance, facts)):
            path.unlink()  # what a bank has mapped stays whole
            path.write_bytes(content)

        def load() -> None:
            try:
                bank = SampleBank.open(tmp_path / "bank")
            except GenaugError:
                assert (data, facts) != original
                try:  # without the hash the other checks have to do
                    check_bank(SampleBank.open(tmp_path / "bank", verify=False), data, facts)
                except GenaugError as problem:
                    check_message(problem, tmp_path)
                raise
            assert hashlib.sha256(data).hexdigest() == bank.provenance.images_sha256
            check_bank(bank, data, facts)

        return load

    tally = try_all(DAMAGE, prepare)
    assert tally.loaded > 0
    assert tally.refused > tally.loaded


# --- states and runs


def make_state(*, steps: int = 0) -> TrainingState:
    model = make_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    state = TrainingState(model, AveragedModel(model), optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        state.ema.update_parameters(model)
        state.step += 1
    return state


def copies(state: TrainingState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def test_states(try_all: Any, tmp_path: Path) -> None:
    directory = save_state(tmp_path, make_state(steps=2), keep=1)
    tensors, path = directory / "state.safetensors", directory / "state.json"
    original = tensors.read_bytes(), path.read_bytes()
    state = make_state()

    def prepare(damage: Damage) -> Callable[[], None]:
        data, facts = damage.apply(*original, "sha256")
        tensors.write_bytes(data)
        path.write_bytes(facts)
        state.step = 0
        before = copies(state)

        def load() -> None:
            try:
                load_state(directory, state)
            except GenaugError:
                assert (data, facts) != original
                assert state.step == 0
                assert same_tensors(state.tensors(), before)
                raise
            assert {"step": 2, "sha256": hashlib.sha256(data).hexdigest()} == {
                name: value for name, value in json.loads(facts).items() if value is not None
            }
            assert state.step == 2
            assert same_tensors(state.tensors(), load_tensors(data))

        return load

    tally = try_all(DAMAGE, prepare)
    assert tally.loaded > 0
    assert tally.refused > tally.loaded


def without_nulls(values: Any) -> Any:
    """A field that is null is as good as none."""
    if not isinstance(values, dict):
        return values
    return {name: without_nulls(value) for name, value in values.items() if value is not None}


def test_runs(try_all: Any, tmp_path: Path) -> None:
    recipe = Recipe(family="vae", model=VAEConfig(width=4))
    folder, facts = tmp_path / "run", RunFacts(recipe=recipe.to_dict(), data_sha256="0" * 64)
    with own_folder(folder, facts, resume=False, overwrite=False):
        pass
    newest = save_state(folder / "states", make_state(), keep=1)
    original = (folder / "run.json").read_bytes()

    def prepare(damage: tuple[str, Any]) -> Callable[[], None]:
        kind, how = damage
        data = edit_bytes(original, how) if kind == "bytes" else edit_json(json.loads(original), *how)
        (folder / "run.json").write_bytes(data)

        def load() -> None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # another number of processes may go on
                    with own_folder(folder, facts, resume=True, overwrite=False) as found:
                        assert found == newest
            except GenaugError:
                assert data != original
                assert newest.is_dir()
                raise
            saved = without_nulls(json.loads(data))
            assert (saved["recipe"], saved["data_sha256"]) == (without_nulls(facts.recipe), facts.data_sha256)

        return load

    tally = try_all(JSON_DAMAGE, prepare)
    assert tally.refused > 0


# --- recipes

SNIPPETS = [
    f'!!python/object/apply:os.system ["{RUN_ME}"]',
    f'!!python/object/new:os.system ["{RUN_ME}"]',
    f'!!python/object/apply:subprocess.check_output [["touch", "{CANARY}"]]',
    f'!<tag:yaml.org,2002:python/object/apply:os.system> ["{RUN_ME}"]',
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1]",
    "!!binary aGVsbG8=",
    "!!int x",
    "!!set {a}",
    "!!omap [a: 1]",
    "!local 1",
    "%TAG ! tag:yaml.org,2002:python/\n---",
    "%YAML 9.9\n---",
    "&a [1, 2]",
    "*a",
    "&a {b: *a}",
    "<<: *a",
    "<<: {family: vae}",
    "<<: [{seed: 1}, {seed: 2}]",
    "<<: 3",
    "{<<: {steps: 7}, batch_size: 8}",
    "=",
    "~",
    "2001-01-01",
    "2001-13-45",
    "2001-01-01T00:00:00+99:99",
    "0001-01-01T00:00:00+23:00",
    "1:59:59",
    "1:" + "59:" * 300 + "1.0",
    "1:" * 3000 + "1",
    "0x" + "f" * 9000,
    "0b" + "1" * 9000,
    "0b_",
    "0o17",
    "017",
    "1" * 5000,
    "1" * 60_000 + "x",
    "1e" + "9" * 400,
    "2e-3",
    ".inf",
    "-.inf",
    ".nan",
    "._",
    "1_000",
    "yes",
    "[" * 3000,
    "{a: " * 3000,
    "{a: " * 60 + "1" + "}" * 60,
    "- " * 3000,
    "? " * 3000,
    "[" + "[]," * 15_000 + "]",
    "{" + ",".join(f"k{number}: " for number in range(6000)) + ", k0: 1}",
    "? [a]\n: b",
    "[a]: b",
    "'" * 999,
    '"\\ud800"',
    '"\\e[31mred": 1',
    '"\\u202egnp": 1',
    '"' + "k" * 900 + '": 1',
    "|\n  text",
    "\t- tab",
    "\ufeff",
    "\0",
    "\x85",
    "--- a\n--- b",
    "...",
    "# " + "x" * 65_000,
    "gaussian",
]
SNIPPET = st.sampled_from(SNIPPETS) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)
LINE_EDIT = st.tuples(
    st.sampled_from(["value", "value", "value", "insert", "key", "double", "drop", "swap", "indent", "flow"]),
    PLACE,
    PLACE,
    SNIPPET,
)
RECIPE_DAMAGE = st.one_of(
    st.tuples(st.just("bytes"), some(EDIT), st.just("utf-8")),
    st.tuples(st.just("lines"), some(LINE_EDIT), ENCODINGS),
    st.tuples(st.just("lines"), some(LINE_EDIT), ENCODINGS),
    st.tuples(st.just("json"), some(JSON_EDIT), ENCODINGS),  # most of JSON is YAML
    st.tuples(st.just("whole"), SNIPPET, ENCODINGS),
)
RECIPE = """\
# A recipe with every kind of field.
family: vae
seed: 3
model:
  latent_dim: 4
  width: 8
  likelihood: gaussian
  likelihood_std: 0.1
training:
  steps: 20
  batch_size: 16
  learning_rate: 2e-3
  precision: float32
"""


def edit_lines(text: str, edits: list[tuple[str, int, int, str]]) -> str:
    lines = text.splitlines()
    for kind, place, number, snippet in edits:
        place, other = place % len(lines), number % len(lines)
        line = lines[place]
        indent = line[: len(line) - len(line.lstrip())]
        if kind == "value":
            lines[place] = f"{line.partition(':')[0]}: {snippet}"
        elif kind == "insert":
            lines.insert(place, indent + snippet)
        elif kind == "key":
            lines[place] = f"{indent}{snippet}: {line.partition(':')[2]}"
        elif kind == "double":
            lines.insert(other, line)
        elif kind == "drop":
            lines[place] = ""
        elif kind == "swap":
            lines[place], lines[other] = lines[other], lines[place]
        elif kind == "indent":
            lines[place] = " " * (number % 5) + line.lstrip()
        else:
            lines[place] = f"{line.partition(':')[0]}: {{{snippet}: {line.partition(':')[2]}}}"
    return "\n".join(lines)


def check_recipe(recipe: Recipe, data: bytes) -> None:
    """Fields have their types, and the values that PyYAML alone finds in the file."""
    values = yaml.safe_load(data)
    assert values.keys() <= {"family", "seed", "model", "training"}
    groups = ((recipe, {name: values[name] for name in ("family", "seed") if name in values}),)
    groups += ((recipe.model, values.get("model", {})), (recipe.training, values.get("training", {})))
    for group, given_values in groups:
        assert given_values.keys() <= {field.name for field in fields(group)}
        for name, value in given_values.items():
            found = getattr(group, name)
            if isinstance(found, float):
                assert math.isfinite(found)
                value = float(value)  # PyYAML takes 2e-3 for text
            assert found == value
            assert isinstance(found, bool) == isinstance(value, bool)
    assert load_recipe(recipe.to_dict()) == recipe


def test_recipes(try_all: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    plain = load_recipe(
        yaml.safe_load(RECIPE) | {"training": {**yaml.safe_load(RECIPE)["training"], "learning_rate": 2e-3}}
    )

    def prepare(damage: tuple[str, Any, str]) -> Callable[[], None]:
        kind, how, encoding = damage
        if kind == "bytes":
            data = edit_bytes(RECIPE.encode(), how)
        elif kind == "lines":
            data = edit_lines(RECIPE, how).encode(encoding, "surrogatepass")
        elif kind == "json":
            data = edit_json(plain.to_dict(), how, encoding)
        else:
            data = how.encode(encoding, "surrogatepass")
        path.write_bytes(data)

        def load() -> None:
            try:
                recipe = load_recipe(path)
            except GenaugError:
                assert data != RECIPE.encode()
                raise
            check_recipe(recipe, data)

        return load

    tally = try_all(RECIPE_DAMAGE, prepare)
    assert tally.loaded > 0
    assert tally.refused > 0


# --- the checks themselves, and what they found


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (lambda: yaml.unsafe_load(SNIPPETS[0]), lambda: pickle.loads(FOREIGN["pickle"])):
        assert not os.path.exists(CANARY)
        run()
        os.remove(CANARY)


def test_hangs_and_memory_are_seen() -> None:
    memory = PeakMemory()
    np.ones(64 << 20, dtype=np.uint8)
    if Path("/proc/self/clear_refs").exists():
        assert memory.growth() > 48 << 20
    with pytest.raises(Hang), time_limit():
        _wait(signal.ITIMER_PROF)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: " + "1" * 65_000 + "x", "family: missing field"),  # took 20 s: quadratic in the digits
        ("\n".join(f"k{number}:" for number in range(9000)) + "\nk0:", "'k0' stands twice"),  # likewise in the keys
        ("seed: 1:" + "59:" * 300 + "1.0", "not valid YAML .*too large"),  # was an OverflowError
        ('family: vae\n"\\e[31m": 1', r"recipe.yaml.'\\x1b\[31m': unknown field"),  # reached the terminal as it is
        ("family: vae\n" + "k" * 900 + ": 1", "recipe.yaml.'kkk.*: unknown field"),  # was as long as the name
    ],
)
def test_recipes_that_were_trouble(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught, time_limit():
        load_recipe(tmp_path / "recipe.yaml")
    check_message(caught.value, tmp_path)


def test_rules_for_deep_fields_stay_short(tmp_path: Path) -> None:
    make_model().save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    deep = json.loads('{"a":' * 300 + "NaN" + "}" * 300)
    config.write_text(json.dumps({**json.loads(config.read_text()), "scores": deep}))
    with pytest.raises(CheckpointError, match=r"scores\.a\.a\.a\.\.\.\.\.a.*must be plain") as caught:
        genaug.load(tmp_path / "model")
    check_message(caught.value, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    model = make_model()
    model.save(tmp_path / "model")
    weights, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    tensors = load_tensors(weights.read_bytes())
    tensors["density.means"][0, 0, 0] = value
    save_file(tensors, weights)
    values = {**json.loads(config.read_text()), "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="tensor 'density.means' holds NaN or infinite values"):
        genaug.load(tmp_path / "model")
    model.load_state_dict(tensors)
    with pytest.raises(GenaugError, match="density.means must be finite to be saved"):
        model.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "header",
    [b'{"__metadata__": 1}', b'{"__metadata__": {"a": 1}}', b"\xef\xbb\xbf{}", "{}".encode("utf-16")],
)
def test_headers_that_safetensors_refuses(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x").write_bytes(pack(header, b""))
    with pytest.raises(CheckpointError, match="damaged header"):
        read_header(tmp_path / "x")
    with pytest.raises(SafetensorError):
        load_tensors(pack(header, b""))


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (-0.1, "acceptance: must be from 0 to 1"),
        (1.5, "acceptance: must be from 0 to 1"),
        # before 2.10, pydantic refuses a whole number that large before the share is looked at
        (2**63, r"acceptance(: must be from 0 to 1|\.1: input should be a valid number)"),
    ],
)
def test_acceptance_is_a_share(tmp_path: Path, rate: float, message: str) -> None:
    SampleBank.generate(Noise(), 2, seed=0, path=tmp_path / "bank", progress=False)
    path = tmp_path / "bank" / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "acceptance": [None, rate]}))
    with pytest.raises(DataError, match=message):
        SampleBank.open(tmp_path / "bank")


def _wait(timer: int) -> None:
    signal.setitimer(timer, 0.05)
    while True:
        pass


def test_what_is_whole_loads(tmp_path: Path) -> None:
    """Another order, layout or encoding of the same JSON and the same tensors makes no difference."""
    make_model().save(tmp_path / "model")
    weights, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    header, payload = unpack(weights.read_bytes())
    turned = json.dumps({"__metadata__": {"format": "pt"}, **dict(reversed(header.items()))}, indent=3) + " " * 5
    weights.write_bytes(pack(turned.encode(), payload))
    values = {**json.loads(config.read_text()), "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    config.write_bytes(json.dumps(dict(reversed(values.items())), indent="\t").encode("utf-8-sig"))
    assert same_tensors(genaug.load(tmp_path / "model").state_dict(), make_model().state_dict())
