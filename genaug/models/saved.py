"""Models on disk and on the Hugging Face hub: strict checkpoints, without pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from torch import Tensor, nn

from genaug import checkpoint
from genaug.checkpoint import CheckpointConfig, WeightsDtype
from genaug.config import parse_config
from genaug.errors import CheckpointError, GenaugError, shorten
from genaug.models.card import make_card
from genaug.models.layers import lay_out_channels_last
from genaug.spec import DataSpec
from genaug.storage import expand


class SavedModel(nn.Module, ModelHubMixin):
    """A module made of `(spec, config)` that is saved as a checkpoint directory and loaded from one."""

    family: ClassVar[str]
    config_class: ClassVar[type[Any]]

    # for the model card
    purpose: ClassVar[str] = "A conditional generative model for data augmentation"
    usage: ClassVar[str] = "images = model.sample(labels)  # labels: int64 (N,) -> float images (N, C, H, W) in [0, 1]"
    caution: ClassVar[str] = (
        "Samples that look right do not have to help a classifier: measure it on held-out real images."
    )

    spec: DataSpec
    config: Any
    recipe: dict[str, Any] | None
    scores: dict[str, Any]
    data_sha256: str | None

    def __init__(self, spec: DataSpec, config: Any) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.recipe, self.scores, self.data_sha256 = None, {}, None

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write a checkpoint directory, in place of one that is there (see `save`); keep its model card.

        The mixin's own method removes the old `config.json` before anything new is written.

        Args:
            save_directory: where to write.
            config: ignored, as are `model_card_kwargs`; the model knows both.
            repo_id: where to push to; the directory's name by default.
            push_to_hub: also upload it, and return the commit's address.
            model_card_kwargs: ignored.
            push_to_hub_kwargs: passed on to `push_to_hub`.

        Raises:
            GenaugError: the disk is full or not writable.
        """
        directory = expand(save_directory)
        self.save(directory, card=read_card(directory / checkpoint.CARD), overwrite=True)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or directory.name, **push_to_hub_kwargs)

    def save(
        self,
        directory: str | Path,
        *,
        card: str | None = None,
        overwrite: bool = False,
        weights_dtype: WeightsDtype = "float32",
    ) -> None:
        """Write a checkpoint directory; a new one appears whole, a replacement that is cut off shows as damage.

        Args:
            directory: where to write.
            card: text of the model card; by default one is made.
            overwrite: replace a checkpoint that is there.
            weights_dtype: that 32-bit weights are rounded to in the file, of half its size with 16 bits; what is loaded
                has 32 bits again.

        Raises:
            GenaugError: the directory exists and `overwrite` is not set, the disk is full, or the weights could not be
                loaded again: they are of another dtype than the family's, or not finite as `weights_dtype`.
        """
        from genaug import __version__

        tensors = self.state_dict()
        with torch.device("meta"):
            expected = checkpoint.describe_tensors(type(self)(self.spec, self.config).float().state_dict())
        for name, found in checkpoint.describe_tensors(tensors).items():
            if expected.get(name) != found:
                raise GenaugError(
                    f"{name} must be {expected.get(name)} to be saved, got {found}; call model.float() first"
                )
        tensors = checkpoint.round_tensors(tensors, weights_dtype)
        if broken := _not_finite(tensors):
            raise GenaugError(f"{broken} must be finite to be saved, got NaN or infinite values; train the model again")

        config = CheckpointConfig(
            family=self.family,
            model=asdict(self.config),
            spec=self.spec,
            weights_sha256="",
            weights_dtype=weights_dtype,
            recipe=self.recipe,
            data_sha256=self.data_sha256,
            scores=self.scores,
            versions={"genaug": __version__, "torch": torch.__version__},
        )
        card = make_card(self) if card is None else card
        checkpoint.write_checkpoint(expand(directory), config, tensors, card, overwrite=overwrite)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model of this family from a directory, or from the Hugging Face hub by its id `owner/name`.

        As for `genaug.load`, a `Path`, or a string that is absolute or starts with `./`, `../` or `~`, is never an id.

        Raises:
            CheckpointError: a missing or damaged checkpoint, or one of another family.
            TypeError: any other keyword argument.
        """
        if model_kwargs:
            raise TypeError(f"from_pretrained got unexpected arguments: {', '.join(model_kwargs)}")
        name = pretrained_model_name_or_path
        if is_path(name):
            return cls._read(expand(name, error=CheckpointError))
        if os.path.isdir(name):
            return cls._read(Path(name))
        directory = download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls._read(directory)

    @classmethod
    def _read(cls, directory: Path) -> Self:
        saved = checkpoint.read_checkpoint_config(directory)
        where = f"{directory / checkpoint.CONFIG}"
        if saved.family != cls.family:
            raise CheckpointError(f"{where}: family must be {cls.family!r}, got {shorten(saved.family)}")
        config = parse_config(cls.config_class, saved.model, where=f"{where}: model", error=CheckpointError)
        try:
            with torch.device("meta"):
                model = cls(saved.spec, config).float()  # whatever torch's default dtype is
        except GenaugError as problem:
            raise CheckpointError(f"{where}: {problem}") from None
        expected = checkpoint.describe_tensors(model.state_dict())
        layout = checkpoint.describe_tensors(checkpoint.round_tensors(model.state_dict(), saved.weights_dtype))
        tensors = checkpoint.read_tensors(directory / checkpoint.WEIGHTS, layout, sha256=saved.weights_sha256)
        tensors = {name: tensor.to(expected[name][0]) for name, tensor in tensors.items()}
        if broken := _not_finite(tensors):
            raise CheckpointError(
                f"{directory / checkpoint.WEIGHTS}: tensor {broken!r} holds NaN or infinite values; train it again"
            )
        model.load_state_dict(tensors, strict=True, assign=True)
        lay_out_channels_last(model)
        model.recipe, model.scores, model.data_sha256 = saved.recipe, saved.scores, saved.data_sha256
        return model.eval()


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first of `tensors` with a value that is NaN or infinite."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def is_path(name: str | Path) -> bool:
    """Tell whether `name` means a path: a `Path`, or a string that is absolute or starts with ./, ../ or ~.

    >>> is_path("./model"), is_path("digits-vae")
    (True, False)
    """
    return isinstance(name, Path) or name in (".", "..") or name.startswith(("/", "./", "../", "~", "\\"))


def download(model_id: str, **options: Any) -> Path:
    """Fetch weights and config of a checkpoint from the Hugging Face hub and return the directory they are in.

    Raises:
        CheckpointError: no such model, or no connection.
    """
    try:
        # both of one revision, also where a new one is pushed in between
        return Path(snapshot_download(model_id, allow_patterns=[checkpoint.CONFIG, checkpoint.WEIGHTS], **options))
    except Exception as problem:  # of the hub's client, its HTTP library, or the disk
        reason = shorten(str(problem).strip().split("\n")[0], 120)
        raise CheckpointError(f"{model_id}: cannot be fetched from the Hugging Face hub ({reason})") from None


def read_card(path: Path) -> str | None:
    """Return the text of a model card, None where there is none."""
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise GenaugError(f"{path}: the model card cannot be kept ({problem}); remove it first") from None
