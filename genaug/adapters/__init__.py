"""genaug in the idiom of other libraries, each of which is imported with its adapter only."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genaug.adapters import albumentations, huggingface, kornia

__all__ = ["albumentations", "huggingface", "kornia"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'genaug.adapters' has no attribute {name!r}")
    return importlib.import_module(f"genaug.adapters.{name}")
