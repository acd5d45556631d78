"""Files of recipes: where they lie, YAML without its traps, and assignments to single fields."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from genaug.config import read_bounded
from genaug.errors import RecipeError, shorten
from genaug.models.saved import is_path
from genaug.storage import expand
from genaug.zoo import shipped

MAX_RECIPE_BYTES = 1 << 16  # more of it would take PyYAML seconds to parse
BENCHMARK = "bench-"  # how the names of benchmarks start


def list_recipes(*, benchmarks: bool = False) -> list[str]:
    """Return the names of the shipped recipes of models, or of benchmarks."""
    names = (path.stem for path in shipped("recipes").glob("*.yaml"))
    return sorted(name for name in names if name.startswith(BENCHMARK) == benchmarks)


def find_recipe(name: Any, *, benchmarks: bool = False) -> Path:
    """Return the file of a recipe: a path, any string that ends in .yaml or .yml, or a shipped one by its name.

    Raises:
        RecipeError: something else, or an unknown name.
    """
    if not isinstance(name, str | Path):
        raise RecipeError(f"recipe must be a name, a path, a dict or a Recipe, got {type(name).__name__}")
    if is_path(name) or str(name).endswith((".yaml", ".yml")):
        return expand(name, error=RecipeError)
    known = list_recipes(benchmarks=benchmarks)
    if str(name) in known:
        return shipped("recipes") / f"{name}.yaml"
    raise RecipeError(
        f"{shorten(str(name))}: no such shipped recipe; there are: {', '.join(known)}; a file's name ends in .yaml"
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


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the fields in a YAML file.

    Raises:
        RecipeError: a file that cannot be read, is too large, or holds something else.
    """
    values = _parse_yaml(read_bounded(path, MAX_RECIPE_BYTES, error=RecipeError), path.name)
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name}: must hold fields such as 'family: vae', got {shorten(values)}")
    return values


def override(values: dict[str, Any], assignment: str) -> None:
    """Set a field by an assignment such as "training.steps=500".

    Raises:
        RecipeError: no assignment, no YAML, or a part of the name that is a value.
    """
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
