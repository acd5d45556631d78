"""`genaug preview`."""

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
    Overwrite,
    Patches,
    Resize,
    Root,
    Seed,
    find_reading,
    one_line_errors,
)


@one_line_errors
def preview_command(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a path (./run/model) or a hub id.")],
    data: Data,
    split: Annotated[
        str | None, typer.Option(help=r"Part of the data, or 'all'. \[default: test, where there is one]")
    ] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    download: Download = False,
    resize: Resize = None,
    patches: Patches = None,
    grayscale: Grayscale = False,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("genaug-preview"),
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Write a picture of what each transform makes of your images with a model.

    Example: [bold]genaug preview digits-vae --data digits --output pictures[/bold]
    """
    from genaug.workflows.preview import preview_transforms

    reading = find_reading(locals())
    preview_transforms(
        model,
        data=data,
        split=split,
        reading=reading,
        output=output,
        seed=seed,
        device=device,
        overwrite=overwrite,
    )
