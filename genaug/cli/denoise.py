"""`genaug denoise`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genaug.cli.options import Debug, Device, Overwrite, Quiet, one_line_errors


@one_line_errors
def denoise_command(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a path (./run/model) or a hub id.")],
    input: Annotated[Path, typer.Argument(help="A PNG, JPEG or TIFF file, or a folder that is searched for them.")],
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("denoised"),
    noise_level: Annotated[
        float | None,
        typer.Option(
            help=r"Standard deviation of the noise where white is 1 (0.1 is 25 of 255). \[default: the model judges it]"
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="From 0, the picture as it was, to 1, what the model makes of it.")
    ] = 1.0,
    tile: Annotated[
        int | None, typer.Option(help="Restore in square parts of this side, in pixels, which saves memory.", min=1)
    ] = None,
    channels: Annotated[
        Literal["match", "convert"],
        typer.Option(
            help="Whether pictures must have the model's channels, or are converted: a gray model restores each color "
            "by itself, a color model gray as three equal colors."
        ),
    ] = "match",
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore pictures with a denoising model, and keep their names, depths (8, 16 bits, float) and metadata.

    Pictures whose output exists are skipped. The status is 1 where one could not be read.

    Example: [bold]genaug denoise denoiser-color photos --output denoised[/bold]

    Example: [bold]genaug denoise ./run/model scan.tif --noise-level 0.1 --strength 0.8 --tile 512[/bold]
    """
    from genaug.workflows.denoising import run_denoising

    outcome = run_denoising(
        model,
        input=input,
        output=output,
        noise_level=noise_level,
        strength=strength,
        tile=tile,
        channels=channels,
        overwrite=overwrite,
        device=device,
        progress=not quiet,
    )
    if outcome.failed:
        raise typer.Exit(1)
