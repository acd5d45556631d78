"""What a comparison of arms found: its runs, a summary of each arm, and differences to a rival."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import torch

from genaug.errors import GenaugError, shorten
from genaug.evaluate.intervals import Difference, paired_difference
from genaug.evaluate.scoring import unpack

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "worst_class",
    "scarce_third",
    "geometric_mean",
    "geometric_mean_specificity",
    "macro_f1",
    "calibration_error",
)


@dataclass
class Comparison:
    """The runs of a comparison: one for each arm and seed, with its scores on the test part.

    Args:
        rival: name of the arm that the others are compared with.
        class_names: of the images.
        test_labels: class index of each test image.
        settings: what was asked for.
        runs: arm, seed, scores and class counts of each.
    """

    rival: str
    class_names: tuple[str, ...]
    test_labels: list[int]
    settings: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in order."""
        return list(dict.fromkeys(run["arm"] for run in self.runs))

    def values(self, arm: str, metric: str) -> list[float]:
        """Return a metric of an arm for every seed, in order of the seeds.

        Raises:
            GenaugError: another arm or metric.
        """
        runs = self._runs(arm)
        if any(metric not in run for run in runs):
            raise GenaugError(f"metric must be one of {', '.join(METRICS)}, got {shorten(metric)}")
        return [run[metric] for run in runs]

    def _runs(self, arm: str) -> list[dict[str, Any]]:
        if arm not in self.arms:
            raise GenaugError(f"arm must be one that was run, {shorten(self.arms)}, got {shorten(arm)}")
        return sorted((run for run in self.runs if run["arm"] == arm), key=lambda run: run["seed"])

    def recall(self, arm: str) -> list[float]:
        """Return the recall of each class, as the mean over seeds; NaN for a class without test images."""
        rows = [run["recall"] for run in self._runs(arm)]
        return [float("nan") if None in column else fmean(column) for column in zip(*rows, strict=True)]

    def difference(self, arm: str, *, to: str | None = None, metric: str = "balanced_accuracy") -> Difference:
        """Return the paired difference of `arm` to another one, with its interval; see `paired_difference`.

        The interval covers what differs between the seeds of this comparison, and which images of the kind were tested.
        Seeds bring chance in training and, where `train` and the source of an arm are functions of the seed, the draw
        of the training part and the generator; with fixed ones it says nothing about other draws. Draws from one pool
        overlap, which makes the interval too short (Nadeau & Bengio 2003).

        Args:
            arm: name of the arm.
            to: name of the other one; the rival without it.
            metric: "accuracy" or "balanced_accuracy".

        Raises:
            GenaugError: another arm or metric, fewer than two seeds, or other seeds of one arm than of the other.
        """
        other = self.rival if to is None else to
        seeds = [[run["seed"] for run in self._runs(name)] for name in (arm, other)]
        if seeds[0] != seeds[1]:
            raise GenaugError(f"arms must have runs of the same seeds, got {arm!r} {seeds[0]} and {other!r} {seeds[1]}")
        ours, theirs = (tuple(run["correct"] for run in self._runs(name)) for name in (arm, other))
        return _difference(ours, theirs, tuple(self.test_labels), metric)

    def to_dict(self) -> dict[str, Any]:
        """Return settings, a summary of each arm that is complete, and all runs, as plain values."""
        complete = [arm for arm in self.arms if len(self._runs(arm)) >= len(self.settings["seeds"])]
        summary = {arm: self._summarize(arm, compared=self.rival in complete) for arm in complete}
        return {
            "rival": self.rival,
            "class_names": list(self.class_names),
            "settings": self.settings,
            "summary": summary,
            "test_labels": " ".join(map(str, self.test_labels)),
            "runs": self.runs,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Comparison":
        """Return the comparison that `to_dict` gave the values of."""
        labels = [int(label) for label in values["test_labels"].split()]
        return cls(values["rival"], tuple(values["class_names"]), labels, values["settings"], list(values["runs"]))

    def _summarize(self, arm: str, *, compared: bool) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for metric in METRICS:
            values = self.values(arm, metric)
            summary[metric] = {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}
        if compared and arm != self.rival and len(self.settings["seeds"]) > 1:
            difference = self.difference(arm)
            summary["difference"] = {**asdict(difference), "verdict": difference.verdict}
        return summary


@lru_cache(maxsize=64)  # results are written again after every run
def _difference(ours: tuple[str, ...], theirs: tuple[str, ...], labels: tuple[int, ...], metric: str) -> Difference:
    arms = [torch.stack([unpack(digits, len(labels)) for digits in runs]) for runs in (ours, theirs)]
    return paired_difference(arms[0], arms[1], torch.tensor(labels), metric=metric)


def make_table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a flat row for each run: arm, seed, metrics, seconds, the recall of each class."""
    names = ("arm", "seed", *METRICS, "seconds")
    columns = [f"recall of {name}" for name in comparison.class_names]
    return [
        {**{name: run.get(name) for name in names}, **dict(zip(columns, run["recall"], strict=True))}
        for run in comparison.runs
    ]
