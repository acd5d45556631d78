"""Results of a comparison that was cut off, read again."""

import json
from pathlib import Path
from typing import Any

from genaug.errors import GenaugError, shorten
from genaug.evaluate.comparison import Comparison


def read_results(path: Path) -> Comparison:
    """Return the comparison that was written to `path`.

    Raises:
        GenaugError: a file that is not there, or no such results.
    """
    try:
        return Comparison.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise GenaugError(f"{path} must hold the results of a comparison, got {shorten(problem)}") from None


def read_runs(path: Path, comparison: Comparison) -> list[dict[str, Any]]:
    """Return the runs in `path` of the same comparison; those of seeds or arms that are not asked for now are left out.

    Raises:
        GenaugError: results of other data, another budget, classifier, or arms of the same names that differ.
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
    return [run for run in found.runs if run["arm"] in asked["arms"] and run["seed"] in asked["seeds"]]
