"""The state of a run that is not done, from which a comparison that was cut off goes on."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genaug.errors import GenaugError, shorten
from genaug.storage import new_file

INTERVAL = 60.0  # seconds between two states of a run


class Unfinished:
    """The file that holds the state of a run while it is trained, and how long that took.

    Args:
        path: where the state is kept; None keeps none.

    >>> run = Unfinished(None)
    >>> run.restore(nn.Linear(2, 2), torch.optim.SGD([torch.zeros(1)]))
    0
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._before, self._began = 0.0, time.perf_counter()
        self._saved = self._began

    @property
    def seconds(self) -> float:
        """What the run took, with what it took before it was cut off, up to the state it went on from."""
        return self._before + time.perf_counter() - self._began

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Take over the state that was kept, if there is one, and return how many steps it has behind it.

        Raises:
            GenaugError: a file that holds no state, or that of another network.
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

        Raises:
            GenaugError: the disk is full or not writable; the last state stays.
        """
        if self.path is None or time.perf_counter() - self._saved < INTERVAL:
            return
        state = {"step": step, "seconds": self.seconds, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
        with new_file(self.path) as file:
            torch.save(state, file)
        self._saved = time.perf_counter()


def count_steps(path: Path) -> int:
    """Return how many steps the state in `path` has behind it; 0 where there is none.

    Raises:
        GenaugError: a file that holds no state.
    """
    return int(_read(path, mmap=True)["step"]) if path.exists() else 0


def _read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        if not {"step", "seconds", "net", "optimizer"} <= state.keys():
            raise ValueError(f"{shorten(state)}")
    except Exception as problem:  # torch has many for a damaged file
        words = shorten(str(problem).split("\n")[0], 160)
        raise GenaugError(
            f"{path} must hold the state of a run, got {type(problem).__name__}: {words}; delete it to begin its run "
            "anew"
        ) from None
    return state  # type: ignore[no-any-return]
