"""`genaug bench`."""

from typing import Annotated

import typer

from genaug.cli.options import Debug, one_line_errors


@one_line_errors
def bench_command(
    name: Annotated[
        str,
        typer.Argument(help="import, engine, training, bank, sampling, transforms, loaders, jitter, scale, or all."),
    ] = "all",
    repeats: Annotated[int, typer.Option(help="Measurements of each side, taken in turn.", min=3)] = 15,
    debug: Debug = False,
) -> None:
    """Measure speed against a rival in the same run, and print the ratios.

    Example: [bold]genaug bench engine[/bold]
    """
    from genaug.workflows.bench import run_benchmarks

    run_benchmarks(name, repeats=repeats)
