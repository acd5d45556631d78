"""`genaug evaluate denoising` and `genaug evaluate robustness`."""

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
    LimitPerClass,
    Longtail,
    MemoryLimit,
    Overwrite,
    Patches,
    Quiet,
    Resize,
    Root,
    Seed,
    SkipBad,
    Split,
    Test,
    TestSplit,
    find_reading,
    one_line_errors,
)


@one_line_errors
def robustness_command(
    model: Annotated[str, typer.Argument(help="A denoiser: a shipped name, a path (./run/model), or a hub id.")],
    data: Data,
    test: Test = None,
    split: Split = None,
    test_split: TestSplit = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="For choosing settings: test on this share of the training part, and leave the test part alone."
        ),
    ] = None,
    noise_level: Annotated[
        list[float] | None,
        typer.Option(
            help=r"Standard deviation of the noise, where white is 1; may be repeated. \[default: 0.1 and 0.2]"
        ),
    ] = None,
    flips: Annotated[
        str, typer.Option(help="Mirror training images at random: none (for digits, say), horizontal, or both.")
    ] = "horizontal",
    seeds: Annotated[int, typer.Option(help="Repetitions, with the seeds from --seed on.")] = 5,
    steps: Annotated[int, typer.Option(help="Training steps of every classifier.")] = 1000,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    download: Download = False,
    resize: Resize = None,
    patches: Patches = None,
    grayscale: Grayscale = False,
    limit_per_class: LimitPerClass = None,
    longtail: Longtail = None,
    skip_bad: SkipBad = False,
    memory_limit: MemoryLimit = 2.0,
    output: Annotated[
        Path | None,
        typer.Option(help=r"Folder for robustness.json, rewritten after every score. \[default: only print]"),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure whether a denoiser helps a classifier on noisy images, beside training it with noise.

    Small classifiers are trained on clean, noisy and denoised images, and on images with noise of many levels, with
    the same steps and seeds, and tested on noisy and denoised held-out images, and without noise.

    Example: [bold]genaug evaluate robustness ./run/model --data photos --resize 32x32 --output robustness[/bold]

    Example: [bold]genaug evaluate robustness ./run/model --data digits --flips none --noise-level 0.3[/bold]
    """
    from genaug.workflows.robustness import run_robustness

    reading = find_reading(locals())
    run_robustness(
        model,
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        validation=validation,
        noise_levels=noise_level or (0.1, 0.2),
        flips=flips,
        seeds=seeds,
        steps=steps,
        reading=reading,
        limit_per_class=limit_per_class,
        longtail=longtail,
        output=output,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )


@one_line_errors
def denoising_command(
    models: Annotated[
        list[str] | None, typer.Argument(help="Denoisers: shipped names, paths (./run/model) or hub ids.")
    ] = None,
    *,
    data: Annotated[
        str,
        typer.Option(help="Clean images of any size: a folder, a .parquet or .csv file, a hub or torchvision name."),
    ],
    rival: Annotated[
        list[str] | None,
        typer.Option(
            help="Denoiser of another library to measure too, which is told the noise level: bm3d, nlm, opencv-nlm, tv "
            "or wavelet; may be repeated."
        ),
    ] = None,
    noise_level: Annotated[
        list[str] | None,
        typer.Option(
            help="Standard deviation of Gaussian noise where white is 1, also as a fraction; may be repeated. "
            r"\[default: 15/255, 25/255 and 50/255, without --degradation]"
        ),
    ] = None,
    degradation: Annotated[
        list[str] | None,
        typer.Option(help="Another degradation, such as '{kind: jpeg, quality: 20}'; may be repeated."),
    ] = None,
    clip: Annotated[bool, typer.Option("--clip", help="Clip the noise to what files can hold; papers do not.")] = False,
    split: Split = None,
    image_column: ImageColumn = None,
    root: Root = None,
    download: Download = False,
    grayscale: Grayscale = False,
    limit: Annotated[int | None, typer.Option(help="Use the first images only, this many.", min=1)] = None,
    skip_bad: SkipBad = False,
    output: Annotated[Path | None, typer.Option(help=r"Folder for denoising.json. \[default: only print]")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how well and how fast denoisers restore clean images that are degraded here, by the usual protocol.

    Example: [bold]genaug evaluate denoising denoiser-gray --data bsd68-gray.parquet --rival bm3d[/bold]

    Example: [bold]genaug evaluate denoising ./run/model --data photos --grayscale --noise-level 0.1 --clip[/bold]
    """
    from genaug.workflows.restoration import parse_noise_level, read_degradation, run_restoration

    others = [read_degradation(text) for text in degradation or []]
    levels = [parse_noise_level(text) for text in noise_level or []]
    names = "split", "image_column", "root", "download", "grayscale", "limit", "skip_bad"
    values = locals()
    run_restoration(
        models or [],
        data=data,
        rivals=rival or [],
        noise_levels=levels or (() if others else None),
        degradations=others,
        clip=clip,
        reading={name: values[name] for name in names},
        output=output,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )
