"""What a comparison of arms prints: what the search chose, the arms beside the rival, and what that says."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from genaug.data import LabeledImages
from genaug.evaluate import Comparison
from genaug.evaluate.pieces import Piece
from genaug.evaluate.search import Choice
from genaug.workflows.benchmarks import Benchmark
from genaug.workflows.reports import make_table, say


def print_choice(choice: Choice, kind: str, *, train: LabeledImages, fraction: float) -> None:
    """Print what each arm's settings gave on the validation part."""
    table = make_table("arm", "best", "of", title=f"{kind}, on {fraction:g} of the {len(train)} training images")
    for name, scores in sorted(choice.scores.items(), key=lambda item: -max(item[1])):
        table.add_row(name, f"{100 * max(scores):.1f}", " ".join(f"{100 * score:.1f}" for score in scores))
    Console().print(table)


def print_utility(comparison: Comparison, benchmark: Benchmark, pieces: Mapping[str, Piece], *, part: str) -> None:
    """Print the arms, the best first, how they were measured, and what that says."""
    columns = ("accuracy", "balanced_accuracy", "scarce_third", "worst_class", "geometric_mean", "macro_f1")
    table = make_table(
        "arm", "accuracy", "balanced", "scarce third", "worst", "G-mean", "F1", "calibration error", "difference"
    )
    summary = comparison.to_dict()["summary"]
    for arm in sorted(summary, key=lambda name: -summary[name]["balanced_accuracy"]["mean"]):
        figures = summary[arm]
        gap = figures.get("difference")
        cells = [_show(figures[name]) for name in (*columns, "calibration_error")]
        table.add_row(arm, *cells, "rival" if arm == comparison.rival else _interval(gap) if gap else "")
    Console().print(table)
    say(
        f"In percent on {comparison.settings['test_images']} images ({part}), mean ± standard deviation over "
        f"{benchmark.seeds} seeds; {benchmark.trials} settings of every arm were tried on validation images, and the "
        f"rival, {comparison.rival}, is the best there without samples of ours. difference: paired, in balanced "
        "accuracy, with its 95 % interval over seeds and test images.",
        *sentences(comparison, pieces),
    )


def sentences(comparison: Comparison, pieces: Mapping[str, Piece]) -> list[str]:
    """Return a sentence on each arm with samples of ours; where the interval holds 0 it claims nothing."""
    words = {"gain": "raises", "loss": "lowers"}
    found = []
    for arm in comparison.arms:
        if arm == comparison.rival or not any(pieces[part].synthetic for part in arm.split("+") if part in pieces):
            continue
        gap = comparison.difference(arm)
        change = words.get(gap.verdict)
        start = f"{arm} {change} balanced accuracy over" if change else f"{arm}: no measurable difference to"
        found.append(f"{start} {comparison.rival}: {_interval(vars(gap))} points.")
    return found


def _show(figures: Mapping[str, float | None]) -> str:
    deviation = figures["std"]
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * (figures['mean'] or 0.0):.1f}{spread}"


def _interval(gap: Mapping[str, Any]) -> str:
    return f"{100 * gap['mean']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
