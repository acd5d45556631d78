"""Recipes: YAML files that say what to train and how, checked field by field."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from genaug.checkpoint import WeightsDtype
from genaug.config import parse_config
from genaug.errors import RecipeError, check_choice, check_ranges, shorten
from genaug.models import FAMILIES
from genaug.models.saved import is_path
from genaug.training.recipe_files import find_recipe, override, read_recipe


@dataclass(frozen=True)
class TrainingConfig:
    """Fields of a recipe's `training` part; a family may have other defaults (`Model.training_defaults`).

    Args:
        steps: of the optimizer, AdamW; 1 to 1e9.
        batch_size: images of a step in each process; 1 to 1e6.
        learning_rate: the highest one, from which it falls as a cosine; 0 to 10.
        warmup_steps: in which the learning rate rises, at most half of `steps`; 0 to 1e9.
        weight_decay: of the optimizer; 0 to 10.
        gradient_clip: largest norm of the gradient; 1e-6 to 1e9.
        class_exponent: a class of n images is drawn with a probability like n ** class_exponent, from 0 (all equally
            often) to 1 (as in the data).
        ema_decay: of the average of the weights, which is what is kept; 0 to 1.
        precision: of the network's arithmetic: "float32", "bfloat16", or "auto": bfloat16 where it is fast.
        validation_fraction: share of each class that is held out to be measured on; 0 to 0.9.
        log_every: steps between two lines of metrics; 1 to 1e9.
        sample_every: steps between two pictures of samples, and of a watched family's scores; 1 to 1e9.
        save_every: steps between two states to resume from; 1 to 1e9.
        keep_states: how many of them are kept; 1 to 1000.
        weights_dtype: that the model's file holds: "float32", "float16" or "bfloat16".
        start: a shipped model, or one of the hub, to start from: of the same family, or a VAE for a GAN.
        watch_features: what a watched family is compared in: "classifier", of the training images, or "inception".

    Raises:
        GenaugError: a field out of its range.

    >>> TrainingConfig(steps=100).batch_size
    128
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    class_exponent: float = 0.5
    ema_decay: float = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation_fraction: float = 0.0
    log_every: int = 50
    sample_every: int = 1000
    save_every: int = 500
    keep_states: int = 2
    weights_dtype: WeightsDtype = "float32"
    start: str | None = None
    watch_features: Literal["classifier", "inception"] = "classifier"

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "steps": (1, 10**9),
            "batch_size": (1, 10**6),
            "learning_rate": (0.0, 10.0),
            "warmup_steps": (0, 10**9),
            "weight_decay": (0.0, 10.0),
            "gradient_clip": (1e-6, 1e9),
            "class_exponent": (0.0, 1.0),
            "ema_decay": (0.0, 1.0),
            "validation_fraction": (0.0, 0.9),
            "log_every": (1, 10**9),
            "sample_every": (1, 10**9),
            "save_every": (1, 10**9),
            "keep_states": (1, 1000),
        }
        check_ranges(self, limits)


@dataclass(frozen=True)
class Recipe:
    """A family, the fields of its model, the fields of its training, and a seed.

    >>> Recipe(family="vae", model=FAMILIES["vae"].config_class(latent_dim=8)).training.batch_size
    128
    """

    family: str
    model: Any
    training: TrainingConfig = None  # type: ignore[assignment]  # by default the family's
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.family, FAMILIES, name="family")
        given: Any = self.training
        if given is None:
            object.__setattr__(self, "training", TrainingConfig(**FAMILIES[self.family].training_defaults))
        for name, kind in (("model", FAMILIES[self.family].config_class), ("training", TrainingConfig)):
            if not isinstance(getattr(self, name), kind):
                raise RecipeError(
                    f"{name} must be a {kind.__name__} for family {self.family}, got "
                    f"{shorten(getattr(self, name))}; plain values are for load_recipe"
                )
        if self.training.watch_features != "classifier" and not FAMILIES[self.family].watched:
            raise RecipeError(f"training.watch_features must be left out: family {self.family} is not watched")
        if self.training.start is not None and is_path(self.training.start):
            raise RecipeError(
                f"training.start must be a shipped model's name or a hub id, got {shorten(self.training.start)}; a "
                "recipe carries no paths: give it as --start (start=)"
            )
        idle = getattr(self.model, "discriminator_steps", 0)
        if idle >= self.training.steps:
            raise RecipeError(
                f"model.discriminator_steps must be below training.steps ({self.training.steps}), or the generator "
                f"never learns, got {idle}"
            )
        if getattr(self.model, "decoder", None) is not None:
            raise RecipeError("model.decoder must be left out: it is that of the model to start from")
        if self.training.batch_size % self.batch_group:
            raise RecipeError(
                f"training.batch_size must be a multiple of model.minibatch_std ({self.batch_group}), whose images of "
                f"one class stand together, got {self.training.batch_size}"
            )

    @property
    def batch_group(self) -> int:
        """How many neighbors in a batch are of one class."""
        return int(getattr(self.model, "batch_group", 1))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, as JSON has them, every field spelled out."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Fields:
    family: str
    model: dict[str, Any] = field(default_factory=dict)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_choice(self.family, FAMILIES, name="family")


def load_recipe(recipe: Recipe | Mapping[str, Any] | str | Path, *, overrides: Iterable[str] = ()) -> Recipe:
    """Return a validated recipe from a shipped name, a YAML file's path, a dict or a `Recipe`.

    Args:
        recipe: a bare word is a shipped recipe; a path, or any string that ends in .yaml or .yml, is a file.
        overrides: assignments such as "training.steps=500", applied in order.

    Raises:
        RecipeError: an unknown name, a file that is not YAML, or an unknown or wrong field, with its path.

    >>> load_recipe("digits-vae", overrides=["training.steps=10"]).training.steps
    10
    """
    if isinstance(recipe, Recipe):
        where, values = "recipe", recipe.to_dict()
    elif isinstance(recipe, Mapping):
        where, values = "recipe", dict(recipe)
    else:
        path = find_recipe(recipe)
        where, values = path.name, read_recipe(path)
    for assignment in overrides:
        override(values, assignment)
    family, training = values.get("family"), values.get("training", {})
    if isinstance(family, str) and family in FAMILIES and isinstance(training, Mapping):
        values["training"] = {**FAMILIES[family].training_defaults, **training}
    fields = parse_config(_Fields, values, where=where, error=RecipeError)
    config_class = FAMILIES[fields.family].config_class
    model = parse_config(config_class, fields.model, where=f"{where}.model", error=RecipeError)
    return Recipe(family=fields.family, model=model, training=fields.training, seed=fields.seed)
