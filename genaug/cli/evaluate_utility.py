"""`genaug evaluate utility`."""

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
    MemoryLimit,
    Overwrite,
    Quiet,
    Resize,
    Root,
    SkipBad,
    Split,
    Test,
    TestSplit,
    find_reading,
    one_line_errors,
)


@one_line_errors
def utility_command(
    benchmark: Annotated[
        str | None,
        typer.Argument(help=r"A shipped benchmark's name, or the path of a YAML file. \[default: the cheap rivals]"),
    ] = None,
    *,
    data: Data,
    test: Test = None,
    split: Split = None,
    test_split: TestSplit = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Where there is no test part: hold out this share of each class.")
    ] = None,
    bank: Annotated[
        str | None,
        typer.Option(
            help="Path of a bank, made of the training part, that 'genaug' mixes in, in place of a generator that is "
            "trained for every seed."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="An arm in place of the benchmark's: plain, or pieces joined by +, of class-balanced, class-weighted, "
            "effective-number, focal, logit-adjusted, balanced-softmax, post-hoc, deferred, flips, both-flips, crops, "
            "trivial-augment, mixup, cutmix; smote, replay, noise; genaug, of a bank or generator; genaug-residual and "
            "latent-smote, of a generator; then until, replace, every. 'rival' is the best arm without samples. May be "
            "repeated."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the benchmark, such as budget.steps=500; may be repeated."),
    ] = None,
    drop_shared: Annotated[
        bool, typer.Option("--drop-shared", help="Leave out training images that are in the test part too.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Runs at once, each with its share of the cores.", min=1)] = 1,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    download: Download = False,
    resize: Resize = None,
    grayscale: Grayscale = False,
    skip_bad: SkipBad = False,
    memory_limit: MemoryLimit = 2.0,
    output: Annotated[Path, typer.Option(help="Folder for results, runs and a plot.")] = Path("genaug-utility"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what is in the output.")] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train the same classifier in many ways, tuned alike, with and without samples, and test it on held-out images.

    Example: [bold]genaug evaluate utility --data photos --resize 32x32 --arm plain --arm class-balanced+flips[/bold]

    Example: [bold]genaug evaluate utility bench-solar --data solar --jobs 2[/bold]
    """
    reading = find_reading(locals())
    import json

    from genaug.workflows.benchmarks import load_benchmark
    from genaug.workflows.utility import run_utility

    chosen = [f"arms={json.dumps(arm)}"] if arm else []
    run_utility(
        load_benchmark(benchmark, overrides=[*(overrides or []), *chosen]),
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        test_fraction=test_fraction,
        bank=bank,
        reading=reading,
        drop_shared=drop_shared,
        output=output,
        jobs=jobs,
        resume=resume,
        overwrite=overwrite,
        device=device,
        progress=not quiet,
    )
