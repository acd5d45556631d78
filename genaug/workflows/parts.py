"""What a command measures on: the source, the images that it was made from, and held-out ones."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.files import PROVENANCE
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, DataWarning, GenaugError, shorten
from genaug.models.saved import is_path
from genaug.seeding import check_seed
from genaug.storage import expand
from genaug.zoo import load


def open_source(name: str, device: torch.device) -> Any:
    """Return the bank at a path, or the model that `genaug.load` finds under a name, on `device`."""
    if is_path(name) and (expand(name) / PROVENANCE).is_file():
        return SampleBank.open(name)
    return load(name, device=device)


@dataclass(frozen=True)
class TrainingPart:
    """The training part of a model's data, and which share of it the recipe held out, with which seed."""

    images: LabeledImages
    share: float  # `training.validation_fraction`; 0 without a recipe
    seed: int

    def split(self, fraction: float) -> tuple[Tensor, Tensor]:
        """Return the rows that training with this `validation_fraction` keeps, and those that it holds out."""
        return self.images.split(fraction, seed=self.seed)


def load_training_part(source: Any, *, data: Any, seed: int = 0, **options: Any) -> TrainingPart:
    """Return the images that `source` was trained on, chosen by the seed of its recipe; for a bank by `seed`."""
    drawn_with, share = read_split(source, seed=seed)
    return TrainingPart(load_data(data, seed=drawn_with, **options), share, drawn_with)


def read_split(source: Any, *, seed: int = 0) -> tuple[int, float]:
    """Return the seed of the recipe of `source`, and the share of its data that it held out.

    They are `seed` and 0 without a recipe, or with one that tells none, such as of training that is not ours.

    Raises:
        GenaugError: values that are none.

    >>> from types import SimpleNamespace
    >>> read_split(SimpleNamespace(recipe={"note": "my own loop"}), seed=3)
    (3, 0.0)
    """
    recipe = getattr(source, "recipe", None) or {}
    training = recipe.get("training") or {}
    share = training.get("validation_fraction", 0.0) if isinstance(training, Mapping) else 0.0
    if type(share) not in (int, float) or not 0 <= share < 1:
        raise GenaugError(f"validation_fraction of the model's recipe must be from 0 to below 1, got {shorten(share)}")
    return check_seed(recipe.get("seed", seed)), float(share)


def check_match(images: LabeledImages, source: Any) -> None:
    """Check that images have the size and the classes of a model or bank, in the same order.

    Raises:
        DataError: others.
    """
    source.spec.check_images(images.images, name="images of data")
    if source.spec.class_names and images.spec.class_names != source.spec.class_names:
        raise DataError(
            f"data must have the classes of the model in the same order, {shorten(source.spec.class_names)}, got "
            f"{shorten(images.spec.class_names)}; give the data that it was trained on"
        )


def load_parts(
    source: Any,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    validation: float | None = None,
    reading: Mapping[str, Any] | None = None,
    whole: bool = False,
    **options: Any,
) -> tuple[LabeledImages, LabeledImages, str]:
    """Return the images that `source` was trained on, held-out ones, and what to call those.

    The share of the training part that a model's recipe held out (`training.validation_fraction`) is in neither, but
    where `validation` or `whole` asks for it.

    Args:
        source: a model or a bank.
        data: what `genaug.data.load_data` takes.
        test: other data to hold out; by default a part of `data`.
        split: the training part; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        validation: hold out this share of the training part instead, of that which the recipe held out.
        reading: further arguments of `load_data` for both parts.
        whole: return all of the training part that is not held out here.
        options: further ones for the training part alone; `seed` takes the place of the recipe's, for a bank.

    Raises:
        GenaugError: parts that cannot be read, or a validation part that the model was trained on.
    """
    reading = dict(reading or {})
    if validation is not None:
        _check_validation(validation, source, other=test is not None or test_split is not None)
    part = load_training_part(source, data=data, split=split, **options, **reading)
    unseen = validation if whole or not part.share else part.share
    train = part.images if unseen is None else part.images.subset(part.split(unseen)[0])
    if validation is not None:
        return train, part.images.subset(part.split(validation)[1]), f"{validation:g} of the training part"
    name = test_split or ("test" if test is None else "all")
    return train, load_data(data if test is None else test, split=name, **reading), name


def _check_validation(validation: float, source: Any, *, other: bool) -> None:
    if other:
        raise GenaugError("validation is a part of the training data, so leave --test and --test-split (test=) out")
    if not getattr(source, "recipe", None):
        warnings.warn(
            "it is not known what this was trained on: the validation part may be among it", DataWarning, stacklevel=4
        )
        return
    _, own = read_split(source)
    if not 0 < validation <= own:
        advice = (
            f"--validation {own:g}" if own else "a model trained with --set training.validation_fraction=0.1 or more"
        )
        raise GenaugError(
            f"validation must be above 0 and at most {own:g}, the share of the training part that the model has not "
            f"seen, got {shorten(validation)}; use {advice}"
        )
