"""`genaug bench`."""

from typing import Annotated

import typer

from genaug.cli.options import Debug, one_line_errors


@one_line_errors
def bench_command(
    name: Annotated[
        str,
        typer.Argument(
            help="import, engine, training, arms, bank, sampling, transforms, loaders, denoise, jitter, scale, or all."
        ),
    ] = "all",
    repeats: Annotated[int, typer.Option(help="Measurements of each side, taken in turn.", min=3)] = 15,
    data: Annotated[
        str | None,
        typer.Option(help=r"Clean images, all gray or all color, for denoise. \[default: two photographs]"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure speed against a rival in the same run, and print the ratios.

    Example: [bold]genaug bench engine[/bold]

    Example: [bold]genaug bench denoise --data bsd68-gray.parquet[/bold]
    """
    from genaug.workflows.bench import run_benchmarks

    run_benchmarks(name, repeats=repeats, data=data)
