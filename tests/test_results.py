"""Raw results of benchmarks are those of their recipes, and where all runs are done, the figures of the README."""

import csv
import re
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from genaug import DataSpec
from genaug.evaluate.comparison import make_table_rows
from genaug.evaluate.pieces import Piece, build_on, compose_arms, rival_pieces
from genaug.evaluate.runs import describe_arm
from genaug.evaluate.stored import read_results
from genaug.workflows.benchmarks import Benchmark, load_benchmark
from genaug.workflows.model_pieces import model_pieces

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "recipes/results").glob("*/results.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table_of(name: str) -> dict[str, list[str]]:
    """Cells of the README's table behind the words "`genaug evaluate utility NAME", by arm."""
    text = README.split("## What is measured")[1].split(f"`genaug evaluate utility {name} ")[1]
    lines = text[text.index("\n|") :].strip().split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.sub("[`*]", "", arm): cells for arm, *cells in rows}


def seeds_of(benchmark: Benchmark) -> list[int]:
    return list(range(benchmark.seed, benchmark.seed + benchmark.seeds))


def pieces_of(name: str, benchmark: Benchmark, folder: Path) -> dict[str, Piece]:
    side = 32 if "cifar10" in name else 28  # crops depend on it; there are none of solar
    spec = DataSpec(1, side, side, ("a", "b"))
    return {**rival_pieces(spec), **model_pieces(benchmark, bank=None, cache=folder)}


def test_there_are_results():
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
class TestResults:
    def test_they_are_of_the_recipe(self, path: Path, tmp_path: Path) -> None:
        benchmark = load_benchmark(path.parent.name)
        found = read_results(path)
        pieces = pieces_of(path.parent.name, benchmark, tmp_path)
        gone = [arm for arm in found.settings["arms"] if set(arm.split("+")) - {*pieces, "plain", "rival"}]
        assert [arm for arm in found.settings["arms"] if arm not in gone] == list(benchmark.arms)
        assert {name: found.settings[name] for name in vars(benchmark.budget)} == vars(benchmark.budget)
        assert found.settings["seeds"] == seeds_of(benchmark)
        assert {(run["arm"], run["seed"]) for run in found.runs} <= set(
            product(found.settings["arms"], seeds_of(benchmark))
        )

    def test_every_arm_has_a_setting_that_the_recipe_tries(self, path: Path, tmp_path: Path) -> None:
        benchmark, found = load_benchmark(path.parent.name), read_results(path)
        tried = partial(compose_arms, trials=benchmark.trials, budget=benchmark.budget, seed=benchmark.seed)
        pieces = pieces_of(path.parent.name, benchmark, tmp_path)
        best = [arm for arm in tried(found.rival, pieces) if describe_arm(arm) == found.settings["arms"][found.rival]]
        pieces["rival"] = build_on(best[0])
        for name in benchmark.arms:
            assert found.settings["arms"][name] in [describe_arm(arm) for arm in tried(name, pieces)]

    def test_table_has_the_same_scores(self, path: Path) -> None:
        with path.with_suffix(".csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows == [{key: str(value) for key, value in row.items()} for row in make_table_rows(read_results(path))]

    def test_readme_has_the_same_figures(self, path: Path) -> None:
        comparison, benchmark = read_results(path), load_benchmark(path.parent.name)
        if len(comparison.runs) < len(comparison.settings["arms"]) * len(seeds_of(benchmark)):
            assert f"evaluate utility {path.parent.name} " not in README.split("## What is measured")[1]
            return
        table = table_of(path.parent.name)
        assert sorted(table) == sorted(comparison.arms)
        for arm, figures in comparison.to_dict()["summary"].items():
            scores = figures["balanced_accuracy"]
            wanted = [f"{100 * scores['mean']:.1f} ± {100 * scores['std']:.1f}"]
            wanted += [f"{100 * figures[name]['mean']:.1f}" for name in ("accuracy", "scarce_third", "worst_class")]
            gap = figures.get("difference")
            if gap is None:
                wanted.append("the rival")
            else:
                low, high = 100 * gap["low"], 100 * gap["high"]
                wanted.append(f"{100 * gap['mean']:+.1f} ({low:+.1f} to {high:+.1f})")
            assert table[arm] == wanted
