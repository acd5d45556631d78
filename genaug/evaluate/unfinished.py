"""The state of a run that is not done, from which a comparison that was cut off goes on."""

import re
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from genaug.errors import GenaugError, ResumeWarning, shorten
from genaug.storage import new_file

STATE = r"[0-9a-f]{16}\.safetensors"  # names of files
INTERVAL = 60.0  # seconds between two states of a run, or more where it takes long to write one
SHARE = 0.05  # of the time, to write them


class Unfinished:
    """The file that holds the state of a run while it is trained, and how long that took.

    The state is that of the network and of the optimizer, as their `state_dict` tells it.

    Args:
        path: where the state is kept; None keeps none.

    >>> run = Unfinished(None)
    >>> run.restore(nn.Linear(2, 2), torch.optim.SGD([torch.zeros(1)]))
    0
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._before, self._began = 0.0, time.perf_counter()
        self._due = self._began + INTERVAL

    @property
    def seconds(self) -> float:
        """What the run took, with what it took before it was cut off, up to the state it went on from."""
        return self._before + time.perf_counter() - self._began

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Take over the state that was kept, if there is one, and return how many steps it has behind it.

        Raises:
            GenaugError: a file that cannot be read, holds no state, or that of another network.
        """
        if self.path is None or not self.path.exists():
            return 0
        state = _read(self.path)
        try:
            net.load_state_dict({name[4:]: value for name, value in state.items() if name.startswith("net.")})
            _restore_optimizer(optimizer, state)
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, IndexError) as problem:
            raise GenaugError(
                f"{self.path} must hold a state of this classifier, got {shorten(str(problem), 200)}; delete it to "
                "begin its run anew, or overwrite the comparison if the classifier has changed"
            ) from None
        self._before = float(state["seconds"])
        return int(state["step"])

    def save_in_time(self, net: nn.Module, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        """Keep the state after `step` steps, whole or not at all, if the last one is old.

        Where that fails, as the disk is full, there is a `ResumeWarning`, and the last state stays.
        """
        now = time.perf_counter()
        if self.path is None or now < self._due:
            return
        try:
            self._save(self.path, net, optimizer, step=step)
        except Exception as problem:  # also of what is no tensor, which other networks may have in their state
            warnings.warn(f"the state of a run was not kept ({problem}); it goes on", ResumeWarning, stacklevel=3)
        took = time.perf_counter() - now
        self._due = now + took + max(INTERVAL, took / SHARE)

    def _save(self, path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        from safetensors.torch import save

        state = {"step": torch.tensor(step), "seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        state |= {f"net.{name}": value for name, value in net.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        content = save(
            {  # clones, since weights may be shared
                name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()
            }
        )
        with new_file(path) as file:
            file.write(content)


def count_steps(path: Path) -> int:
    """Return how many steps the state in `path` has behind it; 0 where there is none.

    Raises:
        GenaugError: a file that cannot be read, or holds no state.
    """
    return int(_read(path)["step"]) if path.exists() else 0


def list_states(folder: Path) -> list[Path]:
    """Return the states in a folder, which need not be there."""
    return sorted(path for path in folder.glob("*.safetensors") if re.fullmatch(STATE, path.name))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left of a state that it was writing."""
    for path in folder.glob(".genaug.tmp-*"):
        path.unlink(missing_ok=True)


def remove_states(folder: Path) -> None:
    """Remove the states in a folder, and the folder unless something else is in it."""
    remove_leftovers(folder)
    for path in list_states(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    for name, value in state.items():
        if not name.startswith("optimizer."):
            continue
        _, index, key = name.split(".", 2)
        parameter = optimizer.param_groups[0]["params"][int(index)]
        if value.shape == parameter.shape:  # as the optimizer lays it out, which a fused step relies on
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        whole["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(whole)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as problem:
        raise GenaugError(f"{path} cannot be read ({type(problem).__name__}: {shorten(str(problem), 160)})") from None
    try:
        state: dict[str, Tensor] = load(content)
        if not {"step", "seconds"} <= state.keys():
            raise ValueError(f"{shorten(list(state))}")
    except (SafetensorError, ValueError) as problem:
        raise GenaugError(
            f"{path} must hold the state of a run, got {shorten(str(problem), 160)}; delete it to begin its run anew"
        ) from None
    return state
