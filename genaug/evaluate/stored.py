"""Results of a comparison that was cut off, read again."""

import json
import warnings
from pathlib import Path
from typing import Any

from genaug.errors import GenaugError, ResumeWarning, shorten
from genaug.evaluate.comparison import Comparison


def read_results(path: Path) -> Comparison:
    """Return the comparison that was written to `path`.

    Raises:
        GenaugError: a file that is not there, or no such results.
    """
    try:
        comparison = Comparison.from_dict(json.loads(path.read_text()))
        runs = {(run["arm"], run["seed"]) for run in comparison.runs}
        if unknown := {arm for arm, _ in runs} - comparison.settings["arms"].keys():
            raise ValueError(f"runs of arms that are not described: {shorten(unknown)}")
        return comparison
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise GenaugError(f"{path} must hold the results of a comparison, got {shorten(problem)}") from None


def read_runs(path: Path, comparison: Comparison, *, environment: str) -> list[dict[str, Any]]:
    """Return the runs in `path` of the same comparison; warn where some were made in another environment than now.

    Raises:
        GenaugError: results of other data, another budget, classifier, or arms of the same names that differ; runs of
            arms or seeds that are not asked for now, which would be lost.
    """
    found = read_results(path)
    asked, before = comparison.settings, found.settings
    same = {name: value for name, value in asked.items() if name not in ("seeds", "arms")}
    different = [name for name, value in same.items() if before.get(name) != value]
    arms = before.get("arms", {})
    different += [f"arm {name!r}" for name in asked["arms"] if name in arms and arms[name] != asked["arms"][name]]
    if different:
        raise GenaugError(
            f"{path} holds results of another comparison (different: {', '.join(different)}); give the same "
            "arguments to resume, another output, or overwrite it"
        )
    lost = [run for run in found.runs if run["arm"] not in asked["arms"] or run["seed"] not in asked["seeds"]]
    if lost:
        names = sorted({f"{run['arm']}, seed {run['seed']}" for run in lost})
        raise GenaugError(
            f"{path} holds {len(lost)} runs that are not asked for now, such as {names[0]}; ask for these arms and "
            "seeds too, or choose another output"
        )
    others = {run["environment"] for run in found.runs if run.get("environment", environment) != environment}
    if others:
        warnings.warn(
            f"{path} holds runs made by {', '.join(sorted(others))}, and the others will be by {environment}: the same "
            "seeds may not give the same figures, so that differences between arms are not of the arms alone",
            ResumeWarning,
            stacklevel=4,
        )
    return found.runs
