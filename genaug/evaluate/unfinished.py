"""The state of a run that is not done, from which a comparison that was cut off goes on."""

import io
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genaug.errors import GenaugError, ResumeWarning, shorten
from genaug.storage import new_file

STATE = r"[0-9a-f]{16}\.pt"  # names of files
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
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as problem:
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
        state = {"step": step, "seconds": self.seconds, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
        buffer = io.BytesIO()  # torch would hide what fails when it writes to the disk
        torch.save(state, buffer)
        try:
            with new_file(self.path) as file:
                file.write(buffer.getbuffer())
        except GenaugError as problem:
            warnings.warn(f"the state of a run was not kept ({problem}); it goes on", ResumeWarning, stacklevel=3)
        took = time.perf_counter() - now
        self._due = now + took + max(INTERVAL, took / SHARE)


def count_steps(path: Path) -> int:
    """Return how many steps the state in `path` has behind it; 0 where there is none.

    Raises:
        GenaugError: a file that cannot be read, or holds no state.
    """
    return int(_read(path)["step"]) if path.exists() else 0


def list_states(folder: Path) -> list[Path]:
    """Return the states in a folder, which need not be there."""
    return sorted(path for path in folder.glob("*.pt") if re.fullmatch(STATE, path.name))


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


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as problem:
        raise GenaugError(f"{path} cannot be read ({type(problem).__name__}: {shorten(str(problem), 160)})") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not {"step", "seconds", "net", "optimizer"} <= state.keys():
            raise ValueError(f"{shorten(state)}")
    except Exception as problem:  # torch has many for a damaged file
        words = shorten(str(problem).split("\n")[0], 160)
        raise GenaugError(
            f"{path} must hold the state of a run, got {type(problem).__name__}: {words}; delete it to begin its run "
            "anew"
        ) from None
    return state  # type: ignore[no-any-return]
