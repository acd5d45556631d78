"""`genaug sample`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from genaug.cli.options import (
    Debug,
    Device,
    Download,
    Grayscale,
    ImageColumn,
    LabelColumn,
    LimitPerClass,
    Longtail,
    MemoryLimit,
    Overwrite,
    Patches,
    Quiet,
    Resize,
    Root,
    Seed,
    SkipBad,
    Split,
    find_reading,
    one_line_errors,
)


class Filter(StrEnum):
    """What samples must pass."""

    agreement = "agreement"
    band = "band"
    copies = "copies"
    discriminator = "discriminator"


@one_line_errors
def sample_command(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a path (./run/model) or a hub id.")],
    per_class: Annotated[int, typer.Option(help="Samples for each class.", min=1)] = 100,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help=r"Only this class. Can be repeated. \[default: all]")
    ] = None,
    format: Annotated[
        Literal["bank", "imagefolder", "parquet"], typer.Option(help="How to write them.")
    ] = "imagefolder",
    output: Annotated[
        Path | None, typer.Option(help=r"Folder, or file for parquet. \[default: samples, or samples.parquet]")
    ] = None,
    filter_: Annotated[
        list[Filter] | None,
        typer.Option(
            "--filter",
            help="Keep only samples that a classifier of the real images takes for their class (agreement), that are "
            "as far from its mean as real images are (band), that are no near copies of training images (copies), or "
            "that the model's discriminator passes (discriminator). Can be repeated; needs --data.",
        ),
    ] = None,
    short: Annotated[
        Literal["error", "fewer"],
        typer.Option(help="Where filters accept too few samples of a class: fail, or write fewer."),
    ] = "error",
    max_draws: Annotated[
        int, typer.Option(help="Samples drawn, at most, for each one wanted of a class.", min=1)
    ] = 100,
    data: Annotated[
        str | None,
        typer.Option(
            help="The images that the model was trained on, for --filter and the audit; give all data options as in "
            "training."
        ),
    ] = None,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Do not look for copies of training images among the samples.")
    ] = False,
    classifier_steps: Annotated[
        int, typer.Option(help="Training steps of the classifiers of filters and audit.", min=1)
    ] = 1000,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    download: Download = False,
    resize: Resize = None,
    patches: Patches = None,
    grayscale: Grayscale = False,
    limit_per_class: LimitPerClass = None,
    longtail: Longtail = None,
    skip_bad: SkipBad = False,
    memory_limit: MemoryLimit = 2.0,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw samples from a model and write them as PNG files in class folders, a bank, or a parquet file.

    With --data, the images that the model was trained on, the samples are audited for copies of them
    (memorization.json).

    Example: [bold]genaug sample digits-vae --per-class 100 --output samples[/bold]

    Example: [bold]genaug sample ./run/model --class 7 --format bank --output bank[/bold]

    Example: [bold]genaug sample digits-vae --data digits --filter agreement --filter copies --short fewer[/bold]
    """
    from genaug.workflows.sampling import run_sampling

    reading = find_reading(locals())
    run_sampling(
        model,
        output=output or Path("samples.parquet" if format == "parquet" else "samples"),
        format=format,
        per_class=per_class,
        classes=class_ or (),
        data=data,
        filters=[one.value for one in filter_ or ()],
        short=short,
        max_draws=max_draws,
        audit=not no_audit,
        split=split,
        reading=reading,
        limit_per_class=limit_per_class,
        longtail=longtail,
        classifier_steps=classifier_steps,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )
