"""`genaug demo`."""

from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import Debug, Device, Overwrite, Quiet, one_line_errors


@one_line_errors
def demo_command(
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("genaug-demo"),
    seeds: Annotated[int, typer.Option(help="Number of repetitions.", min=2)] = 5,
    validation: Annotated[
        bool, typer.Option("--validation", help="Score on a part split off train, for choosing settings.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field of the VAE's recipe: model.latent_dim=8.")
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed of the repetitions.")] = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The whole story on 1,797 real handwritten digits with a long tail, on the CPU in about a minute.

    Trains a VAE on the scarce data, makes a bank of samples, trains the same classifier with and without them, and
    says whether they helped.

    Example: [bold]genaug demo --output demo[/bold]
    """
    from genaug.workflows.demo import run_demo

    run_demo(
        output,
        seeds=seeds,
        first_seed=seed,
        validation=validation,
        overrides=set_ or [],
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )
