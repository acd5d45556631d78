"""Which settings of each arm are compared: those that are best on a validation part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, shorten
from genaug.evaluate.arms import Arm
from genaug.evaluate.comparison import Comparison
from genaug.evaluate.parts import find_missing, find_shared
from genaug.evaluate.runs import compare_arms


@dataclass(frozen=True)
class Choice:
    """The settings of each arm that were best on the validation part.

    Args:
        arms: name -> arm.
        scores: name -> balanced accuracy of each of its settings on the validation part, as the mean over seeds.
        comparison: the runs behind them.
    """

    arms: dict[str, Arm]
    scores: dict[str, list[float]]
    comparison: Comparison

    @property
    def ranking(self) -> list[str]:
        """Names of the arms by their best settings, the best first."""
        return sorted(self.scores, key=lambda name: -max(self.scores[name]))

    @property
    def best(self) -> str:
        """Name of the arm whose best setting is the best of all."""
        return self.ranking[0]


def choose_settings(
    settings: Mapping[str, Sequence[Arm]],
    *,
    train: LabeledImages,
    fraction: float,
    seeds: int | Sequence[int] = 1,
    split_seed: int = 0,
    output: str | Path | None = None,
    **options: Any,
) -> Choice:
    """Train a classifier with every setting of every arm on a part of `train`, and choose by the rest of it.

    Args:
        settings: name -> the settings of an arm, as many for each arm.
        train: the training part; images for testing have no place here.
        fraction: share of each class that is held out for validation.
        seeds: the seeds of each setting, or their number.
        split_seed: of the choice of images held out.
        output: JSON file; see `compare_arms`.
        options: further arguments of `compare_arms`, such as `budget` and `classifier`.

    Raises:
        GenaugError: another number of settings for one arm than for others, and what `compare_arms` refuses.
        DataError: a class that has too few images for both parts.

    >>> from genaug.data import load_data
    >>> from genaug.evaluate import Budget
    >>> settings = {"plain": [Arm(), Arm(learning_rate=1e-3)], "balanced": [Arm(balanced=True)] * 2}
    >>> found = choose_settings(
    ...     settings, train=load_data("digits"), fraction=0.2, budget=Budget(steps=2), progress=False
    ... )
    >>> {name: len(scores) for name, scores in found.scores.items()}
    {'plain': 2, 'balanced': 2}
    """
    if len({len(tried) for tried in settings.values()}) != 1:
        found = {name: len(tried) for name, tried in settings.items()}
        raise GenaugError(f"settings must be as many for each arm, got {shorten(found)}")
    part, validation = split_for_search(train, fraction, seed=split_seed)
    names = {name: [_label(name, number) for number in range(len(tried))] for name, tried in settings.items()}
    flat = {label: arm for name, tried in settings.items() for label, arm in zip(names[name], tried, strict=True)}
    comparison = compare_arms(
        flat, train=part, test=validation, rival=next(iter(flat)), seeds=seeds, output=output, **options
    )
    scores = {
        name: [fmean(comparison.values(label, "balanced_accuracy")) for label in labels]
        for name, labels in names.items()
    }
    best = {name: settings[name][values.index(max(values))] for name, values in scores.items()}
    return Choice(best, scores, comparison)


def split_for_search(train: LabeledImages, fraction: float, *, seed: int) -> tuple[LabeledImages, LabeledImages]:
    """Return a part of `train` to train on, and a validation part that holds a share of each class.

    Images that are in both, since `train` holds them twice, are left out of the first one.

    Raises:
        DataError: a class that has too few images for both parts.

    >>> from genaug.data import load_data
    >>> [len(part) for part in split_for_search(load_data("digits"), 0.25, seed=0)]
    [899, 299]
    """
    kept, held_out = train.split(fraction, seed=seed)
    validation = train.subset(held_out)
    single = torch.ones(len(kept), dtype=torch.bool)
    single[find_shared(train.subset(kept), validation)] = False
    scarce = find_missing(train, validation)
    if scarce:
        raise DataError(
            f"a validation part of {fraction:g} needs more images of {shorten(scarce)}; add images, hold out a larger "
            "share (of two images or more), or leave the search out by naming a rival (--set rival=NAME --set trials=1)"
        )
    return train.subset(kept[single]), validation


def _label(name: str, number: int) -> str:
    return f"{name} #{number + 1}"
