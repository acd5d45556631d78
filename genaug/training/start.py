"""What a training starts from: random weights, or a trained model."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.checkpoint import read_checkpoint_config
from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, RecipeError, TrainingWarning, shorten
from genaug.models import FAMILIES, Model
from genaug.training.recipe import Recipe
from genaug.zoo import load, resolve


@dataclass(frozen=True)
class Start:
    """A trained model to start from: its directory, and the hash of its weights."""

    directory: Path
    sha256: str


def find_start(name: str | Path | None) -> Start | None:
    """Return where the model `name` (see `genaug.load`) lies; None without a name.

    Raises:
        RecipeError: no such model.
    """
    if name is None:
        return None
    try:
        directory = resolve(name)
        return Start(directory, read_checkpoint_config(directory).weights_sha256)
    except GenaugError as problem:
        raise RecipeError(f"start: {problem}") from None


def create(recipe: Recipe, images: LabeledImages, start: Start | None) -> Model:
    """Return a new model of the recipe for the data, or one with what its family takes over of `start`.

    Raises:
        RecipeError: a start that the family or the recipe has no use for, or that cannot be read.
        DataError: a start of other images or classes; pairs where single images are wanted, or the other way round.
    """
    family = FAMILIES[recipe.family]
    spec = family.learned_spec(images.spec, recipe.model, paired=images.paired)
    if start is None:
        return family(spec, recipe.model)
    try:
        trained = load(start.directory)
        if trained.spec != spec:
            raise DataError(f"start must be of the images and classes of the data, got {trained.spec} and {spec}")
        model = family.start_from(trained, spec=spec, config=recipe.model)
    except DataError:
        raise
    except GenaugError as problem:
        raise RecipeError(f"start: {problem}") from None
    if recipe.training.validation_fraction:
        _compare_splits(trained, recipe, images)
    return model


def _compare_splits(trained: Model, recipe: Recipe, images: LabeledImages) -> None:
    """Warn where the model to start from is known to have learned from other images, perhaps those held out now."""
    earlier: Mapping[str, Any] = trained.recipe or {}
    training = earlier.get("training")
    before = earlier.get("seed"), training.get("validation_fraction") if isinstance(training, Mapping) else None
    now = recipe.seed, recipe.training.validation_fraction
    if before == now and trained.data_sha256 not in (None, images.fingerprint()):
        warnings.warn(
            "the model to start from was trained on other data, or a part chosen by other options, so it may have "
            "learned from images that are held out here; train both on the same",
            TrainingWarning,
            stacklevel=4,
        )
    if before != now:
        warnings.warn(
            f"the model to start from was trained with seed {shorten(before[0])} and validation_fraction "
            f"{shorten(before[1])}, not {now[0]} and {now[1]}, so it may have learned from images that are held out "
            "here; train both with the same",
            TrainingWarning,
            stacklevel=4,
        )
