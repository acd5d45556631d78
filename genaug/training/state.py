"""Everything that a run needs to go on exactly: model, EMA, optimizer and step, in new `step-N` directories."""

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from genaug.checkpoint import describe_tensors, read_tensors, write_tensors
from genaug.config import parse_config, read_json
from genaug.errors import CheckpointError
from genaug.models import Model
from genaug.storage import new_directory

TENSORS = "state.safetensors"
FACTS = "state.json"


@dataclass(frozen=True)
class StateFacts:
    """What `state.json` holds beside the tensors."""

    step: int
    sha256: str
    best_step: int | None = None
    best_distance: float | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Best:
    """The averaged weights whose samples were nearest to real images so far, after which step, and how near."""

    step: int
    distance: float
    tensors: dict[str, Tensor]


@dataclass
class TrainingState:
    """A model in training with its average, its optimizer, the number of steps done, and the best average so far."""

    model: Model
    ema: AveragedModel
    optimizer: torch.optim.AdamW
    step: int = 0
    best: Best | None = None

    @property
    def averaged(self) -> Model:
        """The averaged model."""
        return self.ema.module  # type: ignore[return-value]

    def keep_if_best(self, distance: float) -> Best:
        """Remember the averaged weights where `distance` is the least so far, and return the best."""
        if self.best is None or distance < self.best.distance:
            tensors = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
            self.best = Best(self.step, distance, tensors)
        return self.best

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state under one flat set of names."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._moments(parameter).items():
                tensors[f"optimizer.{name}.{key}"] = value
        if self.best is not None:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best.tensors.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over `tensors`, named and shaped as `tensors()` gives them."""
        with torch.no_grad():
            self.model.load_state_dict(_part(tensors, "model."))
            self.ema.load_state_dict(_part(tensors, "ema."))
            for name, parameter in self.model.named_parameters():
                for key, value in self._moments(parameter).items():
                    value.copy_(tensors[f"optimizer.{name}.{key}"])

    def _moments(self, parameter: Tensor) -> dict[str, Tensor]:
        # AdamW makes these at its first step; making them here gives a state that can be saved and restored before it.
        moments = self.optimizer.state[parameter]
        if not moments:
            moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            moments["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            moments["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return moments  # type: ignore[no-any-return]


def save_state(states: Path, state: TrainingState, *, keep: int) -> Path:
    """Write `states/step-N`, whole or not at all, and remove all but the newest `keep`.

    Raises:
        GenaugError: the disk is full or not writable; earlier states stay.
    """
    directory = states / f"step-{state.step}"
    if not directory.exists():
        with new_directory(directory, last=FACTS) as aside:
            sha256 = write_tensors(aside / TENSORS, state.tensors())
            best = state.best
            facts = StateFacts(state.step, sha256, *((None, None) if best is None else (best.step, best.distance)))
            values = asdict(facts)
            (aside / FACTS).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for old in list_states(states)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return directory


def list_states(states: Path) -> list[Path]:
    """Return the state directories in `states`, oldest first."""
    if not states.is_dir():
        return []
    found = [path for path in states.iterdir() if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def read_facts(directory: Path) -> StateFacts:
    """Return the facts of a saved state.

    Raises:
        CheckpointError: a missing or malformed file.
    """
    path = directory / FACTS
    facts = parse_config(StateFacts, read_json(path, error=CheckpointError), where=str(path), error=CheckpointError)
    if directory.name != f"step-{facts.step}":
        raise CheckpointError(f"{path}: step must be that of its directory {directory.name}, got {facts.step}")
    if (facts.best_step is None) != (facts.best_distance is None):
        raise CheckpointError(f"{path}: best_step and best_distance must both be given, or both be null")
    return facts


def load_state(directory: Path, state: TrainingState) -> None:
    """Restore `state` from a saved one of the same recipe and data.

    Raises:
        CheckpointError: tensors that are damaged or do not fit.
    """
    facts = read_facts(directory)
    expected = describe_tensors(state.tensors())
    if facts.best_step is not None:
        expected |= describe_tensors({f"best.{name}": value for name, value in state.averaged.state_dict().items()})
    try:
        tensors = read_tensors(directory / TENSORS, expected, sha256=facts.sha256, told_in=FACTS)
    except CheckpointError as problem:
        raise CheckpointError(f"{problem}; remove {directory} to go on from the state before it") from None
    state.restore(tensors)
    if facts.best_step is not None and facts.best_distance is not None:
        state.best = Best(facts.best_step, facts.best_distance, _part(tensors, "best."))
    state.step = facts.step


def remove_leftovers(states: Path) -> None:
    """Remove directories that a killed process left half-written."""
    for path in states.glob(".step-*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
