"""Plain values (from YAML or JSON) to dataclasses, strictly: a wrong field is one line with its path and the rule."""

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from genaug.errors import GenaugError, shorten

T = TypeVar("T")

MAX_CONFIG_BYTES = 1 << 20


def parse_config(cls: type[T], values: Any, *, where: str, error: type[GenaugError]) -> T:
    """Return a `cls` (a dataclass) made of the plain `values`, without conversion between types.

    Args:
        cls: a dataclass whose `__pydantic_config__` forbids extra fields.
        values: what YAML or JSON holds: dicts, lists, numbers, strings, booleans, None.
        where: start of the path that messages give, such as a file's name.
        error: the class of error to raise.

    Raises:
        error: an unknown, missing or wrong field; the message gives its path and what is allowed.

    >>> from genaug.errors import RecipeError
    >>> from genaug.spec import DataSpec
    >>> parse_config(DataSpec, {"channels": 3}, where="spec", error=RecipeError).channels
    3
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        path, value = _find_strange(values, [])
        raise error(
            f"{_place(where, path)}: must be plain (text, true, false, a finite number, a list or named fields), "
            f"got {shorten(value)}"
        ) from None
    try:
        return _adapter(cls).validate_json(text, strict=True)  # type: ignore[arg-type, no-any-return]
    except ValidationError as problem:
        lines = list(_explain(problem, cls))
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        path, message = lines[0]
        raise error(f"{_place(where, path)}: {message}{more}") from None


def _place(where: str, path: list[str]) -> str:
    names = path if len(path) <= 8 else [*path[:4], "...", *path[-3:]]
    return ".".join([where, *map(printable, names)])


def printable(name: str) -> str:
    """Return the name of a field as it can stand in a message: short, and without control characters.

    >>> printable("width"), printable("\\0")
    ('width', "'\\\\x00'")
    """
    name = " ".join(name.splitlines())
    return name if name.isprintable() and len(name) <= 40 else shorten(name)


@cache
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _find_strange(values: Any, path: list[str]) -> tuple[list[str], Any]:
    """Return the path and value of the first part that JSON cannot hold."""
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in parts:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return _find_strange(value, [*path, str(key)])
        except RecursionError:
            return [*path, str(key)], value
    return path, values


def _explain(problem: Any, cls: type) -> Iterator[tuple[list[str], str]]:
    for item in problem.errors():
        path = [str(part) for part in item["loc"]]
        if item["type"] == "unexpected_keyword_argument":
            known = sorted(_fields_at(cls, path[:-1]))
            yield path, f"unknown field; allowed: {', '.join(known)}"
        elif item["type"] == "missing":
            yield path, "missing field"
        elif item["type"] == "value_error":
            name, _, rule = str(item["ctx"]["error"]).partition(" ")
            yield ([*path, name], rule) if name in _fields_at(cls, path) else (path, f"{name} {rule}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            yield path, f"{message}, got {shorten(item['input'])}"


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    for part in path:
        cls = next((field.type for field in _fields(cls) if field.name == part), None)
    return [field.name for field in _fields(cls)]


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def read_json(path: Path, *, error: type[GenaugError]) -> dict[str, Any]:
    """Return the JSON object in `path`, at most 1 MiB long, whose keys do not repeat.

    Raises:
        error: a missing, larger or malformed file, or one that holds something else.
    """
    text = read_bounded(path, MAX_CONFIG_BYTES, error=error)
    try:
        values = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise error(f"{path}: must hold a JSON object, got {shorten(values)}")
    return values


def read_bounded(path: Path, limit: int, *, error: type[GenaugError]) -> bytes:
    """Return what the regular file `path` holds, or raise `error` where it is missing or longer than `limit` bytes."""
    try:
        if not path.is_file():
            raise error(f"{path}: no such file")
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    if len(text) > limit:
        raise error(f"{path}: larger than {limit} bytes, the most that such a file may have")
    return text


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return `pairs` as a dict, refusing a key that stands twice (for `json.loads(object_pairs_hook=...)`)."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values
