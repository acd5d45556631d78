"""Models inside transforms: named by path and hash, loaded where they are first used, once in each process."""

from pathlib import Path
from typing import Any

import torch

from genaug import checkpoint
from genaug.devices import check_process
from genaug.errors import CheckpointError
from genaug.models import Model, require
from genaug.models.saved import is_path
from genaug.spec import DataSpec
from genaug.zoo import find_family, load, resolve


class ModelReference:
    """A model that can do `method`, held as it is, or by name or path and the hash of its weights.

    A model held by name is loaded when it is first used, in each process, and pickled without its weights.

    Args:
        model: a model, or what `genaug.load` takes.
        method: what it must be able to do.
        sha256: hash that the weights must have.

    Raises:
        GenaugError: a model that cannot do `method`.
        CheckpointError: a model that cannot be found, or whose weights have another hash.

    >>> reference = ModelReference("digits-vae", "vary")
    >>> reference.spec.size, reference.name, type(reference.get()).__name__
    ('1x8x8', 'vae digits-vae', 'VAE')
    """

    def __init__(self, model: Model | str | Path, method: str, *, sha256: str | None = None) -> None:
        self.id: str | None = None
        self._directory: Path | None = None
        self._model: Any = None
        if isinstance(model, (str, Path)):
            # Without ./ a relative Path would read as a shipped model's name.
            self.id = str(model) if isinstance(model, str) or is_path(str(model)) else f"./{model.as_posix()}"
            self._directory = resolve(model).absolute()
            config = checkpoint.read_checkpoint_config(self._directory)
            self.spec: DataSpec = config.spec
            self.sha256: str | None = config.weights_sha256
            self.name = f"{config.family} {self.id}"
        else:
            self.spec, self.name, self._model = model.spec, getattr(model, "family", type(model).__name__), model
            self.sha256 = None
        self.check(method)
        if sha256 not in (None, self.sha256):
            raise CheckpointError(f"{self.name}: the weights must have the sha256 {sha256}, got {self.sha256}")

    def check(self, method: str) -> None:
        """Raise a `GenaugError` unless the model can do `method`; one held by name is not loaded for that."""
        require(self._model if self._directory is None else find_family(self._directory), method)

    def get(self) -> Any:
        """Return the model, loaded now if it was not yet loaded in this process.

        Raises:
            CheckpointError: weights that are missing, damaged, or not those of when the reference was made.
            GenaugError: a model on a GPU in a forked process.
        """
        if self._model is None and self._directory is not None:
            found = checkpoint.read_checkpoint_config(self._directory).weights_sha256
            if found != self.sha256:
                raise CheckpointError(f"{self._directory}: the weights have changed since the transform was made")
            with torch.inference_mode(False):  # whose tensors could not be trained
                self._model = load(self._directory)
        device = getattr(self._model, "device", None)
        if isinstance(device, torch.device):
            check_process(device)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._directory is not None:
            state["_model"] = None
        return state
