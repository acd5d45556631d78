"""What benchmarks measure: medians of the times of sides that take turns, and memory."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

Row = tuple[str, float, float, str]  # what is measured, seconds of genaug, seconds of the rival (or NaN), the aim


def take_turns(repeats: int, *sides: Callable[[], float]) -> list[float]:
    """Return the median seconds of each side over `repeats` rounds, after one round that does not count.

    >>> take_turns(3, lambda: 1.0, lambda: 2.0)
    [1.0, 2.0]
    """
    rounds = [[side() for side in sides] for _ in range(repeats + 1)][1:]
    return [median(times) for times in zip(*rounds, strict=True)]


def time_call(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes, with what it queues on a GPU.

    >>> time_call(lambda: None) < 1
    True
    """
    _wait_for_gpu()
    began = time.perf_counter()
    work()
    _wait_for_gpu()
    return time.perf_counter() - began


def per_step(times: list[float]) -> float:
    """Return the median seconds between the ends of two steps, after the first two, which warm up.

    >>> per_step([0.0, 9.0, 10.0, 12.0, 13.0])
    1.0
    """
    return median(after - before for before, after in pairwise(times[1:]))


def time_training(recipe: Any, data: Any) -> float:
    """Return the seconds of a step of training by a recipe on labeled images, on the CPU."""
    from genaug.training import train  # which processes that measure memory do without

    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe,
            data=data,
            output=Path(folder, "run"),
            device="cpu",
            progress=False,
            on_step=lambda step: times.append(time.perf_counter()),
        )
    return per_step(times)


def time_process(code: str) -> float:
    """Return the seconds that a Python process takes to run `code`."""
    return time_call(lambda: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL))


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def read_memory() -> dict[str, int]:
    """Return the sizes in bytes that Linux tells of this process, such as `VmRSS`; nothing elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith(" kB")}
