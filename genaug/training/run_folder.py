"""The folder of a run: what is in it, what makes it fit to be resumed, and what may be replaced."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from genaug.config import parse_config, printable, read_json
from genaug.errors import CheckpointError, DataError, GenaugError, RecipeError, ResumeWarning, shorten
from genaug.storage import (
    LOCK,
    check_folder,
    check_vacant,
    clear_own_files,
    explain_write_errors,
    hold,
    write_json,
    write_text,
)
from genaug.training.state import list_states, remove_leftovers

RUN = "run.json"
RECIPE = "recipe.yaml"
STATES = "states"
MODEL = "model"
OWN_FILES = (
    r"run\.json|recipe\.yaml|metrics\.jsonl|tensorboard/events\.out\.tfevents\.[^/]*|samples/(step-\d+|final)\.png"
    r"|states/step-\d+/state\.(json|safetensors)|model/(config\.json|model\.safetensors|README\.md)"
)


@dataclass(frozen=True)
class RunFacts:
    """What `run.json` holds: the recipe with every field, hashes of the data and of the weights of the model that it
    started from, and how many processes trained.
    """

    recipe: dict[str, Any]
    data_sha256: str
    processes: int = 1
    start_sha256: str | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@contextmanager
def own_folder(folder: Path, facts: RunFacts, *, resume: bool, overwrite: bool) -> Iterator[Path | None]:
    """Make `folder` ready for a run, keep other processes out of it, and yield the state to start from, if any.

    Raises:
        RecipeError, DataError: the run to resume had another recipe or other data.
        GenaugError: a folder that exists, is in use, holds anything but a run, or cannot be written to.
    """
    with explain_write_errors(folder):
        if not (folder / RUN).is_file() and not (folder / LOCK).is_file():
            _check_new(folder, overwrite=overwrite)
    with hold(folder, folder / LOCK):
        yield _prepare(folder, facts, resume=resume, overwrite=overwrite)


def _check_new(folder: Path, *, overwrite: bool) -> None:
    check_folder(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        raise GenaugError(f"{folder}: holds something else than a training run, which is never overwritten")


def _prepare(folder: Path, facts: RunFacts, *, resume: bool, overwrite: bool) -> Path | None:
    marker = folder / RUN
    with explain_write_errors(folder):
        if resume and marker.is_file():
            _check_same(folder, facts)
            remove_leftovers(folder / STATES)
            return next(reversed(list_states(folder / STATES)), None)
        if any(path.name != LOCK for path in folder.iterdir()):
            check_vacant(folder, overwrite=overwrite, resumable=marker.is_file())
        _try_disk(folder, json.dumps(asdict(facts)))
        clear_own_files(folder, OWN_FILES, last=RUN)
        write_json(marker, asdict(facts))
        write_text(folder / RECIPE, yaml.safe_dump(facts.recipe, sort_keys=False))
    return None


def _try_disk(folder: Path, text: str) -> None:
    """Raise a `GenaugError` where nothing can be written, before the old run is removed."""
    probe = folder / f".{RUN}.tmp-new"
    with explain_write_errors(folder, kept=True):
        try:
            probe.write_text(text)
        finally:
            probe.unlink(missing_ok=True)


def _check_same(folder: Path, facts: RunFacts) -> None:
    path = folder / RUN
    saved = parse_config(RunFacts, read_json(path, error=CheckpointError), where=str(path), error=CheckpointError)
    difference = _first_difference(saved.recipe, facts.recipe)
    if difference:
        raise RecipeError(f"{folder}: the run to resume has another recipe: {difference}")
    if saved.data_sha256 != facts.data_sha256:
        raise DataError(
            f"{folder}: the run to resume had other data; give the same data, not drawn at random, or a new output"
        )
    if saved.start_sha256 != facts.start_sha256:
        raise RecipeError(
            f"{folder}: the run to resume started from another model, with weights of hash "
            f"{shorten(saved.start_sha256, 14)}, not {shorten(facts.start_sha256, 14)}; give the same start"
        )
    if saved.processes != facts.processes:
        size = facts.recipe["training"]["batch_size"]
        before, now = saved.processes * size, facts.processes * size
        warnings.warn(
            f"{folder}: began with {saved.processes} processes ({before} images a step) and goes on with "
            f"{facts.processes} ({now}): the result will be that of neither",
            ResumeWarning,
            stacklevel=2,
        )
        write_json(path, asdict(facts))


def _first_difference(saved: Any, given: Any, path: str = "") -> str:
    if isinstance(saved, dict) and isinstance(given, dict):
        for key in sorted(saved.keys() | given.keys()):
            name = f"{path}.{printable(key)}" if path else printable(key)
            found = _first_difference(saved.get(key), given.get(key), name)
            if found:
                return found
        return ""
    return "" if saved == given else f"{path} was {shorten(saved)}, is now {shorten(given)}"
