"""How long a training will take, from a few steps of it."""

import os
import tempfile
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from genaug.data import LabeledImages
from genaug.errors import GenaugError, Interrupted, TrainingWarning
from genaug.training.engine import train
from genaug.training.recipe import Recipe

STEPS = 8
WARM_UP = 3  # the first steps choose kernels and fill caches


def estimate_seconds(
    recipe: Recipe,
    images: LabeledImages,
    *,
    start: str | Path | None = None,
    device: str | torch.device | None = None,
) -> float:
    """Return the seconds that the steps of `recipe` will take, from a few steps that are thrown away.

    Pictures, saving and measuring, for which a watched family also trains a classifier, are not counted.

    Raises:
        GenaugError: started in several processes, or by what `train` raises.

    >>> from genaug.data import load_data
    >>> from genaug.training import load_recipe
    >>> estimate_seconds(load_recipe("demo-vae", overrides=["model.width=8"]), load_data("digits")) > 0
    True
    """
    model = recipe.model
    if hasattr(model, "discriminator_steps"):
        model = replace(model, discriminator_steps=0)  # more than these few would be refused
    few = replace(recipe.training, steps=STEPS, sample_every=10**9, save_every=10**9, log_every=1)
    times: list[float] = []
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise GenaugError("the time is estimated in one process; start the dry run without a launcher")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # of these few steps
        try:
            train(
                replace(recipe, model=model, training=few),
                data=images,
                output=Path(folder) / "run",
                start=start,
                device=device,
                progress=False,
                on_step=lambda step: times.append(time.perf_counter()),
            )
        except Interrupted as stop:
            raise Interrupted("interrupted", stop.signal_number) from None
    steps = [later - earlier for earlier, later in pairwise(times)]
    return median(steps[WARM_UP:]) * recipe.training.steps
