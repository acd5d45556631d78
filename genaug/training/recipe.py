"""Recipes: YAML files that say what to train and how, checked field by field."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from genaug.checkpoint import WeightsDtype
from genaug.config import parse_config, read_bounded
from genaug.errors import GenaugError, RecipeError, check_ranges, shorten
from genaug.models import FAMILIES
from genaug.storage import expand
from genaug.zoo import WORD, is_path, shipped

MAX_RECIPE_BYTES = 1 << 16  # more of it would take PyYAML seconds to parse


@dataclass(frozen=True)
class TrainingConfig:
    """Fields of a recipe's `training` part; a family may have other defaults (`Model.training_defaults`).

    Raises:
        GenaugError: a field out of its range.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 2e-3  # peak; AdamW
    warmup_steps: int = 100
    weight_decay: float = 0.0
    gradient_clip: float = 1.0  # largest norm of the gradient
    class_exponent: float = 0.5  # class c is drawn with p ~ n_c ** class_exponent: 1 as in the data, 0 balanced
    ema_decay: float = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation_fraction: float = 0.0  # of each class, held out to be measured on
    log_every: int = 50
    sample_every: int = 1000
    save_every: int = 500
    keep_states: int = 2
    weights_dtype: WeightsDtype = "float32"  # that the model's file holds
    start: str | None = None  # a shipped model, or one of the hub: of the same family, or a VAE for a GAN
    watch_features: Literal["classifier", "inception"] = "classifier"  # what a family that is watched is compared in

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
        given: Any = self.training
        if given is None:
            object.__setattr__(self, "training", TrainingConfig(**FAMILIES[self.family].training_defaults))
        if self.training.watch_features != "classifier" and not FAMILIES[self.family].watched:
            raise RecipeError(f"training.watch_features must be left out: family {self.family} is not watched")
        if self.training.start is not None and is_path(self.training.start):
            raise RecipeError(
                f"training.start must be a shipped model's name or a hub id, got {shorten(self.training.start)}; a "
                "recipe carries no paths: give it as --start (start=)"
            )
        idle = getattr(self.model, "discriminator_steps", 0)
        if idle >= max(2, self.training.steps):
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
        if self.family not in FAMILIES:
            raise GenaugError(f"family must be one of {', '.join(FAMILIES)}, got {shorten(self.family)}")


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
        path = _find(recipe)
        where, values = path.name, _read_yaml(path)
    for assignment in overrides:
        _override(values, assignment)
    family, training = values.get("family"), values.get("training", {})
    if isinstance(family, str) and family in FAMILIES and isinstance(training, Mapping):
        values["training"] = {**FAMILIES[family].training_defaults, **training}
    fields = parse_config(_Fields, values, where=where, error=RecipeError)
    config_class = FAMILIES[fields.family].config_class
    model = parse_config(config_class, fields.model, where=f"{where}.model", error=RecipeError)
    return Recipe(family=fields.family, model=model, training=fields.training, seed=fields.seed)


def list_recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in shipped("recipes").glob("*.yaml"))


def _find(name: str | Path) -> Path:
    if not isinstance(name, str | Path):
        raise RecipeError(f"recipe must be a name, a path, a dict or a Recipe, got {type(name).__name__}")
    if is_path(name) or str(name).endswith((".yaml", ".yml")):
        return expand(name, error=RecipeError)
    if re.fullmatch(WORD, str(name)) and str(name) in list_recipes():
        return shipped("recipes") / f"{name}.yaml"
    raise RecipeError(
        f"{shorten(str(name))}: no such shipped recipe; there are: {', '.join(list_recipes())}; "
        "a file's name ends in .yaml"
    )


class _Loader(yaml.SafeLoader):
    """YAML with numbers such as 2e-3 as floats (as in YAML 1.2).

    Without aliases, which can blow up a file; tags, some of which crash PyYAML; and keys that stand twice.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a recipe")
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]
            raise yaml.YAMLError("tags such as !!int are not allowed in a recipe")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = sorted(key for key, times in Counter(keys).items() if times > 1)
        if repeated:
            raise yaml.YAMLError(f"field {shorten(repeated[0])} stands twice")
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_yaml(text: str | bytes, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as problem:
        reason = " ".join(str(problem).split())
        raise RecipeError(f"{where}: not valid YAML ({shorten(reason, 160)})") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    values = _parse_yaml(read_bounded(path, MAX_RECIPE_BYTES, error=RecipeError), path.name)
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name}: must hold fields such as 'family: vae', got {shorten(values)}")
    return values


def _override(values: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise RecipeError(f"{shorten(assignment)}: must be of the form field=value, such as training.steps=500")
    *parents, last = name.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{name}: {parent} is a value, not a part of the recipe")
        values[parent] = inner = dict(inner)  # never change the caller's dict
        values = inner
    values[last] = _parse_yaml(text, name)
