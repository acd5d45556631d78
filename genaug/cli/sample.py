"""`genaug sample`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import Debug, Device, Overwrite, Quiet, Seed, default_output, one_line_errors


class Format(StrEnum):
    """How samples are written."""

    bank = "bank"
    imagefolder = "imagefolder"
    parquet = "parquet"


@one_line_errors
def sample_command(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a path (./run/model) or a hub id.")],
    per_class: Annotated[int, typer.Option(help="Samples for each class.", min=1)] = 100,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class. Can be repeated. [default: all]")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to write them.")] = Format.imagefolder,
    output: Annotated[
        Path | None, typer.Option(help="Folder, or file for parquet. [default: samples, or samples.parquet]")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw samples from a model and write them as PNG files in class folders, a bank, or a parquet file.

    Example: [bold]genaug sample digits-vae --per-class 100 --output samples[/bold]

    Example: [bold]genaug sample ./run/model --class 7 --format bank --output bank[/bold]
    """
    import genaug
    from genaug.bank.exports import check_target
    from genaug.bank.sampling import write_samples
    from genaug.storage import expand

    output = expand(default_output("samples.parquet" if format is Format.parquet else "samples", output))
    check_target(output, format=format.value, overwrite=overwrite)  # before a model is fetched, which may take long
    source = genaug.load(model, device=device)
    counts = dict.fromkeys(class_ or source.spec.class_names, per_class)
    total = write_samples(
        output, source, counts, seed=seed, format=format.value, overwrite=overwrite, progress=not quiet
    )
    typer.echo(f"{total} samples: {output}")
