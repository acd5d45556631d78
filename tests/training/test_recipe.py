"""Recipes: what is read, and one line with the field's path and the rule for all that is not."""

import os
import random
import re
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from genaug.errors import GenaugError, RecipeError
from genaug.models import FAMILIES, GANConfig, VAEConfig
from genaug.training.recipe import Recipe, TrainingConfig, load_recipe
from genaug.training.recipe_files import MAX_RECIPE_BYTES, list_recipes
from genaug.zoo import shipped

MINIMAL = {"family": "vae"}


def write(directory: Path, text: str | bytes) -> Path:
    path = directory / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(recipe: Any, message: str, *overrides: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(recipe, overrides=overrides)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# --- what is read


def test_every_form_gives_the_same(tmp_path: Path) -> None:
    expected = Recipe(family="vae", model=VAEConfig(width=8), training=TrainingConfig(steps=5), seed=3)
    values = {"family": "vae", "model": {"width": 8}, "training": {"steps": 5}, "seed": 3}
    path = write(tmp_path, yaml.safe_dump(values))
    for recipe in (values, MappingProxyType(values), path, str(path), expected, expected.to_dict()):
        assert load_recipe(recipe) == expected
    assert load_recipe(write(tmp_path, yaml.safe_dump(expected.to_dict()))) == expected


def test_defaults() -> None:
    recipe = load_recipe(MINIMAL)
    assert recipe == Recipe(family="vae", model=VAEConfig(), training=TrainingConfig(), seed=0)


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes(name: str) -> None:
    path = shipped("recipes") / f"{name}.yaml"
    assert load_recipe(name) == load_recipe(path) == load_recipe(load_recipe(name).to_dict())
    plain, whole = yaml.safe_load(path.read_text())["model"], load_recipe(name).to_dict()["model"]
    assert {**whole, **plain} == whole  # lists are compared too


def test_there_are_shipped_recipes() -> None:
    assert "digits-vae" in list_recipes()
    assert list_recipes() == sorted(list_recipes())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, 0.002) for text in ("2e-3", "2.e-3", "+2E-3", ".2e-2", "2.0e-3", "0.002")),
        ("1", 1.0),
        ("1e0", 1.0),
        ("1e+1", 10.0),
    ],
)
def test_numbers_are_floats_as_in_yaml_1_2(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, f"family: vae\ntraining:\n  learning_rate: {text}\n")
    for recipe in (load_recipe(path), load_recipe(MINIMAL, overrides=[f"training.learning_rate={text}"])):
        assert recipe.training.learning_rate == value


def test_names_like_numbers_stay_text(tmp_path: Path) -> None:
    refused(write(tmp_path, "family: e5\n"), "r.yaml.family: must be one of autoencoder, denoiser, gan, vae, got 'e5'")


def test_a_file_may_be_a_link_and_its_name_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "family: vae\nseed: 7\n")
    (tmp_path / "link.yml").symlink_to("r.yaml")
    (tmp_path / "no suffix").symlink_to("r.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("r.yaml", "link.yml", "./no suffix", "~/r.yaml", Path("no suffix"), f"../{tmp_path.name}/r.yaml"):
        assert load_recipe(name).seed == 7


# --- files that are refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold fields such as 'family: vae', got None"),
        ("# a comment\n", "must hold fields"),
        ("- family: vae", "must hold fields .* got .*family"),
        ("vae", "must hold fields .* got 'vae'"),
        ("0x" + "f" * 6000, "must hold fields"),
        ("family: vae\n\tseed: 1", "not valid YAML .*line 2"),
        ("family: [vae", "not valid YAML"),
        ("family: vae\nfamily: vae", "not valid YAML .*'family' stands twice"),
        ("family: vae\nmodel: {width: 8, width: 9}", "not valid YAML .*'width' stands twice"),
        ("a: &a [x]\nb: *a", "aliases are not allowed"),
        ("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(50)), "aliases are not allowed"),
        ("&a [*a]", "aliases are not allowed"),
        ("family: vae\nseed: !!int ''", "tags such as !!int are not allowed"),
        ("family: vae\nseed: !!timestamp x", "tags"),
        ("family: vae\nseed: !!bool x", "tags"),
        ("!!python/object/apply:os.system ['false']", "tags"),
        ("!!python/name:os.system", "tags"),
        ("family: vae\n---\nfamily: vae", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("<<: 1", "not valid YAML"),
        ("family: =", "not valid YAML"),
        ("[" * 1000, "not valid YAML"),
        ("[" * 5000 + "]" * 5000, "not valid YAML"),
        ("- " * 5000, "not valid YAML"),
        ("{a: " * 5000, "not valid YAML"),
        (b"family: \xff\xfe", "not valid YAML"),
        (b"family: va\0e", "not valid YAML"),
        (b"\x80\x04\x95", "not valid YAML"),
        ("seed: 1\n" * 20_000, "larger than 65536 bytes"),
        ("#" * (MAX_RECIPE_BYTES + 1), "larger than 65536 bytes"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(write(tmp_path, text), f"r.yaml: .*{message}")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name in ("d.yaml", "fifo.yaml", "loop.yaml", "nothing.yaml", "a" * 300 + ".yaml", "n\0.yaml", "l\nf.yaml"):
        refused(str(tmp_path / name), "no such file|cannot be read")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "^'nope': no such shipped recipe; there are: .*digits-vae.*; a file's name ends in .yaml"),
        ("", "no such shipped recipe"),
        ("digits-vae/../digits-vae", "no such shipped recipe"),
        ("digits-vae\n", "no such shipped recipe"),
        ("recipes/digits-vae", "no such shipped recipe"),
        ("x" * 1000, "no such shipped recipe"),
        ("..", "no such file"),
        ("~nobody-of-this-name/r.yaml", "cannot be expanded"),
        (5, "recipe must be a name, a path, a dict or a Recipe, got int"),
        (None, "got NoneType"),
        (b"digits-vae", "got bytes"),
        (["digits-vae"], "got list"),
    ],
)
def test_unknown_names(name: Any, message: str) -> None:
    refused(name, message)


# --- fields that are refused

FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"famly": "vae"}, "famly: unknown field; allowed: family, model, seed, training"),
    (
        {"training": {"epochs": 3}},
        "training.epochs: unknown field; allowed: batch_size, class_exponent, .*weight_decay",
    ),
    ({"model": {"dim": 3}}, "model.dim: unknown field; allowed: beta, blocks, .*width"),
    ({"family": "flow"}, "family: must be one of autoencoder, denoiser, gan, vae, got 'flow'"),
    ({"family": 3}, "family: input should be a valid string, got 3"),
    ({"seed": "0"}, "seed: input should be a valid integer, got '0'"),
    ({"seed": 1.5}, "seed: input should be a valid integer, got 1.5"),
    ({"seed": True}, "seed: input should be a valid integer, got True"),
    ({"seed": None}, "seed: input should be a valid integer, got None"),
    ({"model": None}, "model: input should be"),
    ({"model": [1]}, "model: input should be"),
    ({"training": "fast"}, "training: input should be an object, got 'fast'"),
    ({"training": {"steps": "many"}}, "training.steps: input should be a valid integer, got 'many'"),
    ({"training": {"steps": 2e3}}, "training.steps: input should be a valid integer, got 2000.0"),
    ({"training": {"steps": 0}}, "training.steps: must be from 1 to 1e.09, got 0"),
    ({"training": {"steps": 10**100}}, "training.steps: must be from 1 to 1e.09"),
    ({"training": {"batch_size": -1}}, "training.batch_size: must be from 1 to 1e.06, got -1"),
    ({"training": {"learning_rate": -1e-3}}, "training.learning_rate: must be from 0 to 10, got -0.001"),
    ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: must be plain .*finite.*, got nan"),
    ({"training": {"gradient_clip": float("inf")}}, "training.gradient_clip: must be plain .*, got inf"),
    ({"training": {"ema_decay": 1.5}}, "training.ema_decay: must be from 0 to 1, got 1.5"),
    ({"training": {"validation_fraction": 1.0}}, "training.validation_fraction: must be from 0 to 0.9, got 1.0"),
    ({"training": {"precision": "float8"}}, "training.precision: input should be 'auto', 'float32' or 'bfloat16', got"),
    ({"model": {"width": 0}}, "model.width: must be from 1 to 4096, got 0"),
    ({"model": {"likelihood": "x"}}, "model.likelihood: input should be 'bernoulli' or 'gaussian', got 'x'"),
    ({"model": {"beta": "1"}}, "model.beta: input should be a valid number, got '1'"),
    ({"training": {"a": 1, "b": 2}}, r"training.a: unknown field; .* \(and 1 more\)"),
]


@pytest.mark.parametrize(("change", "message"), FIELDS)
@pytest.mark.parametrize("form", ["dict", "file"])
def test_wrong_fields(tmp_path: Path, change: dict[str, Any], message: str, form: str) -> None:
    values = {**MINIMAL, **change}
    if form == "dict":
        refused(values, f"^recipe.{message}")
    else:
        refused(write(tmp_path, yaml.safe_dump(values)), f"^r.yaml.{message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "^recipe.family: missing field"),
        ({**MINIMAL, 5: 1}, "^recipe.5: unknown field"),
        ({**MINIMAL, (1, 2): 1}, "^recipe: must be plain"),
        ({**MINIMAL, "seed": object()}, "^recipe.seed: must be plain"),
        (Recipe(family="vae", model=VAEConfig(), seed="x"), "^recipe.seed: input"),  # type: ignore[arg-type]
    ],
)
def test_values_that_no_file_holds(values: Any, message: str) -> None:
    refused(values, message)


def test_training_config_checks_itself() -> None:
    with pytest.raises(GenaugError, match="^steps must be from 1 to 1e.09, got 0"):
        TrainingConfig(steps=0)
    with pytest.raises(GenaugError, match="learning_rate must be"):
        TrainingConfig(learning_rate=float("nan"))


def test_dates_and_sets_are_no_values(tmp_path: Path) -> None:
    refused(write(tmp_path, "family: vae\nseed: 2020-01-01"), "r.yaml.seed: must be plain .* got datetime.date")
    refused(write(tmp_path, "family: vae\nseed: 2020-99-99"), "r.yaml: not valid YAML")


# --- overrides


def test_overrides_apply_in_order_and_change_nothing_of_the_caller() -> None:
    training = {"steps": 1}
    values = {"family": "vae", "training": training}
    overrides = ["training.steps=5", "model.width=8", "seed=1", "training.steps=6", "training.precision=float32"]
    recipe = load_recipe(values, overrides=overrides)
    assert (recipe.training.steps, recipe.model.width, recipe.seed) == (6, 8, 1)
    assert recipe.training.precision == "float32"
    assert values == {"family": "vae", "training": {"steps": 1}}
    assert load_recipe(recipe, overrides=["seed=2"]).seed == 2
    assert recipe.seed == 1
    assert load_recipe("digits-vae", overrides=["training={steps: 3}"]).training == TrainingConfig(steps=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", "^'training.steps': must be of the form field=value, such as training.steps=500"),
        ("", "^'': must be of the form field=value"),
        ("=5", "must be of the form field=value"),
        ("training.stepz=5", "^recipe.training.stepz: unknown field; allowed: .*steps"),
        ("stepz=5", "^recipe.stepz: unknown field; allowed: family"),
        ("training..steps=5", "unknown field"),
        ("training.=5", "unknown field"),
        (".steps=5", "unknown field"),
        ("training.steps.x=5", "^recipe.training.steps: input should be a valid integer"),
        ("family.x=5", "^family.x: family is a value, not a part of the recipe"),
        ("training.steps=many", "^recipe.training.steps: input should be a valid integer, got 'many'"),
        ("training.steps=", "^recipe.training.steps: input should be a valid integer, got None"),
        ("training.steps=0", "^recipe.training.steps: must be from 1"),
        ("training.steps=[", "^training.steps: not valid YAML"),
        ("training.steps=!!int ''", "^training.steps: not valid YAML"),
        ("training.steps=*a", "^training.steps: not valid YAML .*aliases"),
        ("training=5", "^recipe.training: input should be an object, got 5"),
        ("model.beta=.nan", "^recipe.model.beta: must be plain"),
        ("family=flow", "^recipe.family: must be one of autoencoder, denoiser, gan, vae, got 'flow'"),
        ("a\nb=1", "^recipe.a b: unknown field"),
        ("a." * 5000 + "b=1", r"^recipe(\.a: must be plain|: invalid JSON: recursion limit)"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    refused(MINIMAL, message, override)


def test_random_damage_is_read_or_is_one_error(tmp_path: Path) -> None:
    data = (shipped("recipes") / "digits-vae.yaml").read_bytes()
    source = random.Random(0)
    letters = b"\0\t\n\r #&*!|>'\"%@`{}[],:-?=~.<_0x1eE\x80\xff"
    refusals = 0
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(source.choice([1, 2, 5])):
            changed[source.randrange(len(changed))] = source.choice(letters)
        try:
            assert isinstance(load_recipe(write(tmp_path, bytes(changed))), Recipe)
        except RecipeError:
            refusals += 1
    assert 0 < refusals < 200


def test_a_family_has_its_own_defaults_of_training():
    assert load_recipe({"family": "gan"}).training.learning_rate == 2e-4
    assert load_recipe({"family": "gan"}, overrides=["training.learning_rate=1e-3"]).training.learning_rate == 1e-3
    assert load_recipe({"family": "vae"}, overrides=["family=gan"]).training.gradient_clip == 100
    assert load_recipe({"family": "vae"}).training.learning_rate == 2e-3
    assert Recipe(family="gan", model=GANConfig()) == load_recipe({"family": "gan"})
    assert load_recipe(Recipe(family="gan", model=GANConfig())) == load_recipe({"family": "gan"})


@pytest.mark.parametrize("cls", [TrainingConfig, *(family.config_class for family in FAMILIES.values())])
def test_every_field_is_told_with_its_range(cls: Any) -> None:
    told = re.split(r"\n        (?=\w+: )", cls.__doc__.split("Args:")[1].split("Raises:")[0])
    entries = {entry.split(": ")[0].strip(): " ".join(entry.split()) for entry in told if ": " in entry}
    assert set(entries) == {field.name for field in fields(cls)}
    kinds = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(cls)}
    numbers = {name: kind for name, kind in kinds.items() if re.match(r"(int|float)\b", kind)}
    assert len(numbers) >= 4
    for name, kind in numbers.items():
        found = re.findall(r"([\d.e-]+)(?: \([^)]*\))?,? to ([\d.e]+)", entries[name])
        assert found, name
        low, high = (float(limit.rstrip(".")) for limit in found[-1])
        low, high = (int(low), int(high)) if kind == "int" else (low, high)
        for value in (low, high):
            assert getattr(cls(**{name: value}), name) == value
        for value in (low - 1, high + 1):
            with pytest.raises(GenaugError, match=name):
                cls(**{name: value})
