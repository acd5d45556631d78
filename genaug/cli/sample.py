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
def sample(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a path (./run/model) or a hub id.")],
    per_class: Annotated[int, typer.Option(help="Samples for each class.", min=1)] = 100,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class. Can be repeated. [default: all]")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to write them.")] = Format.imagefolder,
    output: Annotated[Path | None, typer.Option(help="Folder to write to. [default: samples]")] = None,
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
    from genaug.storage import check_vacant

    output = default_output("samples", output)
    check_vacant(output, overwrite=overwrite)
    source = genaug.load(model, device=device)
    counts = dict.fromkeys(class_ or source.spec.class_names, per_class)
    bank = genaug.SampleBank.generate(source, counts, seed=seed, progress=not quiet)
    bank.export(output, format=format.value, overwrite=overwrite)
    typer.echo(f"{len(bank)} samples: {output}")
