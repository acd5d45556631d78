"""What a command measures on: the source, the images that it was made from, and held-out ones."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from genaug.bank import SampleBank
from genaug.bank.files import PROVENANCE
from genaug.data import LabeledImages, load_data, stratified_split
from genaug.errors import DataWarning, GenaugError, shorten
from genaug.storage import expand
from genaug.zoo import is_path, load


def open_source(name: str, device: torch.device) -> Any:
    """Return the bank at a path, or the model that `genaug.load` finds under a name, on `device`."""
    if is_path(name) and (expand(name) / PROVENANCE).is_file():
        return SampleBank.open(name)
    return load(name, device=device)


def load_parts(
    source: Any,
    *,
    data: Any,
    test: Any = None,
    split: str | None = None,
    test_split: str | None = None,
    validation: float | None = None,
    reading: Mapping[str, Any] | None = None,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    seed: int = 0,
) -> tuple[LabeledImages, LabeledImages, str]:
    """Return the images that `source` was trained on, held-out ones, and what to call those.

    The share of the training part that a model's recipe held out (`training.validation_fraction`) is in neither, but
    where `validation` asks for it.

    Args:
        source: a model or a bank.
        data: what `genaug.data.load_data` takes.
        test: other data to hold out; by default a part of `data`.
        split: the training part; "train" where there are parts.
        test_split: the held-out part; "test", or all of `test` where that is given.
        validation: hold out this share of the training part instead, of that which the recipe held out.
        reading: further arguments of `load_data` for both parts.
        limit_per_class, longtail: of the training part; drawn with the seed of the model's recipe, as in training.
        seed: in the place of the recipe's, for a bank.

    Raises:
        GenaugError: parts that cannot be read, or a validation part that the model was trained on.
    """
    recipe = getattr(source, "recipe", None) or {}
    drawn_with = recipe.get("seed", seed)
    own: float = recipe["training"]["validation_fraction"] if recipe else 0.0
    options = dict(reading or {})
    if validation is not None:
        _check_validation(validation, own, known=bool(recipe), other=test is not None or test_split is not None)
    pool = load_data(data, split=split, limit_per_class=limit_per_class, longtail=longtail, seed=drawn_with, **options)
    unseen = own or validation
    train = pool.subset(stratified_split(pool.labels, fraction=unseen, seed=drawn_with)[0]) if unseen else pool
    if validation is not None:
        rest = stratified_split(pool.labels, fraction=validation, seed=drawn_with)[1]
        return train, pool.subset(rest), f"{validation:g} of the training part"
    part = test_split or ("test" if test is None else "all")
    return train, load_data(data if test is None else test, split=part, **options), part


def _check_validation(validation: float, own: float, *, known: bool, other: bool) -> None:
    if other:
        raise GenaugError("validation is a part of the training data, so leave --test and --test-split (test=) out")
    if not known:
        warnings.warn(
            "it is not known what this was trained on: the validation part may be among it", DataWarning, stacklevel=4
        )
    if not 0 < validation <= (own if known else 1):
        advice = (
            f"--validation {own:g}" if own else "a model trained with --set training.validation_fraction=0.1 or more"
        )
        raise GenaugError(
            f"validation must be above 0 and at most {own:g}, the share of the training part that the model has not "
            f"seen, got {shorten(validation)}; use {advice}"
        )
