"""Benchmarks of arms as recipes: which arms, classifier, budget and generator, checked field by field."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from genaug.config import parse_config
from genaug.errors import GenaugError, RecipeError, check_ranges, shorten
from genaug.evaluate import Budget
from genaug.evaluate.pieces import RIVAL
from genaug.training.recipe_files import find_recipe, override, read_recipe

ARMS = (
    "plain",
    "class-balanced",
    "class-weighted",
    "effective-number",
    "focal",
    "logit-adjusted",
    "balanced-softmax",
    "post-hoc",
    "class-balanced+mixup",
    "mixup+deferred",
    "class-balanced+trivial-augment",
)


@dataclass(frozen=True)
class Benchmark:
    """Fields of a benchmark's recipe.

    Args:
        arms: names of arms; see `genaug.evaluate.pieces`. One that begins with "rival" does more than the
            best rival that mixes nothing in.
        classifier: "small-cnn", "small-cnn-16" (half as wide), "resnet18", "resnet32", or timm:NAME for one of timm.
        budget: of every training of a classifier.
        seeds: repetitions of every arm on the test part.
        trials: settings of every arm that are tried on a validation part.
        search_seeds: repetitions of every setting there.
        rival: the arm that the others are compared with; nothing is searched then, and `trials` must be 1.
        validation_fraction: share of the training part that is held out for that.
        generator: recipe of the model whose samples "genaug" and its kin bring in, trained anew for every seed.
        overrides: assignments to fields of that recipe.
        start: recipe of a VAE that a GAN starts from, trained anew for every seed too.
        start_overrides: assignments to fields of that recipe.
        filters: of its samples, by name, see `genaug sample --filter`.
        class_counts: images of each class to take for training.
        seed: of the choice of images and settings, and the first of the repetitions.

    Raises:
        GenaugError: a field out of its range, or overrides of a recipe that is not given.
    """

    arms: tuple[str, ...] = ARMS
    classifier: str = "small-cnn"
    budget: Budget = field(default_factory=Budget)
    seeds: int = 5
    trials: int = 4
    search_seeds: int = 1
    rival: str | None = None
    validation_fraction: float = 0.25
    generator: str | None = None
    overrides: tuple[str, ...] = ()
    start: str | None = None
    start_overrides: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    class_counts: tuple[int, ...] | None = None
    seed: int = 0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "seeds": (2, 1000),
            "trials": (1, 1000),
            "search_seeds": (1, 1000),
            "validation_fraction": (0.01, 0.9),
        }
        check_ranges(self, limits)
        for name, of in (("overrides", "generator"), ("start_overrides", "start")):
            if getattr(self, name) and getattr(self, of) is None:
                raise GenaugError(f"{name} must be left out without {of}, whose fields they set")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise GenaugError(f"arms must be at least one, none twice, got {shorten(list(self.arms))}")
        if self.rival is not None and (self.rival not in self.arms or RIVAL in self.rival.split("+")):
            names = [name for name in self.arms if RIVAL not in name.split("+")]
            raise GenaugError(f"rival must be one of the arms, {shorten(names)}, got {shorten(self.rival)}")
        if self.rival is not None and self.trials != 1:
            raise GenaugError(f"trials must be 1 where a rival is named, which leaves no search, got {self.trials}")


def load_benchmark(name: str | Path | None, *, overrides: Iterable[str] = ()) -> Benchmark:
    """Return a benchmark from a shipped name or a YAML file's path; without one, that of `Benchmark()`.

    Args:
        name: a bare word is a shipped benchmark; a path, or any string that ends in .yaml or .yml, is a file.
        overrides: assignments such as "budget.steps=500", applied in order.

    Raises:
        RecipeError: an unknown name, a file that is not YAML, or an unknown or wrong field, with its path.

    >>> load_benchmark(None, overrides=["trials=2"]).trials
    2
    """
    path = None if name is None else find_recipe(name, benchmarks=True)
    values = {} if path is None else read_recipe(path)
    for assignment in overrides:
        override(values, assignment)
    return parse_config(Benchmark, values, where="benchmark" if path is None else path.name, error=RecipeError)
