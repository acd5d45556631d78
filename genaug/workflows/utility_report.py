"""What a comparison of arms prints: what the search chose, the arms beside the rival, and what that says."""

from collections.abc import Mapping

from rich.console import Console

from genaug.data import LabeledImages
from genaug.evaluate import Comparison
from genaug.evaluate.pieces import RIVAL, Piece
from genaug.evaluate.search import Choice
from genaug.workflows.benchmarks import Benchmark
from genaug.workflows.reports import make_table, percent, say

COLUMNS = {  # heading -> metric
    "accuracy": "accuracy",
    "scarce": "scarce_third",
    "worst": "worst_class",
}


def print_choice(choice: Choice, kind: str, *, train: LabeledImages, fraction: float) -> None:
    """Print what each arm's settings gave on the validation part."""
    table = make_table("arm", "best", "of", title=f"{kind}, on {fraction:g} of the {len(train)} training images")
    for name in choice.ranking:
        scores = choice.scores[name]
        table.add_row(_spaced(name), f"{100 * max(scores):.1f}", " ".join(f"{100 * score:.1f}" for score in scores))
    Console().print(table)


def print_utility(
    comparison: Comparison, benchmark: Benchmark, pieces: Mapping[str, Piece], *, part: str, favorite: str | None = None
) -> None:
    """Print the arms, the best first, how they were measured, and what that says."""
    table = make_table("arm", "balanced", *COLUMNS, "difference")
    table.columns[1].no_wrap = table.columns[-1].no_wrap = True
    summary = comparison.to_dict()["summary"]
    for arm in sorted(summary, key=lambda name: -summary[name]["balanced_accuracy"]["mean"]):
        figures = summary[arm]
        gap = comparison.difference(arm).points if "difference" in figures else ""
        cells = [f"{100 * figures[name]['mean']:.1f}" for name in COLUMNS.values()]
        difference = "rival" if arm == comparison.rival else gap
        table.add_row(_spaced(arm), percent(figures["balanced_accuracy"]), *cells, difference)
    Console().print(table)
    say(
        f"In percent on {comparison.settings['test_images']} images ({part}), mean (± standard deviation) over "
        f"{benchmark.seeds} seeds: balanced accuracy, accuracy, mean recall of the scarce third of the classes, recall "
        "of the worst class. difference: paired, in balanced accuracy, with its 95 % interval over seeds and test "
        f"images. {_tell_choice(comparison, benchmark)}",
        *sentences(comparison, pieces, favorite=favorite),
    )


def _tell_choice(comparison: Comparison, benchmark: Benchmark) -> str:
    if benchmark.rival is not None:
        return f"Every arm has its default settings; the rival, {comparison.rival}, was named."
    on_top = any(RIVAL in arm.split("+") for arm in comparison.arms)
    return (
        f"{benchmark.trials} settings of every arm were tried on validation images; the rival, {comparison.rival}, was "
        "the best there without samples of ours."
        + (" Arms on top of the rival began from its best setting there." if on_top else "")
    )


def is_synthetic(name: str, pieces: Mapping[str, Piece]) -> bool:
    """Tell whether an arm mixes in samples of ours."""
    return any(piece.synthetic for piece in list_pieces(name, pieces))


def list_pieces(name: str, pieces: Mapping[str, Piece]) -> list[Piece]:
    """Return the pieces that the name of an arm names."""
    return [pieces[part] for part in name.split("+") if part in pieces]


def sentences(comparison: Comparison, pieces: Mapping[str, Piece], *, favorite: str | None = None) -> list[str]:
    """Return a sentence on each arm with samples of ours; where the interval holds 0 it claims nothing.

    The best of several intervals is no 95 % interval, so all of several arms but the favorite, the best of them on
    validation images, are marked as exploratory.
    """
    words = {"gain": "raises", "loss": "lowers"}
    arms = [arm for arm in comparison.arms if arm != comparison.rival and is_synthetic(arm, pieces)]
    other = f"one of {len(arms)} arms" if favorite is None else f"on validation images {favorite} was better"
    found = []
    for arm in arms:
        gap = comparison.difference(arm)
        note = "" if arm == favorite or len(arms) == 1 else f" (exploratory: {other})"
        change = words.get(gap.verdict)
        start = f"{arm} {change} balanced accuracy over" if change else f"{arm}: no measurable difference to"
        found.append(f"{start} {comparison.rival}: {gap.points} points{note}.")
    return found


def _spaced(arm: str) -> str:
    """Return the name of an arm with places to break it."""
    return arm.replace("+", " +")
