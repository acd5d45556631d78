"""`genaug train`."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import (
    Data,
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
    Pairs,
    Patches,
    Quiet,
    Resize,
    Root,
    SkipBad,
    Split,
    find_reading,
    one_line_errors,
)
from genaug.errors import DataWarning


@one_line_errors
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")],
    data: Data,
    output: Annotated[Path | None, typer.Option(help=r"Folder to write to. \[default: runs/RECIPE]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: training.steps=500. Can be repeated.")
    ] = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    download: Download = False,
    resize: Resize = None,
    patches: Patches = None,
    pairs: Pairs = None,
    grayscale: Grayscale = False,
    limit_per_class: LimitPerClass = None,
    longtail: Longtail = None,
    skip_bad: SkipBad = False,
    memory_limit: MemoryLimit = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the data, estimate the time, and stop.")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="A model of the same images to start from: one of the same family, for a GAN a VAE. "
            r"\[default: the recipe's]"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest state in the output.")] = False,
    seed: Annotated[int | None, typer.Option(help=r"Seed of all randomness. \[default: the recipe's]")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model by a recipe, after a check of the data.

    Writes the model, metrics (JSONL, TensorBoard), pictures of samples and resumable states. Ctrl-C and SIGTERM save
    and stop.

    Example: [bold]genaug train digits-vae --data digits --output run[/bold]

    Example: [bold]genaug train digits-vae --data photos --resize 32x32 --set training.steps=5000[/bold]

    Example: [bold]genaug train digits-vae --data photos.csv --label-column species --resize 32x32 --skip-bad[/bold]

    Example: [bold]genaug train denoiser-gray --data noisy --pairs clean --patches 96x96 --grayscale --set
    model.supervision=pairs[/bold]
    """
    from genaug.data import load_data
    from genaug.data.check import check_data
    from genaug.training import load_recipe, train
    from genaug.training.estimate import estimate_seconds
    from genaug.workflows.check import print_check

    reading = find_reading(locals())
    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    settings = load_recipe(recipe, overrides=overrides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # those are printed with the check
        images = load_data(
            data,
            split=split,
            limit_per_class=limit_per_class,
            longtail=longtail,
            seed=settings.seed,
            **reading,
        )
        seconds = estimate_seconds(settings, images, start=start, device=device) if dry_run else None
        print_check(check_data(images), table=not quiet or dry_run, seconds=seconds)
        if dry_run:
            return
        result = train(
            settings,
            data=images,
            output=output or Path("runs", Path(recipe).stem),
            start=start,
            resume=resume,
            device=device,
            overwrite=overwrite,
            progress=not quiet,
        )
    typer.echo(f"model: {result.path}")
    for name, value in result.scores.items():
        typer.echo(f"{name}: {value}")
