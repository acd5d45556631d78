"""`genaug train`."""

from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import Debug, Device, Overwrite, Quiet, default_output, one_line_errors, parse_size


@one_line_errors
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")],
    data: Annotated[str, typer.Option(help="'digits', or a folder with a folder of images for each class.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write to. [default: runs/RECIPE]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: training.steps=500. Can be repeated.")
    ] = None,
    resize: Annotated[str | None, typer.Option(help="Resize all images to HEIGHTxWIDTH.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest state in the output.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness. [default: the recipe's]")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model by a recipe.

    Writes the model, metrics (JSONL, TensorBoard), pictures of samples and resumable states. Ctrl-C saves and stops.

    Example: [bold]genaug train digits-vae --data digits --output run[/bold]

    Example: [bold]genaug train digits-vae --data photos --resize 32x32 --set training.steps=5000[/bold]
    """
    from genaug.data import load_data
    from genaug.training import load_recipe, train

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    result = train(
        load_recipe(recipe, overrides=overrides),
        data=load_data(data, resize=parse_size(resize)),
        output=default_output(f"runs/{Path(recipe).stem}", output),
        resume=resume,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )
    typer.echo(f"model: {result.path}")
    for name, value in result.scores.items():
        typer.echo(f"{name}: {value}")
