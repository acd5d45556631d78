"""The runs of a comparison: one after another, or side by side in processes of their own."""

import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from genaug import __version__
from genaug.data import LabeledImages
from genaug.errors import GenaugError
from genaug.evaluate.arms import Arm
from genaug.evaluate.checks import check_mixing, watch_maker
from genaug.evaluate.fitting import train_classifier
from genaug.evaluate.generators import Trained
from genaug.evaluate.parts import check_classes, check_parts
from genaug.evaluate.scoring import score_classifier
from genaug.evaluate.unfinished import Unfinished
from genaug.progress import Update


@dataclass(frozen=True)
class Task:
    """A run that is to be made: an arm by its name, a seed, and the file that keeps its state until it is done."""

    name: str
    arm: Arm
    seed: int
    state: Path | None = None


def run_tasks(
    tasks: Sequence[Task],
    shared: Mapping[str, Any],
    parts: dict[int, LabeledImages],
    *,
    jobs: int,
    update: Update,
    on_step: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the runs of tasks as they are done.

    Args:
        tasks: what to run.
        shared: what all need: `train`, `test`, `classifier`, `budget`, `device`.
        parts: the training part of a seed, where it was drawn already.
        jobs: how many at once.
        update: of a progress bar, which counts steps.
        on_step: called after every step, where `jobs` is 1.

    Raises:
        GenaugError: what cannot be sent to other processes; a process that died.
    """
    if jobs > 1 and len(tasks) > 1:
        yield from _run_side_by_side(tasks, shared, jobs=min(jobs, len(tasks)), update=update)
        return

    def advance() -> None:
        update()
        if on_step is not None:
            on_step()

    for task in tasks:
        update(0, description=f"seed {task.seed}: {task.name}")
        yield _run(task, shared, parts, on_step=advance)


def _run(
    task: Task, shared: Mapping[str, Any], parts: dict[int, LabeledImages], *, on_step: Callable[[], None]
) -> dict[str, Any]:
    unfinished = Unfinished(task.state)
    if task.seed not in parts:
        parts.clear()
        train = shared["train"]
        parts[task.seed] = train(task.seed) if callable(train) else train
        check_parts(parts[task.seed], shared["test"])
        check_classes(parts[task.seed], shared["test"])
    part, test, device = parts[task.seed], shared["test"], shared["device"]
    if callable(shared["train"]):  # else it was checked before
        check_mixing(task.arm, part, where=f"arm {task.name!r}, seed {task.seed}")
    net, counts = train_classifier(
        watch_maker(task.arm, test, name=task.name),
        part,
        classifier=shared["classifier"],
        budget=shared["budget"],
        seed=task.seed,
        device=device,
        on_step=on_step,
        unfinished=unfinished,
    )
    scores = score_classifier(net, test.images, test.labels, counts=part.counts, device=device)
    about = {"seconds": round(unfinished.seconds, 2), "environment": describe_environment(device)}
    return {"arm": task.name, "seed": task.seed, **scores, "counts": counts, **about}


def describe_environment(device: torch.device) -> str:
    """Return what the figures of a run depend on besides its settings: versions, and the kind of processor."""
    on_gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if on_gpu else f"CPU with {torch.backends.cpu.get_cpu_capability()}"
    return f"genaug {__version__}, torch {torch.__version__}, {processor}"


PATIENCE = 10.0  # seconds for a worker to end
REFRESH = 0.5  # seconds between two looks at how many steps the workers have made

_payload: list[Any] = []  # of a worker process: what all runs share, in bytes, and its pixels, until it is read
_shared: dict[str, Any] = {}
_parts: dict[int, LabeledImages] = {}
_steps: Any = None  # made by all workers together


class _Pickler(pickle.Pickler):
    """Leaves out the pixels that are mapped from the disk, for other processes to map them too."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.pixels: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not (type(value) is Tensor and value.dtype == torch.uint8 and value.is_cpu and value.is_shared()):
            return None
        self.pixels.append(value)
        return len(self.pixels) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, pixels: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._pixels = pixels

    def persistent_load(self, place: int) -> Tensor:
        return self._pixels[place]


def _pack(shared: Mapping[str, Any]) -> list[Any]:
    pickler = _Pickler(file := io.BytesIO())
    pickler.dump(dict(shared))
    return [file.getvalue(), pickler.pixels]


def _prepare(payload: list[Any], threads: int, steps: Any) -> None:
    global _payload, _steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _payload, _steps = payload, steps


def _count_step() -> None:
    with _steps.get_lock():
        _steps.value += 1


def _end_with_parent() -> None:
    """End this process when the one that started it does, also where that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(name: str, seed: int, state: Path | None) -> dict[str, Any]:
    try:  # by hand, what the executor would do with its arguments, but for an error that can be told
        if _payload:
            _shared.update(_Unpickler(io.BytesIO(_payload[0]), _payload[1]).load())
            _payload.clear()  # which the executor holds on to
    except (ImportError, AttributeError) as problem:
        raise GenaugError(
            f"with jobs above 1 arms, classifier and train must be importable in other processes, got: {problem}; "
            "define them in a module, or use jobs=1"
        ) from None
    try:
        return _run(Task(name, _shared["arms"][name], seed, state), _shared, _parts, on_step=_count_step)
    except KeyboardInterrupt:  # of a training within, which has saved its state: the executor would go on
        os._exit(128 + signal.SIGINT)


def _run_side_by_side(
    tasks: Sequence[Task], shared: Mapping[str, Any], *, jobs: int, update: Update
) -> Iterator[dict[str, Any]]:
    try:
        payload = _pack({**shared, "arms": {task.name: task.arm for task in tasks}})
    except Exception as problem:
        raise GenaugError(
            f"with jobs above 1 arms, classifier and train must be picklable, got {problem}; use jobs=1, or "
            "define them in a module"
        ) from None
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    steps, seen = context.Value("q", 0), 0
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare, initargs=(payload, threads, steps))
    try:
        ordered = order_tasks(tasks, jobs=jobs)
        waiting: set[Future[dict[str, Any]]] = {
            pool.submit(_run_here, task.name, task.seed, task.state) for task in ordered
        }
        payload.clear()  # all processes have started
        while waiting:
            done, waiting = wait(waiting, timeout=REFRESH, return_when=FIRST_COMPLETED)
            made = steps.get_obj().value  # without the lock, which a worker that died may hold
            update(made - seen)
            seen = made
            for future in sorted(done, key=lambda one: one.exception() is not None):  # an error loses no run beside it
                run = future.result()
                update(0, description=f"seed {run['seed']}: {run['arm']}")
                yield run
    except BrokenProcessPool:
        raise GenaugError(
            "a process of a run died, perhaps for want of memory (use fewer jobs), or since a script compares arms "
            "without if __name__ == '__main__'; resume with what is done"
        ) from None
    finally:
        _stop(pool)


def order_tasks(tasks: Sequence[Task], *, jobs: int) -> list[Task]:
    """Return tasks in the order of their seeds, but so that few wait for a generator that another one trains.

    Of each seed the first task that trains one comes early, while there is still something to do that needs none: for
    the first seed at once, for the next `jobs - 1` seeds before those that use the generator of the first.

    >>> generator = Trained("digits-vae")
    >>> arms = {"plain": Arm(), "a": Arm(source=generator), "b": Arm(source=generator)}
    >>> tasks = [Task(name, arm, seed) for seed in range(3) for name, arm in arms.items()]
    >>> [f"{task.name}{task.seed}" for task in order_tasks(tasks, jobs=2)]
    ['a0', 'plain0', 'a1', 'b0', 'plain1', 'a2', 'b1', 'plain2', 'b2']
    """
    groups = [list(group) for _, group in groupby(tasks, key=lambda task: task.seed)]
    training = [[task for task in group if _trains(task.arm.source)] for group in groups]
    ordered = [task for group in training[:1] for task in group[:1]]
    ahead = 1
    for index, group in enumerate(groups):
        ordered += [task for task in group if not _trains(task.arm.source)]
        ordered += [task for others in training[ahead : index + jobs] for task in others[:1]]
        ahead = index + jobs
        ordered += training[index][1:]
    return ordered


def _trains(source: Any) -> bool:
    return isinstance(source, Trained) or isinstance(getattr(source, "trained", None), Trained)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: what they have not finished is not wanted any more."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(PATIENCE)
        worker.kill()
        worker.join()
