"""`genaug evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.evaluate_denoisers import denoising_command, robustness_command
from genaug.cli.evaluate_utility import utility_command
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

evaluate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Measure a model or a bank on held-out real images."
)

Source = Annotated[
    str, typer.Argument(help="A shipped model's name, a path (./run/model), a hub id, or a bank's path (./bank).")
]


@evaluate_app.command("fidelity")
@one_line_errors
def fidelity_command(
    model: Source,
    data: Data,
    test: Test = None,
    split: Split = None,
    test_split: TestSplit = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="For choosing settings: hold out this share of the training part, which the model has not seen either "
            "where its recipe held out as much or more, and leave the test part alone."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help=r"Samples to draw. \[default: as many as held-out images, at most 10,000]")
    ] = None,
    classifier_steps: Annotated[
        int, typer.Option(help="Training steps of the classifier; figures compare with those of the same number only.")
    ] = 1000,
    features: Annotated[
        str,
        typer.Option(
            help="What distances are taken in: classifier (trained on the training part), inception (FID as it is "
            "published; needs the extra fid, and on a CPU a minute and more for 1000 images), or torchmetrics."
        ),
    ] = "classifier",
    accuracy_score: Annotated[
        bool, typer.Option(help="Train a classifier on samples too, and test it on the held-out images.")
    ] = True,
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
        Path | None, typer.Option(help=r"Folder for fidelity.json and fidelity.png. \[default: only print]")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how close samples and reconstructions are to held-out real images, for each class.

    FID, KID, precision, recall, density and coverage are taken in the features of a small classifier that is trained on
    the training part, and stand beside those of as many real training images. The accuracy score is that of a
    classifier trained on samples alone. --limit-per-class and --longtail apply to the training part alone; give all
    data options as in training.

    Example: [bold]genaug evaluate fidelity digits-vae --data digits --output fidelity[/bold]

    Example: [bold]genaug evaluate fidelity ./run/model --data photos --resize 32x32 --validation 0.1[/bold]

    Example: [bold]genaug evaluate fidelity solar-vae --data solar --features inception[/bold]
    """
    from genaug.workflows.fidelity import run_fidelity

    reading = find_reading(locals())
    run_fidelity(
        model,
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        validation=validation,
        samples=samples,
        classifier_steps=classifier_steps,
        features=features,
        accuracy_score=accuracy_score,
        reading=reading,
        limit_per_class=limit_per_class,
        longtail=longtail,
        output=output,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )


@evaluate_app.command("memorization")
@one_line_errors
def memorization_command(
    model: Source,
    data: Data,
    test: Test = None,
    split: Split = None,
    test_split: TestSplit = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Hold samples against this share of the training part, which the model's recipe held out, and leave "
            "the test part alone."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help=r"Samples of each class. \[default: 1,000; of a bank, all]")
    ] = None,
    allowed: Annotated[
        float, typer.Option(help="Share of near copies beyond those of held-out images that is no reason to warn.")
    ] = 0.01,
    features: Annotated[
        str,
        typer.Option(
            help="What distances are taken in beside pixels: classifier (trained on the training part), inception "
            "(needs the extra fid), or torchmetrics."
        ),
    ] = "classifier",
    classifier_steps: Annotated[int, typer.Option(help="Training steps of the classifier.")] = 1000,
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
        Path | None, typer.Option(help=r"Folder for memorization.json and memorization.png. \[default: only print]")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write what was found to the README.md of the model's directory.")
    ] = False,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for copies of training images among samples, for each class, beside what held-out images show.

    Distances to the nearest training image are taken in the features of a small classifier that is trained on the
    training part, and in pixels. Give all data options as in training, since it is about the very images that the model
    was trained on.

    Example: [bold]genaug evaluate memorization digits-vae --data digits --output memorization[/bold]

    Example: [bold]genaug evaluate memorization ./run/model --data photos --resize 32x32 --card[/bold]
    """
    from genaug.workflows.memorization import run_memorization

    reading = find_reading(locals())
    run_memorization(
        model,
        data=data,
        test=test,
        split=split,
        test_split=test_split,
        validation=validation,
        samples=samples,
        allowed=allowed,
        features=features,
        classifier_steps=classifier_steps,
        reading=reading,
        limit_per_class=limit_per_class,
        longtail=longtail,
        output=output,
        card=card,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )


evaluate_app.command("denoising")(denoising_command)
evaluate_app.command("robustness")(robustness_command)
evaluate_app.command("utility")(utility_command)
