"""The command line: `genaug`. Modules of this package import torch only inside their commands."""

import typer

from genaug.cli.bench import bench
from genaug.cli.demo import demo
from genaug.cli.models import models
from genaug.cli.sample import sample
from genaug.cli.train import train

app = typer.Typer(
    name="genaug",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learned data augmentation for PyTorch: train a model on your images, mix its samples in, measure whether "
    "that helped.",
)
for command in (demo, train, sample, models, bench):
    app.command()(command)


def main() -> None:
    """Run the command line; exits 0, or non-zero after one line on the standard error stream."""
    app()
