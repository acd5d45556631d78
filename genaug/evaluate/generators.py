"""Makers that train a generative model on the training part of each repetition, and what they mix in of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from genaug.bank import SampleBank
from genaug.bank.selection import Filter
from genaug.checkpoint import CONFIG
from genaug.data import LabeledImages
from genaug.errors import GenaugError, check_share
from genaug.evaluate.makers import check_counts, check_neighbors, gather, interpolate, pass_over, rows_of
from genaug.features import STEPS
from genaug.filters.choice import check_filters, fit_filters
from genaug.images import to_uint8
from genaug.models import FAMILIES, Model
from genaug.models.base import require
from genaug.models.running import draw_seeds
from genaug.seeding import check_seed, derive_seed, make_generator
from genaug.storage import expand, explain_write_errors
from genaug.training import Recipe, load_recipe
from genaug.training import train as train_model
from genaug.training.run_folder import MODEL
from genaug.transforms.operations import Vary
from genaug.zoo import load


@dataclass(frozen=True)
class Trained:
    """Samples of a model that a recipe trains on the training part, with the seed of the repetition.

    A class of which filters accept too few gets those that were found, with a `DataWarning` when they are drawn.

    Args:
        recipe: a shipped recipe's name, a YAML file, a dict or a `Recipe`, which is kept as a `Recipe`; its seed does
            not count.
        overrides: assignments to its fields, such as "training.steps=500"; what is kept holds them.
        filters: names of filters that samples must pass, fitted to the training part; see
            `genaug.filters.choice.fit_filters`.
        cache: a folder where each run is kept, in a folder of its own, and found again by recipe, training part and
            seed; one that was cut off goes on. Accepted samples are kept beside it. Processes that share it train each
            model once. By default a model is trained anew at every call, in a temporary folder.
        start: what the model starts from, trained on the same part with the same seed, such as the VAE of a GAN; in
            place of the recipe's `training.start`. Its filters do not count; its runs are kept in `cache` too, where it
            has none of its own.
        classifier_steps: training steps of the filters' classifier.

    Raises:
        RecipeError: a recipe or override that cannot be used.
        GenaugError: an unknown filter; a recipe that starts from a model that others trained, on other images.

    >>> from genaug.data import load_data
    >>> short = Trained("digits-vae", overrides=["training.steps=2", "training.batch_size=8"])
    >>> digits = load_data("digits").subset(range(100))
    >>> short(digits, [3] + 9 * [0], seed=0, device=torch.device("cpu")).counts[:2]
    [3, 0]
    """

    recipe: str | Path | Mapping[str, Any] | Recipe
    overrides: Sequence[str] = ()
    filters: Sequence[str] = ()
    cache: str | Path | None = field(default=None, repr=False)
    start: Trained | None = None
    classifier_steps: int = STEPS

    def __post_init__(self) -> None:
        check_filters(self.filters)
        own = [] if self.start is None else ["training.start=null"]
        recipe = load_recipe(self.recipe, overrides=[*self.overrides, *own])  # once, since a file may change
        if recipe.training.start is not None:
            raise GenaugError(
                f"training.start must be left out, got {recipe.training.start!r}: a model that is compared learns from "
                "the training part alone; override it (training.start=null), or give start=Trained(...)"
            )
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "overrides", ())

    @property
    def family(self) -> type[Model]:
        """Class of the model."""
        return FAMILIES[self.seeded(0).family]

    def seeded(self, seed: int) -> Recipe:
        """Return the recipe of the repetition with this seed.

        Raises:
            GenaugError: a seed that is no integer.
        """
        return replace(load_recipe(self.recipe), seed=check_seed(seed))

    def fit(self, train: LabeledImages, *, seed: int, device: torch.device) -> Model:
        """Return the model that is trained on `train`, or found in the cache, in evaluation mode on `device`.

        Raises:
            GenaugError: training that fails, see `genaug.train`; a cache that cannot be written to.
            CheckpointError: a model in the cache that is damaged.
        """
        with _open(self.cache) as folder:
            return load(self._train_in(folder, train, seed=seed, device=device), device=device)

    def _train_in(self, folder: Path, train: LabeledImages, *, seed: int, device: torch.device) -> Path:
        """Return where the model lies in `folder`, after it was trained unless it is there."""
        start = None
        if self.start is not None:
            start = self.start._train_in(expand(self.start.cache or folder), train, seed=seed, device=device)
        output = folder / self._key(train.fingerprint(), seed)
        options: dict[str, Any] = {"device": device, "resume": True, "overwrite": True, "progress": False}
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{output}.lock"):
                if not (output / MODEL / CONFIG).is_file():  # which is written last
                    train_model(self.seeded(seed), data=train, output=output, start=start, **options)
        return output / MODEL

    def _key(self, data_sha256: str, seed: int) -> str:
        start = None if self.start is None else self.start._key(data_sha256, seed)
        text = json.dumps([self.seeded(seed).to_dict(), data_sha256, start], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return accepted samples of the model.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing; filters that cannot be fitted, or that reject
                all samples.
            GenaugError: a model that cannot sample, or training that fails, see `genaug.train`.
        """
        wanted = check_counts(counts, train)
        require(self.family, "sample")
        if self.cache is None:
            return self._generate(train, wanted, seed=seed, device=device)
        text = json.dumps([list(self.filters), wanted, self.classifier_steps])
        name = f"{self._key(train.fingerprint(), seed)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        output = expand(self.cache) / name
        with explain_write_errors(output.parent):
            output.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{output}.lock"):
                if not output.is_dir():  # which is written whole
                    self._generate(train, wanted, seed=seed, device=device).export(output, format="bank")
        return SampleBank.open(output)

    def _generate(self, train: LabeledImages, counts: list[int], *, seed: int, device: torch.device) -> SampleBank:
        model = self.fit(train, seed=seed, device=device)
        chosen = self._fit_filters(model, train, seed=seed, device=device)
        bank = SampleBank.generate(model, counts, seed=seed, filters=chosen, short="fewer", progress=False)
        bank.provenance = replace(bank.provenance, source=repr(self))
        return bank

    def _fit_filters(self, model: Model, train: LabeledImages, *, seed: int, device: torch.device) -> list[Filter]:
        fraction, held_out = self.seeded(seed).training.validation_fraction, None
        if self.filters and fraction:
            kept, rest = train.split(fraction, seed=seed)
            train, held_out = train.subset(kept), train.subset(rest) if len(rest) else None
        options: dict[str, Any] = {"classifier_steps": self.classifier_steps, "device": device}
        return fit_filters(self.filters, model, train, held_out=held_out, seed=seed, **options)


@dataclass(frozen=True)
class Variations:
    """Real images that a model varies within their class, in place of new samples.

    Of each class whole passes over random orders of its images, then a part of another one; each with its own noise.

    Args:
        trained: the model; it must be able to `vary`, and have no filters.
        strength: from 0, reconstructions, to 1, new samples.
        keep_residual: keep what the model cannot draw; see `genaug.transforms.LatentJitter`. A strength of 0 then makes
            copies.

    Raises:
        GenaugError: a model that cannot vary images, or filters, or a strength out of range.

    >>> short = Trained("digits-vae", overrides=["training.steps=2"])
    >>> Variations(short, strength=0.5).strength
    0.5
    """

    trained: Trained
    strength: float = 0.3
    keep_residual: bool = False

    def __post_init__(self) -> None:
        check_share(self.strength, name="strength")
        _check_model(self.trained, "vary")

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return the variations.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing.
            GenaugError: training that fails, see `genaug.train`.
        """
        wanted = check_counts(counts, train)
        model = self.trained.fit(train, seed=seed, device=device)
        change = Vary(model, strength=self.strength, keep_residual=self.keep_residual)

        def vary(index: int, count: int) -> Tensor:
            rows = pass_over(train, index, count, seed=seed)
            seeds = draw_seeds(count, make_generator(seed, "variations", index))
            return to_uint8(change(train.images[rows], train.labels[rows], seeds))

        return gather(self, train, wanted, seed=seed, draw=vary)


@dataclass(frozen=True)
class LatentSmote:
    """SMOTE among the latents of a model, decoded (DeepSMOTE: Dablain et al. 2022), by imbalanced-learn.

    Each sample is decoded from a point between the latents of a random image of a class and of one of the nearest to it
    in its class. A class of one image gets its reconstruction.

    Args:
        trained: the model; it must be able to `encode` and `decode`, and have no filters.
        neighbors: how many near images to choose from; all others in a class that has no more.

    Raises:
        GenaugError: imbalanced-learn is missing, `neighbors` is below 1, a model without latents, or filters.

    >>> short = Trained("digits-vae", overrides=["training.steps=2"])
    >>> LatentSmote(short).neighbors
    5
    """

    trained: Trained
    neighbors: int = 5

    def __post_init__(self) -> None:
        check_neighbors(self.neighbors)
        _check_model(self.trained, "encode", "decode")

    def __call__(self, train: LabeledImages, counts: Sequence[int], *, seed: int, device: torch.device) -> SampleBank:
        """Return the decoded points.

        Raises:
            DataError: counts that do not fit `train`, or ask for nothing.
            GenaugError: training that fails, see `genaug.train`.
        """
        wanted = check_counts(counts, train)
        model = self.trained.fit(train, seed=seed, device=device)

        def blend(index: int, count: int) -> Tensor:
            rows = rows_of(train, index)
            latents = model.encode(train.images[rows], train.labels[rows]).cpu().numpy()
            own = derive_seed(seed, "latent smote", index)
            points = torch.from_numpy(interpolate(latents, count, neighbors=self.neighbors, seed=own))
            return to_uint8(model.decode(points, torch.full((count,), index)))

        return gather(self, train, wanted, seed=seed, draw=blend)


@contextmanager
def _open(cache: str | Path | None) -> Iterator[Path]:
    """Yield the folder that runs are kept in, or a temporary one."""
    if cache is not None:
        yield expand(cache)
        return
    with TemporaryDirectory(prefix="genaug-") as folder:
        yield Path(folder)


def _check_model(trained: Trained, *methods: str) -> None:
    """Raise a `GenaugError` unless the model will have these methods, and no filters, which would not be asked."""
    for method in methods:
        require(trained.family, method)
    if trained.filters:
        raise GenaugError(f"trained must have no filters, which judge new samples, got {list(trained.filters)}")
