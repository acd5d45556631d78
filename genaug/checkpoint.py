"""State dict and JSON to and from a directory: strict, atomic, and in constant memory on hostile files.

A checkpoint is a directory with `model.safetensors`, `config.json` and `README.md`. Nothing in it is imported or run.
The format of the tensor file: https://github.com/huggingface/safetensors#format
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from genaug.config import MAX_CONFIG_BYTES, parse_config, read_json, unique_keys
from genaug.errors import CheckpointError, check_choice, shorten
from genaug.spec import DataSpec
from genaug.storage import hash_file, new_directory

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 20

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


WeightsDtype = Literal["float32", "float16", "bfloat16"]
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class CheckpointConfig:
    """What `config.json` holds: enough to build the model again, and the hash of its weights."""

    family: str
    model: dict[str, Any]
    spec: DataSpec
    weights_sha256: str
    weights_dtype: WeightsDtype = "float32"  # that 32-bit weights are kept as in the file
    format_version: int = FORMAT_VERSION
    recipe: dict[str, Any] | None = None
    data_sha256: str | None = None  # of what it was trained on, held-out images included
    scores: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class TensorInfo:
    """Dtype, shape and place (bytes from the start of the file) of a tensor in a safetensors file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def describe_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return dtype and shape of each tensor, as `read_tensors` expects them; meta tensors will do."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def round_tensors(tensors: Mapping[str, Tensor], dtype: WeightsDtype) -> dict[str, Tensor]:
    """Return `tensors` with those of float32 as `dtype`.

    Raises:
        GenaugError: another dtype.
    """
    check_choice(dtype, get_args(WeightsDtype), name="weights_dtype")
    rounded: torch.dtype = getattr(torch, dtype)
    return {name: one.to(rounded) if one.dtype == torch.float32 else one for name, one in tensors.items()}


def make_header(layout: Layout) -> tuple[bytes, dict[str, TensorInfo]]:
    """Return the head of a safetensors file that holds tensors of this `layout` in this order, and their places."""
    offsets = [0]
    for dtype, shape in layout.values():
        offsets.append(offsets[-1] + math.prod(shape) * dtype.itemsize)
    spans = {name: list(span) for name, span in zip(layout, pairwise(offsets), strict=True)}
    entries = {
        name: {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": spans[name]}
        for name, (dtype, shape) in layout.items()
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    head = len(text).to_bytes(8, "little") + text
    places = {name: TensorInfo(*layout[name], *(len(head) + end for end in span)) for name, span in spans.items()}
    return head, places


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return what a safetensors file says it holds, checked against the file's size, without reading any tensor.

    Raises:
        CheckpointError: a file that is missing, truncated, too long, or whose header is malformed.
    """
    with _opened(path) as file:
        return _parse_header(path, file)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        with path.open("rb") as file:
            yield file
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be read ({problem.strerror})") from None


def _parse_header(path: Path, file: BufferedReader) -> dict[str, TensorInfo]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise CheckpointError(f"{path}: not a complete safetensors file (header of {length} bytes)")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=unique_keys)  # no other encoding
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: damaged header ({shorten(str(problem))})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: damaged header (not an object)")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError(f"{path}: damaged header (__metadata__ must be an object of texts)")
    tensors = {name: _tensor_info(path, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != end:
            raise CheckpointError(f"{path}: damaged header (tensors overlap or leave gaps)")
        end = info.end
    if end != size:
        raise CheckpointError(f"{path}: must be {end} bytes long by its header, got {size}; truncated or damaged")
    return tensors


def _tensor_info(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    try:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        start, end = entry["data_offsets"]
        valid = set(entry) == {"dtype", "shape", "data_offsets"} and isinstance(shape, list) and len(shape) <= 16
        valid = valid and all(type(number) is int and 0 <= number < 2**48 for number in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path}: damaged entry for tensor {shorten(name)}") from None
    if not valid or end - start != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"{path}: damaged entry for tensor {shorten(name)}")
    return TensorInfo(dtype, tuple(shape), base + start, base + end)


def check_layout(path: Path, header: Mapping[str, TensorInfo], expected: Layout) -> None:
    """Check the names, dtypes and shapes of a tensor file's `header` against what is `expected`.

    Raises:
        CheckpointError: a missing or unexpected tensor, or one of another dtype or shape.
    """
    missing, unexpected = sorted(expected.keys() - header.keys()), sorted(header.keys() - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: tensors do not match the config; missing {shorten(missing)}, unexpected {shorten(unexpected)}"
        )
    for name, (dtype, shape) in expected.items():
        info = header[name]
        if (info.dtype, info.shape) != (dtype, shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} must be {dtype} {list(shape)}, got {info.dtype} {list(info.shape)}"
            )


def read_tensors(path: Path, expected: Layout, *, sha256: str, told_in: str = CONFIG) -> dict[str, Tensor]:
    """Read a safetensors file whose names, dtypes, shapes and hash must be the expected ones; checked before reading.

    `told_in` is the name of the file that the hash is from.

    Raises:
        CheckpointError: anything that differs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    with _opened(path) as file:  # once: another file that takes its place in the meantime is never mixed in
        check_layout(path, _parse_header(path, file), expected)
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"{path}: hash {found[:12]} differs from {shorten(sha256[:12])} in {told_in}; "
                "the file was changed, or its writing was cut short"
            )
        file.seek(0)
        try:
            return load(file.read())  # not memory-mapped: a file cut short later would kill the process
        except SafetensorError as problem:
            raise CheckpointError(f"{path}: cannot be read ({shorten(str(problem))})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write contiguous copies of `tensors` as a safetensors file and return its hash.

    Raises:
        OSError: the disk is full or not writable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as problem:
        raise OSError(errno.EIO, str(problem), str(path)) from problem
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
    return hash_file(path)


def read_checkpoint_config(directory: Path) -> CheckpointConfig:
    """Return what `config.json` in `directory` says, checked field by field.

    Raises:
        CheckpointError: no such directory or file, unknown or wrong fields.
    """
    if not os.path.isdir(directory):  # unlike Path.is_dir, False for a name that is too long
        raise CheckpointError(f"{directory}: no such directory")
    path = directory / CONFIG
    values = read_json(path, error=CheckpointError)
    version = values.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:  # first, since other versions may have other fields
        raise CheckpointError(
            f"{path}.format_version: must be {FORMAT_VERSION}, got {shorten(version)}; it was written by another "
            "version of genaug"
        )
    return parse_config(CheckpointConfig, values, where=str(path), error=CheckpointError)


def write_checkpoint(
    directory: Path, config: CheckpointConfig, tensors: Mapping[str, Tensor], card: str, *, overwrite: bool = False
) -> None:
    """Write a checkpoint; `directory` appears whole. The hash in `config` is replaced by that of the weights written.

    Raises:
        GenaugError: `directory` exists and `overwrite` is not set, the disk is full, or `config` could not be read.
    """
    _encode(config, card, sha256="0" * 64)  # before anything is written
    with new_directory(directory, overwrite=overwrite, last=CONFIG) as aside:
        sha256 = write_tensors(aside / WEIGHTS, tensors)
        texts = _encode(config, card, sha256=sha256)
        (aside / CONFIG).write_bytes(texts[0])
        (aside / CARD).write_bytes(texts[1])


def _encode(config: CheckpointConfig, card: str, *, sha256: str) -> tuple[bytes, bytes]:
    try:
        values = {**asdict(config), "spec": config.spec.to_dict(), "weights_sha256": sha256}
        text = (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
        encoded_card = card.encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise CheckpointError(f"{CONFIG} and {CARD} must hold plain values that JSON can hold ({problem})") from None
    if len(text) > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{CONFIG} must be at most {MAX_CONFIG_BYTES} bytes long, got {len(text)}; shorten names")
    return text, encoded_card
