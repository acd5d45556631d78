"""Compare arms: the same classifier under each of them, with paired seeds, one after another or side by side."""

import csv
import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from genaug.bank import SampleBank
from genaug.bank.drawing import hash_source, name_source
from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataWarning, GenaugError, ResumeWarning, check_count, shorten
from genaug.evaluate.arms import Arm, Budget
from genaug.evaluate.checks import check_arms
from genaug.evaluate.comparison import Comparison, make_table_rows
from genaug.evaluate.fitting import check_classifier
from genaug.evaluate.jobs import Task, describe_environment, run_tasks
from genaug.evaluate.parts import check_classes, check_parts
from genaug.evaluate.stored import read_runs
from genaug.evaluate.unfinished import STATE, count_steps, list_states, remove_leftovers, remove_states
from genaug.models import SmallCNN
from genaug.progress import progress_bar
from genaug.seeding import check_seed
from genaug.storage import LOCK, check_vacant, expand, hold, write_json, write_text

UNFINISHED = ".unfinished"  # a folder beside results
OWN_FILES = rf"\.(json|csv)|\{UNFINISHED}/{STATE}"  # what follows the name of results in their files

Train = LabeledImages | Callable[[int], LabeledImages]


def compare_arms(
    arms: Mapping[str, Arm],
    *,
    train: Train,
    test: LabeledImages,
    rival: str,
    seeds: int | Sequence[int] = 5,
    budget: Budget = Budget(),  # noqa: B008  (it is frozen)
    classifier: Callable[[Any], nn.Module] = SmallCNN,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    device: str | torch.device | None = None,
    progress: bool = True,
    on_step: Callable[[], None] | None = None,
) -> Comparison:
    """Train the same classifier under every arm with the same budget and seeds, and score it on held-out real images.

    Args:
        arms: name -> arm.
        train: the training part, or a function of the seed that draws it.
        test: held-out real images; used once per arm and seed, with the weights of the last step.
        rival: name of the arm that the others are compared with.
        seeds: the seeds of the paired repetitions, or their number for seeds 0, 1, ...
        budget: of every arm.
        classifier: makes a new network from a `DataSpec`: public images (N, C, H, W) -> logits (N, classes).
        output: JSON file that is rewritten after every run, and a CSV file of the same name beside it; new ones.
        resume: go on from `output`, where it exists, with the runs that are missing there, and within those that were
            cut off. Their states, kept every minute, lie beside it in a folder NAME.unfinished until all are done: what
            `state_dict` tells of network and optimizer, so that nothing else may change in the course of a training.
        overwrite: replace an existing `output`.
        jobs: runs at once, each in a process of its own with its share of the processor's cores; arms, classifier and a
            function `train` must then be importable by name, as pickle asks.
        device: where to train; a GPU if there is one, else the CPU.
        progress: show a progress bar.
        on_step: called after every training step of a classifier, where `jobs` is 1.

    Raises:
        GenaugError: an unknown rival, no arms, no seeds, jobs below 1, an `output` that exists, is of another
            comparison to resume, or that another process writes to; a classifier that does not give a logit for each
            class; a loss that cannot be used.
        DataError: train and test of different formats or classes, without images, of fewer than two classes, or sharing
            an image; what `check_arms` refuses, such as a bank that does not fit, or holds images of the test part.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> result = compare_arms(
    ...     {"plain": Arm(), "balanced": Arm(balanced=True)}, train=digits, test=load_data("digits", split="test"),
    ...     rival="balanced", seeds=2, budget=Budget(steps=3), progress=False,
    ... )
    >>> sorted(result.to_dict()["summary"])
    ['balanced', 'plain']
    """
    if rival not in arms:
        raise GenaugError(f"rival must be one of the arms {shorten(list(arms))}, got {shorten(rival)}")
    jobs = check_count(jobs, name="jobs")
    seeds, where = list_seeds(seeds), choose_device(device)
    results = None if output is None else expand(output)
    if results is not None and results.suffix.lower() == ".csv":
        raise GenaugError(f"output must be a JSON file, beside which a CSV file is written, got {results}")
    if results is not None and not (resume and results.exists()):
        beside = [".csv"] if resume else [".csv", UNFINISHED]
        for path in (results, *map(results.with_suffix, beside)):
            check_vacant(path, overwrite=overwrite, resumable=not resume)
    first = train(seeds[0]) if callable(train) else train
    check_parts(first, test)
    check_classes(first, test)
    check_arms(arms, first, test)
    mixed = any(arm.mix is not None for arm in arms.values())
    check_classifier(classifier, first, device=where, batch_size=budget.batch_size, floats=mixed)
    settings = {
        "seeds": seeds,
        **asdict(budget),
        "classifier": describe(classifier),
        "arms": {name: describe_arm(arm) for name, arm in arms.items()},
        "train": describe(train) if callable(train) else None,
        "train_sha256": first.fingerprint(),
        "train_counts": first.counts,
        "test_sha256": test.fingerprint(),
        "test_images": len(test),
    }
    comparison = Comparison(rival, test.spec.class_names, test.targets, settings)
    shared = {"train": train, "test": test, "classifier": classifier, "budget": budget, "device": where}
    run_missing = partial(_run_missing, comparison, arms, shared, first, jobs=jobs, progress=progress, on_step=on_step)
    if results is None:
        run_missing()
        return comparison
    with hold(results, results.with_name(f".{results.name}{LOCK}")):
        known = _take_up(comparison, results, resume=resume, environment=describe_environment(where))
        run_missing(on_run=lambda: write_results(results, comparison), known=known)
        remove_states(results.with_suffix(UNFINISHED))
    return comparison


def _take_up(comparison: Comparison, results: Path, *, resume: bool, environment: str) -> dict[tuple[str, int], Path]:
    """Add the runs in `results` to `comparison`, and return where the state of each run (arm, seed) is kept.

    Without `resume` nothing is taken up, and states are removed. No states are kept of what could not be recognized.
    """
    settings, states = comparison.settings, results.with_suffix(UNFINISHED)
    described = {"classifier": settings["classifier"], "train": settings["train"], **settings["arms"]}
    unclear = [name for name, words in described.items() if re.search(r"<(lambda|locals)>| object>", str(words))]
    if not resume:
        remove_states(states)
    elif unclear and (results.exists() or list_states(states)):
        raise GenaugError(
            f"runs cannot be resumed where {shorten(unclear)} hold a lambda, a function within another, or an object "
            "without a repr that tells its values, which cannot be recognized again; define it in a module"
        )
    elif results.exists():
        comparison.runs.extend(read_runs(results, comparison, environment=environment))
        if comparison.runs:
            write_results(results, comparison)  # of what was kept, the rival may be another
    known = {} if unclear else _name_states(comparison, states, environment=environment)
    remove_leftovers(states)
    others = [path for path in list_states(states) if path not in known.values()]
    if others:
        warnings.warn(
            f"{states} holds {len(others)} states of runs with other settings, or in another environment than "
            f"{environment}: nothing goes on from them, and they are removed when all runs are done",
            ResumeWarning,
            stacklevel=3,
        )
    return known


def _run_missing(
    comparison: Comparison,
    arms: Mapping[str, Arm],
    shared: dict[str, Any],
    first: LabeledImages,
    *,
    jobs: int,
    progress: bool,
    on_step: Callable[[], None] | None,
    on_run: Callable[[], None] | None = None,
    known: Mapping[tuple[str, int], Path] = MappingProxyType({}),
) -> None:
    """Add the runs to `comparison` that it lacks.

    `first` is the training part of the first seed, and `known` tells where the state of each run (arm, seed) is kept.
    """
    seeds, done = comparison.settings["seeds"], {(run["arm"], run["seed"]) for run in comparison.runs}
    missing = [(name, seed) for seed in seeds for name in arms if (name, seed) not in done]
    tasks = [Task(name, arms[name], seed, known.get((name, seed))) for name, seed in missing]
    steps = shared["budget"].steps
    total = len(seeds) * len(arms) * steps
    ended = total - len(tasks) * steps + sum(count_steps(task.state) for task in tasks if task.state)
    with progress_bar("comparing", total=total, done=ended, enabled=progress) as update:
        for run in run_tasks(tasks, shared, {seeds[0]: first}, jobs=jobs, update=update, on_step=on_step):
            comparison.runs.append(run)
            if run.get("diverged"):
                warnings.warn(
                    f"arm {run['arm']!r}, seed {run['seed']}: the classifier diverged, and is scored as one that knows "
                    "nothing; lower the learning rate before you believe a difference to it",
                    DataWarning,
                    stacklevel=3,
                )
            if on_run is not None:
                on_run()
            state = known.get((run["arm"], run["seed"]))
            if state is not None and state.exists():
                state.unlink()


def write_results(path: Path, comparison: Comparison) -> None:
    """Write a comparison as JSON to `path`, and a row for each run as CSV beside it."""
    rows = make_table_rows(comparison)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_json(path, comparison.to_dict())
    write_text(path.with_suffix(".csv"), text.getvalue())


def describe_arm(arm: Arm) -> dict[str, str]:
    """Return the fields of an arm that are not as in `Arm()`, in words that are the same in every process."""
    plain = Arm()
    return {
        field.name: describe(getattr(arm, field.name))
        for field in fields(arm)
        if getattr(arm, field.name) is not getattr(plain, field.name)
        and getattr(arm, field.name) != getattr(plain, field.name)
    }


def describe(value: Any) -> str:
    """Return a value in words, without addresses in memory; a bank or model with the hash of what it holds."""
    if isinstance(value, SampleBank):
        known = value.provenance.images_sha256  # none of a bank in memory
        return f"bank {known or hashlib.sha256(value.images(range(len(value))).numpy().tobytes()).hexdigest()}"
    if isinstance(value, nn.Module) and hasattr(value, "sample"):
        return f"model of family {name_source(value)} {hash_source(value)}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name_states(comparison: Comparison, folder: Path, *, environment: str) -> dict[tuple[str, int], Path]:
    """Return where the state of each run is kept: elsewhere for another arm, seed or budget, and for other data."""
    settings = dict(comparison.settings)
    arms, seeds = settings.pop("arms"), settings.pop("seeds")
    found = {}
    for name, seed in product(arms, seeds):
        text = json.dumps([settings, name, arms[name], seed, environment], sort_keys=True)
        found[name, seed] = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    return found


def list_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return seeds as they are given, or 0, 1, ... for their number.

    Raises:
        GenaugError: no seeds, one twice, or something else among them.

    >>> list_seeds(3)
    [0, 1, 2]
    """
    try:
        listed = [check_seed(seed) for seed in (seeds if isinstance(seeds, Iterable) else range(check_seed(seeds)))]
    except GenaugError:
        listed = []
    if not listed or len(set(listed)) != len(listed):
        raise GenaugError(f"seeds must be at least one integer, none twice, got {shorten(seeds)}")
    return listed
