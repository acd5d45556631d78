"""Compare arms over paired seeds, with an interval for the difference to a rival."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn

from genaug.data import LabeledImages
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError, shorten
from genaug.evaluate.arms import Arm, Budget, predict, train_classifier
from genaug.metrics import score_predictions
from genaug.models import SmallCNN
from genaug.progress import progress_bar
from genaug.storage import check_vacant, expand, write_json

METRICS = ("accuracy", "balanced_accuracy", "worst_class")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences of an arm to the rival over seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "gain" or "loss" where the interval leaves out 0, else "no measurable gain"."""
        return "gain" if self.low > 0 else "loss" if self.high < 0 else "no measurable gain"


@dataclass
class Comparison:
    """The runs of a comparison: one for each arm and seed, with its scores on the test part."""

    rival: str
    class_names: tuple[str, ...]
    settings: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in order."""
        return list(dict.fromkeys(run["arm"] for run in self.runs))

    def values(self, arm: str, metric: str) -> list[float]:
        """Return a metric of an arm for every seed."""
        return [run[metric] for run in self.runs if run["arm"] == arm]

    def recall(self, arm: str) -> list[float]:
        """Return the recall of each class, as the mean over seeds; NaN for a class without test images."""
        rows = [run["recall"] for run in self.runs if run["arm"] == arm]
        return [float("nan") if None in column else fmean(column) for column in zip(*rows, strict=True)]

    def difference(self, arm: str, *, metric: str = "balanced_accuracy") -> Difference:
        """Return the paired difference of `arm` to the rival, with Student's t interval over seeds.

        The interval covers what differs between the seeds of this comparison: chance in training, and, where `train`
        and the source of an arm are functions of the seed, the draw of the training part and the generator; with fixed
        ones it says nothing about other draws. Draws from one pool overlap, which makes the interval too short
        (Nadeau & Bengio 2003), and the test part is always the same one.

        Raises:
            GenaugError: fewer than two seeds.
        """
        from scipy.stats import t

        pairs = zip(self.values(arm, metric), self.values(self.rival, metric), strict=True)
        differences = [value - rival for value, rival in pairs]
        if len(differences) < 2:
            raise GenaugError(f"seeds must be at least 2 for an interval, got {len(differences)}")
        half = t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
        mean = fmean(differences)
        return Difference(mean=mean, low=mean - float(half), high=mean + float(half))

    def to_dict(self) -> dict[str, Any]:
        """Return settings, a summary of each arm, and all runs, as plain values."""
        complete = [arm for arm in self.arms if len(self.values(arm, METRICS[0])) >= len(self.settings["seeds"])]
        summary = {arm: self._summarize(arm, compared=self.rival in complete) for arm in complete}
        return {
            "rival": self.rival,
            "class_names": list(self.class_names),
            "settings": self.settings,
            "summary": summary,
            "runs": self.runs,
        }

    def _summarize(self, arm: str, *, compared: bool) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for metric in METRICS:
            values = self.values(arm, metric)
            summary[metric] = {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}
        if compared and arm != self.rival and len(self.settings["seeds"]) > 1:
            difference = self.difference(arm)
            summary["difference"] = {**asdict(difference), "verdict": difference.verdict}
        return summary


def compare_arms(
    arms: Mapping[str, Arm],
    *,
    train: LabeledImages | Callable[[int], LabeledImages],
    test: LabeledImages,
    rival: str,
    seeds: int | Sequence[int] = 5,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    classifier: Callable[[Any], nn.Module] = SmallCNN,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str | None = None,
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
        steps, batch_size, learning_rate: the budget of every arm.
        classifier: makes a new network from a `DataSpec`: public images (N, C, H, W) -> logits (N, classes).
        output: JSON file that is rewritten after every run; a new one.
        overwrite: replace an existing `output`.
        device: where to train; a GPU if there is one, else the CPU.
        progress: show a progress bar.
        on_step: called after every training step of a classifier.

    Raises:
        GenaugError: an unknown rival, no arms, no seeds, a budget out of range, an `output` that exists.
        DataError: train and test of different formats or classes, without images, or sharing one.

    >>> from genaug.data import load_data
    >>> digits = load_data("digits")
    >>> result = compare_arms(
    ...     {"plain": Arm(), "balanced": Arm(balanced=True)}, train=digits, test=load_data("digits", split="test"),
    ...     rival="balanced", seeds=2, steps=3, progress=False,
    ... )
    >>> sorted(result.to_dict()["summary"])
    ['balanced', 'plain']
    """
    if rival not in arms:
        raise GenaugError(f"rival must be one of the arms {shorten(list(arms))}, got {shorten(rival)}")
    seeds = list_seeds(seeds)
    where = choose_device(device)
    budget = Budget(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    results = None if output is None else expand(output)
    if results is not None:
        check_vacant(results, overwrite=overwrite)
    transforms = {name: repr(arm.transform) for name, arm in arms.items() if arm.transform is not None}
    settings = {"seeds": seeds, **asdict(budget), "test_images": len(test), "transforms": transforms}
    comparison = Comparison(rival=rival, class_names=test.spec.class_names, settings=settings)
    with progress_bar("comparing", total=len(seeds) * len(arms) * steps, enabled=progress) as update:

        def advance() -> None:
            update()
            if on_step is not None:
                on_step()

        for seed in seeds:
            part = train(seed) if callable(train) else train
            check_parts(part, test)
            for name, arm in arms.items():
                update(0, description=f"seed {seed}: {name}")
                began = time.perf_counter()
                net, counts = train_classifier(
                    arm, part, classifier=classifier, budget=budget, seed=seed, device=where, on_step=advance
                )
                predictions = predict(net, test.images, device=where)
                scores = score_predictions(test.labels, predictions, num_classes=test.spec.num_classes)
                seconds = round(time.perf_counter() - began, 2)
                run = {"arm": name, "seed": seed, **scores, "counts": counts, "seconds": seconds}
                comparison.runs.append(run)
                if results is not None:
                    write_json(results, comparison.to_dict())
    return comparison


def list_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return seeds as they are given, or 0, 1, ... for their number.

    Raises:
        GenaugError: no seeds, one twice, or something else among them.

    >>> list_seeds(3)
    [0, 1, 2]
    """
    listed = list(range(seeds) if isinstance(seeds, int) else seeds)
    if not listed or len(set(listed)) != len(listed) or any(type(seed) is not int for seed in listed):
        raise GenaugError(f"seeds must be at least one integer, none twice, got {shorten(listed)}")
    return listed


def check_parts(train: LabeledImages, test: LabeledImages) -> None:
    """Raise a `DataError` unless both parts hold images, of one format and the same classes, and share none."""
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise DataError(f"{name} must hold at least one image, got none")
    if train.spec != test.spec:
        raise DataError(f"train and test must have one format and the same classes, got {train.spec} and {test.spec}")
    shared = _hash_images(train) & _hash_images(test)
    if shared:
        raise DataError(f"train and test must not share images, got {len(shared)} shared; remove them from train")


def _hash_images(data: LabeledImages) -> set[bytes]:
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in data.images.cpu()}
