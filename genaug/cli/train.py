"""`genaug train`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import Debug, Device, Overwrite, Quiet, default_output, one_line_errors, parse_size
from genaug.errors import DataWarning


@one_line_errors
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")],
    data: Annotated[
        str,
        typer.Option(
            help="'digits'; a folder of class folders; a .parquet, .csv or .tsv file; OWNER/NAME on the Hugging Face "
            "hub; or a data set of torchvision, such as FashionMNIST."
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="Folder to write to. [default: runs/RECIPE]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: training.steps=500. Can be repeated.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the data, or 'all'. [default: train, where there are parts]")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of images (parquet, hub, CSV).")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of classes (parquet, hub, CSV).")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of a torchvision data set.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download into --root.")] = False,
    resize: Annotated[str | None, typer.Option(help="Resize all images to HEIGHTxWIDTH.")] = None,
    grayscale: Annotated[bool, typer.Option("--grayscale", help="Make all images gray.")] = False,
    limit_per_class: Annotated[int | None, typer.Option(help="Use at most this many images of each class.")] = None,
    longtail: Annotated[
        float | None, typer.Option(help="Use a long-tailed subset: the first class is this many times the last.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out, and list, what cannot be read.")] = False,
    memory_limit: Annotated[
        float, typer.Option(help="Keep this many GiB of pixels in memory at most; more go to a file in TMPDIR.")
    ] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the data, estimate the time, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest state in the output.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness. [default: the recipe's]")] = None,
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
    """
    from genaug.data import load_data
    from genaug.data.check import check_data
    from genaug.training import load_recipe, train
    from genaug.training.estimate import estimate_seconds
    from genaug.workflows.check import print_check

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    settings = load_recipe(recipe, overrides=overrides)
    with _warnings_in_words():
        images = load_data(
            data,
            split=split,
            image_column=image_column,
            label_column=label_column,
            root=root,
            download=download,
            resize=parse_size(resize),
            grayscale=grayscale,
            limit_per_class=limit_per_class,
            longtail=longtail,
            seed=settings.seed,
            skip_bad=skip_bad,
            memory_limit=memory_limit,
        )
        seconds = estimate_seconds(settings, images, device=device) if dry_run else None
        print_check(check_data(images), table=not quiet or dry_run, seconds=seconds)
        if dry_run:
            return
        result = train(
            settings,
            data=images,
            output=default_output(f"runs/{Path(recipe).stem}", output),
            resume=resume,
            device=device,
            overwrite=overwrite,
            progress=not quiet,
        )
    typer.echo(f"model: {result.path}")
    for name, value in result.scores.items():
        typer.echo(f"{name}: {value}")


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print warnings on the standard error stream as they come, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DataWarning)  # printed with the check
        warnings.showwarning = lambda message, *place, **rest: typer.echo(f"warning: {message}", err=True)
        yield
