"""Learned data augmentation for PyTorch: train a generative model on your images, mix its samples in, measure.

Public names load when they are first used, so that `import genaug` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genaug import adapters, evaluate, filters, transforms
    from genaug.bank import RefreshingBank, SampleBank
    from genaug.errors import CheckpointError, DataError, GenaugError, RecipeError
    from genaug.mixing import MixedDataset, MixedLoader, SyntheticDataset, balance
    from genaug.spec import DataSpec
    from genaug.training import TrainingResult, train
    from genaug.zoo import list_models, load

_HOMES = {
    "CheckpointError": "genaug.errors",
    "DataError": "genaug.errors",
    "DataSpec": "genaug.spec",
    "GenaugError": "genaug.errors",
    "MixedDataset": "genaug.mixing",
    "MixedLoader": "genaug.mixing",
    "RecipeError": "genaug.errors",
    "RefreshingBank": "genaug.bank",
    "SampleBank": "genaug.bank",
    "SyntheticDataset": "genaug.mixing",
    "TrainingResult": "genaug.training",
    "adapters": "genaug",
    "balance": "genaug.mixing",
    "evaluate": "genaug",
    "filters": "genaug",
    "list_models": "genaug.zoo",
    "load": "genaug.zoo",
    "train": "genaug.training",
    "transforms": "genaug",
}

__all__ = [  # noqa: RUF022 (grouped by use)
    "DataSpec",
    "load",
    "list_models",
    "train",
    "TrainingResult",
    "SampleBank",
    "RefreshingBank",
    "SyntheticDataset",
    "MixedDataset",
    "MixedLoader",
    "balance",
    "filters",
    "transforms",
    "adapters",
    "evaluate",
    "GenaugError",
    "CheckpointError",
    "DataError",
    "RecipeError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genaug' has no attribute {name!r}")
    home = _HOMES[name]
    value = (
        importlib.import_module(f"genaug.{name}") if home == "genaug" else getattr(importlib.import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
