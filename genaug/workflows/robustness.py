"""Whether a denoiser helps a classifier on noisy images: the parts of the data, tables, and what they say."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor
from torchvision.transforms import v2

from genaug.devices import choose_device
from genaug.errors import check_choice
from genaug.evaluate import Difference, RobustnessResult, measure_robustness
from genaug.evaluate.robustness import LEVELS, PROTOCOL
from genaug.models import require
from genaug.storage import check_folder, expand
from genaug.workflows.parts import load_parts, open_source, read_split
from genaug.workflows.reports import make_table, percent, say, with_versions

RESULTS = "robustness.json"
METRICS = "accuracy", "balanced_accuracy", "worst_class"
FLIPS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "none": None,
    "horizontal": v2.RandomHorizontalFlip(),
    "both": v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]),
}


def run_robustness(
    model: str,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    validation: float | None = None,
    noise_levels: Sequence[float] = LEVELS,
    flips: str = "horizontal",
    seeds: int = 5,
    steps: int = 1000,
    reading: Mapping[str, Any] | None = None,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> RobustnessResult:
    """Train and test classifiers with and without a denoiser (`measure_robustness`), print, and write the figures.

    Args:
        model: what `genaug.load` takes: a model with `restore`.
        data: what `genaug.data.load_data` takes: images with their classes, of any origin.
        test: other data to hold out; by default a part of `data`.
        split: the part to train classifiers on; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        validation: hold out this share of the training part instead. Where it is at most what the model's recipe held
            out, with the seed of that recipe, so that a model of these data has not seen it; else with `seed`.
        noise_levels: standard deviations on the [0, 1] scale.
        flips: of training images at random: "none", "horizontal" or "both".
        seeds: number of repetitions.
        steps: training steps of every classifier.
        reading: further arguments of `load_data` for both parts.
        limit_per_class, longtail: of the training part.
        output: folder for `robustness.json`, which is rewritten after every run.
        seed: the first one.
        device: where to compute; a GPU if there is one, else the CPU.
        overwrite: replace this file in `output`.
        progress: show a progress bar.

    Raises:
        GenaugError: an unknown model, or one without `restore`; parts that cannot be read or do not fit the model; an
            `output` that exists, or that another process writes to; `flips`, noise levels, seeds or steps out of range.
    """
    target = None if output is None else expand(output)
    if target is not None:
        check_folder(target, overwrite=overwrite)
    check_choice(flips, FLIPS, name="flips")
    where = choose_device(device)
    denoiser = open_source(model, where)
    require(denoiser, "restore")
    train, held_out, held_out_part = load_parts(
        denoiser if _has_held_out(denoiser, validation) else None,
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        validation=validation,
        reading=reading,
        whole=True,
        limit_per_class=limit_per_class,
        longtail=longtail,
        seed=seed,
    )
    facts = {"model": model, "data": str(data), "held_out_data": str(test or data), "held_out_part": held_out_part}
    result = measure_robustness(
        denoiser,
        train=train,
        test=held_out,
        noise_levels=noise_levels,
        transform=FLIPS[flips],
        seeds=range(seed, seed + seeds),
        steps=steps,
        output=None if target is None else target / RESULTS,
        overwrite=overwrite,
        facts=with_versions(facts),
        device=where,
        progress=progress,
    )
    print_robustness(result)
    if target is not None:
        say(f"Figures: {target / RESULTS}")
    return result


def _has_held_out(model: Any, validation: float | None) -> bool:
    """Tell whether the recipe of `model` held out as much; many denoisers were trained on other data altogether."""
    return validation is None or validation <= read_split(model)[1]


def print_robustness(result: RobustnessResult) -> None:
    """Print a table for each noise level, how they were measured, and what they say."""
    console = Console()
    for level in result.noise_levels:
        comparison = result.comparison(level)
        title = f"noise {level:g}" if level else "without noise"
        table = make_table("trained / tested", "accuracy", "balanced", "worst class", "difference", title=title)
        for row, figures in comparison.to_dict()["summary"].items():
            gap = comparison.difference(row).points if "difference" in figures else ""
            table.add_row(row, *(percent(figures[metric]) for metric in METRICS), gap)
        console.print(table)
    count = len(result.settings["seeds"])
    over = f"mean ± standard deviation over {count} seeds" if count > 1 else "of one seed"
    say(
        f"In percent on {result.settings['test_images']} held-out images, {over}. difference: paired, in balanced "
        f"accuracy, to {comparison.rival} at this noise level, with its 95 % interval.",
        PROTOCOL,
        *sentences(result),
    )


def sentences(result: RobustnessResult) -> list[str]:
    """Return a sentence on what denoising costs without noise, and one for each noise level; none for a single seed."""
    if len(result.settings["seeds"]) < 2:
        return []
    cost = result.comparison(0.0, rival="clean / noisy").difference("clean / denoised")
    lines = [f"Without noise, the classifier of clean images on denoised ones: {_judge(cost)}."]
    for level in result.noise_levels[1:]:
        comparison = result.comparison(level)
        before, within = (comparison.difference(f"{name} / denoised") for name in ("clean", "denoised"))
        lines.append(
            f"At noise {level:g}, against training with noise: denoising before a classifier of clean images: "
            f"{_judge(before)}; training and testing on denoised images: {_judge(within)}."
        )
    return lines


def _judge(gap: Difference) -> str:
    """
    >>> _judge(Difference(mean=0.02, low=0.01, high=0.03))
    '+2.0 (+1.0 to +3.0), a gain'
    """
    words = {"gain": "a gain", "loss": "a loss"}.get(gap.verdict, "no measurable difference")
    return f"{gap.points}, {words}"
