"""Filters by name, with their default settings, fitted to the images that a model was trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from genaug.bank.selection import Filter
from genaug.data import LabeledImages
from genaug.errors import DataError, GenaugError, shorten
from genaug.features import STEPS, fit_features
from genaug.filters.classifier import ClassifierAgreement, NotACopy, PrototypeBand
from genaug.filters.rejection import DiscriminatorRejection
from genaug.models.base import require
from genaug.seeding import derive_seed

FILTERS = ("agreement", "band", "copies", "discriminator")


def check_filters(names: Sequence[str]) -> None:
    """Raise a `GenaugError` unless all `names` are of `FILTERS`.

    >>> check_filters(["band", "copies"])
    """
    unknown = [name for name in names if name not in FILTERS]
    if unknown:
        raise GenaugError(f"filters must be of {', '.join(FILTERS)}, got {shorten(unknown)}")


def fit_filters(
    names: Sequence[str],
    source: Any,
    train: LabeledImages,
    *,
    held_out: LabeledImages | None,
    seed: int,
    classifier_steps: int = STEPS,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> list[Filter]:
    """Return the filters `names` for the samples of `source`.

    They share a classifier of a derived seed, which is not that of an audit: it would not see the copies that are left.

    Args:
        names: "agreement" (`ClassifierAgreement`), "band" (`PrototypeBand`), "copies" (`NotACopy`), "discriminator"
            (`DiscriminatorRejection`).
        source: the model whose samples will be filtered.
        train: the images that it learned from.
        held_out: images that its recipe held out; None where it held none out.
        seed: of all draws.
        classifier_steps: of the training of the classifier.
        device: where to compute; a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Raises:
        DataError: "discriminator" without held-out images, and what the filters refuse.
        GenaugError: an unknown filter, or a model without a discriminator for one.

    >>> from genaug.data import load_data
    >>> import genaug
    >>> model, train = genaug.load("digits-vae"), load_data("digits")
    >>> fitted = fit_filters(["band"], model, train, held_out=None, seed=0, classifier_steps=2, device="cpu")
    >>> [type(one).__name__ for one in fitted]
    ['PrototypeBand']
    """
    check_filters(names)
    makers: dict[str, Callable[[], Filter]] = {}
    if "discriminator" in names:
        require(source, "discriminate")
        if held_out is None:
            raise DataError(
                "filter discriminator needs images that the model has not learned from, and its recipe held none out; "
                "train with --set training.validation_fraction=0.1"
            )
        makers["discriminator"] = lambda: DiscriminatorRejection(source, source, held_out=held_out, seed=seed)
    if set(names) - {"discriminator"}:
        own = derive_seed(seed, "filters")
        features = fit_features(train, seed=own, steps=classifier_steps, device=device, progress=progress)
        makers["agreement"] = lambda: ClassifierAgreement(features)
        makers["band"] = lambda: PrototypeBand(features, train)
        makers["copies"] = lambda: NotACopy(features, train)
    return [makers[name]() for name in names]
