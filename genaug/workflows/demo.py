"""The whole story on real data: scarce classes, a VAE, a bank, mixed training, and what it was worth."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from genaug.bank import SampleBank
from genaug.data import LabeledImages, load_data, longtail_indices, stratified_split
from genaug.devices import choose_device
from genaug.errors import GenaugError, shorten
from genaug.evaluate import Arm, Budget, Comparison, Difference, compare_arms
from genaug.evaluate.plots import plot_real_beside_synthetic, plot_recall
from genaug.evaluate.runs import OWN_FILES as RESULT_FILES
from genaug.models import SmallCNN
from genaug.progress import progress_bar
from genaug.storage import expand, own_folder
from genaug.training import Interrupted, Recipe, load_recipe, train
from genaug.training.run_folder import OWN_FILES as RUN_FILES
from genaug.workflows.reports import percent

RECIPE = "demo-vae"
IMBALANCE_FACTOR = 20.0
VALIDATION_FRACTION = 0.4
CLASSIFIER_STEPS = 300
TARGET, CAP = "median", 5.0
REAL, RIVAL, OURS = "real only", "class-balanced", "class-balanced + genaug"
OWN_FILES = (
    rf"results({RESULT_FILES})|real-and-synthetic\.png|recall\.png|bank/(images\.safetensors|provenance\.json)"
    rf"|training/({RUN_FILES})"
)


def run_demo(
    output: str | Path,
    *,
    seeds: int = 5,
    first_seed: int = 0,
    validation: bool = False,
    overrides: Sequence[str] = (),
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Comparison:
    """Run the demo on scikit-learn's digits and write its results, pictures, last bank and last training to `output`.

    For every seed the training part is drawn anew with a long tail (imbalance factor 20), a VAE is trained on it, a
    bank of samples is made, and the same classifier is trained with the same number of steps under three arms. The
    test part stays balanced and is the same for all.

    Args:
        output: a new folder.
        seeds: number of repetitions, at least 2.
        first_seed: seed of the first one.
        validation: score on a part split off the training data instead of on the test part, for choosing settings.
        overrides: assignments to fields of the VAE's recipe, such as "model.latent_dim=8".
        device: where to train.
        overwrite: replace an earlier demo in `output`.
        progress: show a progress bar.

    Raises:
        GenaugError: fewer than two seeds, a wrong override, an `output` that exists, a device that is not there, a
            disk that is full.
    """
    output = expand(output)
    if not seeds >= 2:
        raise GenaugError(f"seeds must be at least 2 for an interval, got {shorten(seeds)}")
    recipe = load_recipe(RECIPE, overrides=overrides)
    choose_device(device)  # a wrong one must not cost an earlier demo
    with own_folder(output, OWN_FILES, last="results.json", overwrite=overwrite):
        return _run(
            output,
            recipe,
            seeds=range(first_seed, first_seed + seeds),
            validation=validation,
            device=device,
            progress=progress,
        )


def _run(
    output: Path, recipe: Recipe, *, seeds: range, validation: bool, device: str | None, progress: bool
) -> Comparison:
    pool, test = load_data("digits", split="train"), load_data("digits", split="test")
    if validation:
        kept, held_out = stratified_split(pool.labels, fraction=VALIDATION_FRACTION, seed=seeds[0])
        pool, test = pool.subset(kept), pool.subset(held_out)
    arms_steps = 3 * CLASSIFIER_STEPS
    banks: list[tuple[LabeledImages, SampleBank]] = []
    with progress_bar("demo", total=len(seeds) * (recipe.training.steps + arms_steps), enabled=progress) as update:

        def draw(seed: int) -> LabeledImages:
            return pool.subset(longtail_indices(pool.labels, imbalance_factor=IMBALANCE_FACTOR, seed=seed))

        def make_bank(part: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
            update(0, description=f"seed {seed}: VAE")
            shutil.rmtree(output / "bank", ignore_errors=True)
            try:
                result = train(
                    load_recipe(recipe, overrides=[f"seed={seed}"]),
                    data=part,
                    output=output / "training",
                    device=str(device),
                    overwrite=True,
                    progress=False,
                    on_step=lambda step: update(),
                )
            except Interrupted as stop:
                raise Interrupted("interrupted; start the demo anew with --overwrite", stop.signal_number) from None
            bank = SampleBank.generate(result.model, list(counts), seed=seed, path=output / "bank", progress=False)
            update(0, description=f"seed {seed}: classifiers")
            banks[:] = [(part, bank)]
            return bank

        comparison = compare_arms(
            {
                REAL: Arm(),
                RIVAL: Arm(balanced=True),
                OURS: Arm(balanced=True, source=make_bank, target=TARGET, cap=CAP),
            },
            train=draw,
            test=test,
            rival=RIVAL,
            seeds=seeds,
            budget=Budget(steps=CLASSIFIER_STEPS),
            classifier=SmallCNN,
            output=output / "results.json",
            device=device,
            progress=False,
            on_step=update,
        )
    part, bank = banks[-1]
    plot_real_beside_synthetic(part, bank, output / "real-and-synthetic.png")
    plot_recall(comparison, output / "recall.png", counts=part.counts)
    _report(comparison, output, test="validation" if validation else "test")
    return comparison


def _report(comparison: Comparison, output: Path, *, test: str) -> None:
    console = Console()
    table = Table("", "accuracy", "balanced", "worst class", f"vs. {RIVAL}", box=SIMPLE, padding=(0, 1, 0, 0))
    summary = comparison.to_dict()["summary"]
    for arm, figures in summary.items():
        cells = [percent(figures[metric]) for metric in ("accuracy", "balanced_accuracy", "worst_class")]
        table.add_row(arm, *cells, comparison.difference(arm).points if "difference" in figures else "")
    seeds, images = len(comparison.settings["seeds"]), comparison.settings["test_images"]
    console.print(table)
    console.print(
        f"Accuracy, balanced accuracy and recall of the worst class in percent on {images} {test} images,\n"
        f"mean ± standard deviation over {seeds} seeds; last, the paired difference in balanced accuracy\n"
        "with its 95 % interval.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(describe_verdict(comparison.difference(OURS)), highlight=False, style="bold", soft_wrap=True)
    console.print(f"Results, pictures, the last bank and training: {output}", highlight=False, soft_wrap=True)


def describe_verdict(gap: Difference) -> str:
    """Return one line that says whether genaug's mix helped; where the interval holds 0 it claims nothing."""
    interval = f"{100 * gap.mean:+.1f} points, 95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
    words = {"gain": "Mixing in samples raised", "loss": "Mixing in samples lowered"}
    if gap.verdict in words:
        return f"{words[gap.verdict]} balanced accuracy over {RIVAL} sampling alone: {interval}."
    return f"No measurable gain in balanced accuracy over {RIVAL} sampling alone: {interval}."
