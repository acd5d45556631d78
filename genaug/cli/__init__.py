"""The command line: `genaug`. Modules of this package import torch only inside their commands."""

import typer

from genaug.cli.bench import bench_command
from genaug.cli.demo import demo_command
from genaug.cli.denoise import denoise_command
from genaug.cli.evaluate import evaluate_app
from genaug.cli.models import models_command
from genaug.cli.preview import preview_command
from genaug.cli.sample import sample_command
from genaug.cli.train import train_command

app = typer.Typer(
    name="genaug",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learned data augmentation for PyTorch: train a model on your images, mix its samples in, measure whether "
    "that helped.",
)
app.command("demo")(demo_command)
app.command("train")(train_command)
app.command("sample")(sample_command)
app.command("denoise")(denoise_command)
app.add_typer(evaluate_app, name="evaluate")
app.command("preview")(preview_command)
app.command("models")(models_command)
app.command("bench")(bench_command)


def main() -> None:
    """Run the command line; exits 0, or non-zero after one line on the standard error stream."""
    app()
