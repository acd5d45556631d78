"""From a name, a path or a hub id to a model; and where shipped recipes and weights lie."""

import os
import re
from pathlib import Path

import torch

from genaug import checkpoint
from genaug.devices import choose_device
from genaug.errors import CheckpointError, shorten
from genaug.models import FAMILIES, Model
from genaug.models.saved import download, is_path
from genaug.storage import expand

WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"


def shipped(kind: str) -> Path:
    """Return the folder of shipped `recipes` or `pretrained` weights, in a wheel or beside the package in a checkout.

    >>> shipped("recipes").is_dir()
    True
    """
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def load(name: str | Path, *, device: str | torch.device | None = None) -> Model:
    """Return the model that `name` means, in evaluation mode.

    Args:
        name: a `Path`, or a string that is absolute or starts with `./`, `../` or `~`, is a checkpoint directory;
            `owner/name` is an id on the Hugging Face hub; a bare word is a shipped model (`list_models()`).
        device: where to put it; the CPU by default.

    Raises:
        CheckpointError: an unknown name, or a checkpoint that is missing, damaged or of an unknown family.
        GenaugError: a device that is not there.

    >>> model = load("digits-vae")
    >>> model.sample(torch.tensor([3, 3])).shape
    torch.Size([2, 1, 8, 8])
    """
    directory = resolve(name)
    return find_family(directory).from_pretrained(directory).to(choose_device(device or "cpu"))


def find_family(directory: Path) -> type[Model]:
    """Return the class of the model in a checkpoint directory.

    Raises:
        CheckpointError: a checkpoint that is missing, damaged or of an unknown family.
    """
    family = checkpoint.read_checkpoint_config(directory).family
    if family not in FAMILIES:
        raise CheckpointError(
            f"{directory / checkpoint.CONFIG}: family must be one of {', '.join(FAMILIES)}, got {shorten(family)}"
        )
    return FAMILIES[family]


def resolve(name: str | Path) -> Path:
    """Return the checkpoint directory that `name` means (see `load`), fetched from the hub where it is a hub id.

    Raises:
        CheckpointError: an unknown or malformed name, or a directory that is missing.
    """
    if not isinstance(name, str | Path):
        raise CheckpointError(f"name must be a string or a Path, got {type(name).__name__}")
    if is_path(name):
        directory = expand(name, error=CheckpointError)
        if not os.path.isdir(directory):
            raise CheckpointError(f"{directory}: no such directory")
        return directory
    name = str(name)
    if re.fullmatch(f"{WORD}/{WORD}", name) and ".." not in name:
        if os.path.isdir(name):  # rather than a model of that name from elsewhere
            raise CheckpointError(f"{name}: is a directory here; to load it write ./{name}")
        return download(name)
    if re.fullmatch(WORD, name) and ".." not in name:
        directory = shipped("pretrained") / name
        if (directory / checkpoint.CONFIG).is_file():
            return directory
        hint = f"; for a directory write ./{name}" if Path(name).is_dir() else ""
        raise CheckpointError(f"{name}: no such shipped model; there are: {', '.join(list_models())}{hint}")
    raise CheckpointError(
        f"{shorten(name)}: must be a shipped model's name, a hub id (owner/name) or a path that starts with /, ./ or ~"
    )


def list_models() -> list[str]:
    """Return the names of the shipped models.

    >>> "digits-vae" in list_models()
    True
    """
    return sorted(path.parent.name for path in shipped("pretrained").glob(f"*/{checkpoint.CONFIG}"))
