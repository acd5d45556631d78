"""Measure a model or a bank on held-out images: the parts of the data, the figures, a table, a picture."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genaug.devices import choose_device
from genaug.evaluate import FidelityResult, measure_fidelity
from genaug.evaluate.figures import NEIGHBORS, show
from genaug.evaluate.plots import plot_fidelity
from genaug.features import STEPS
from genaug.storage import check_folder, expand, new_directory, write_json
from genaug.workflows.parts import load_parts, open_source
from genaug.workflows.reports import MAX_ROWS, make_table, say, with_versions

RESULTS, PICTURE = "fidelity.json", "fidelity.png"


def run_fidelity(
    model: str,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    validation: float | None = None,
    samples: int | None = None,
    classifier_steps: int = STEPS,
    features: str = "classifier",
    accuracy_score: bool = True,
    reading: Mapping[str, Any] | None = None,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> FidelityResult:
    """Measure a model or a bank on held-out images (`measure_fidelity`), print a table, and write the figures.

    Args:
        model: what `genaug.load` takes, or the path of a bank.
        data: what `genaug.data.load_data` takes.
        test: other data to hold out; by default a part of `data`.
        split: the part to train the classifier on; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        validation: hold out this share of the training part instead, with the seed of the model's recipe: the images
            are then among those that the recipe's `validation_fraction` kept from the model.
        samples: how many to draw.
        classifier_steps: training steps of the classifier.
        features: "classifier", "inception" or "torchmetrics".
        accuracy_score: train a classifier on samples too, and test it on the held-out images.
        reading: further arguments of `load_data` for both parts.
        limit_per_class, longtail: of the training part; drawn with the seed of the model's recipe, as `genaug train`
            does.
        output: folder for `fidelity.json` and `fidelity.png`.
        seed: of samples and classifier.
        device: where to compute; a GPU if there is one, else the CPU.
        overwrite: replace these two files in `output`.
        progress: show progress bars.

    Raises:
        GenaugError: an unknown model, parts that cannot be read or do not fit the model, an `output` that exists, a
            validation part that the model was trained on.
    """
    target = None if output is None else expand(output)
    if target is not None:
        check_folder(target, overwrite=overwrite)
    where = choose_device(device)
    source = open_source(model, where)
    train, held_out, held_out_part = load_parts(
        source,
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
    result = measure_fidelity(
        source,
        train=train,
        test=held_out,
        seed=seed,
        samples=samples,
        classifier_steps=classifier_steps,
        device=where,
        features=features,
        accuracy_score=accuracy_score,
        progress=progress,
    )
    print_fidelity(result)
    if target is not None:
        facts = {"model": model, "data": str(data), "held_out_data": str(test or data), "held_out_part": held_out_part}
        with new_directory(target, overwrite=overwrite, last=RESULTS) as aside:
            write_json(aside / RESULTS, with_versions({**facts, **result.to_dict()}))
            plot_fidelity(source, held_out, aside / PICTURE, seed=seed)
        say(f"Figures and a picture: {target}")
    return result


def print_fidelity(result: FidelityResult) -> None:
    """Print the figures of all images and of each class, and what they were taken in."""
    console = Console()
    table = make_table("class", "images", "FID", "real", "KID", "real", "found", "real", "MSE")
    everything = [result.sample_scores["accuracy"], result.held_out_scores["accuracy"], result.reconstruction_mse]
    ours, real = result.sample_distance, result.training_distance
    table.add_row("all", str(result.images["held_out"]), *_cells(ours, real, *everything), style="bold")
    for one in result.classes[:MAX_ROWS]:
        own = [one.sample_recall, one.held_out_recall, one.reconstruction_mse]
        table.add_row(escape(one.name), str(one.held_out), *_cells(one.sample_distance, one.training_distance, *own))
    if len(result.classes) > MAX_ROWS:
        table.add_row(f"... {len(result.classes) - MAX_ROWS} more")
    console.print(table)
    console.print(_tabulate_scores(result))
    images, width = result.images, result.features["num_features"]
    few = ["-: a class has fewer training images than samples, and FID depends on how many there are."]
    few = few if images["training_compared"] < images["samples"] else []
    trained = f"a classifier trained on {images['training']} training images"
    network = trained if result.features["name"] == "classifier" else f"the network '{result.features['name']}'"
    lines = [
        f"{images['samples']} samples against {images['held_out']} held-out images, in {width} features of {network}.",
        f"real: {images['training_compared']} training images with the same shares of classes, and, of found, the "
        "held-out images.",
        f"found: share that {'the classifier' if network == trained else trained} finds in their class, in percent. "
        "MSE: of reconstructions, on the [0, 1] scale.",
        f"FID of a class needs more than {width} images. Precision to coverage: of the {NEIGHBORS} nearest neighbors.",
        *few,
    ]
    if result.accuracy_score is not None:
        lines.append(
            f"accuracy score: share of the held-out images that a classifier trained on "
            f"{result.accuracy_score['training_samples']} samples knows (real: on "
            f"{result.accuracy_score['training_images']} training images), in percent."
        )
    if result.model_scores:
        figures = ", ".join(f"{name} {value}" for name, value in result.model_scores.items())
        lines.append(f"the model on the held-out images: {figures}")
    say(*lines)


def _tabulate_scores(result: FidelityResult) -> Table:
    table = make_table("score", "samples", "real")
    for figure, mean in (("FID", result.intra_class_fid), ("KID", result.intra_class_kid)):
        if mean.samples is not None and mean.training is not None:
            row = f"{figure}, mean over {mean.classes} of {len(result.classes)} classes"
            table.add_row(row, f"{mean.samples:.3f}", f"{mean.training:.3f}")
    if result.sample_manifold is not None:
        real = {} if result.training_manifold is None else asdict(result.training_manifold)
        for name, value in asdict(result.sample_manifold).items():
            table.add_row(name, f"{value:.3f}", show(real.get(name), 3))
    if result.accuracy_score is not None:
        ours, theirs = result.accuracy_score, result.held_out_scores
        for row, name in (("accuracy score", "accuracy"), ("mean over classes", "balanced_accuracy")):
            table.add_row(row, f"{100 * ours[name]:.1f}", f"{100 * theirs[name]:.1f}")
    return table


def _cells(ours: Any, real: Any, found: float | None, right: float | None, error: float | None) -> list[str]:
    distances = [show(value, 3) for value in (ours.fid, real.fid, ours.kid, real.kid)]
    return [*distances, show(found, 1, scale=100), show(right, 1, scale=100), show(error, 4)]
