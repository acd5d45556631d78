"""Transforms for albumentations 2.0.8, and for albumentationsx from 2.4: whichever of the two is installed."""

import inspect
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.images import cast_like
from genaug.models import Model
from genaug.seeding import derive_seed
from genaug.transforms.operations import Channels, Operation, Restore, Vary

try:
    import albumentations as A
except ImportError as problem:
    raise ImportError(
        f"genaug.adapters.albumentations needs albumentations ({problem}); install genaug[albumentations]"
    ) from problem

try:
    from albumentations import SampledParams
except ImportError:
    SampledParams = None  # before albumentationsx 2.4, which has parameters drawn in another method

__all__ = ["Denoise", "LatentJitter", "ModelTransform", "Reconstruct"]

SEED_BITS = 53  # as many as every reader of JSON keeps


class UnsavedModel:
    """Stands for a model given as an object where a pipeline is turned into a dict: this cannot become JSON."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __repr__(self) -> str:
        return f"<{type(self.model).__name__} given as an object>"


def _unwrap(model: Any) -> Any:
    return model.model if isinstance(model, UnsavedModel) else model


class ModelTransform(A.ImageOnlyTransform):  # type: ignore[misc]
    """Changes images with probability `p` by an operation of a model; masks, boxes and keypoints stay as they are.

    Takes images of uint8, or of float32 in [0, 1], of shape (H, W) or (H, W, C), and keeps both. The images of one call
    (`images`, `volume`, `volumes`) go through the network at once. They share the choice and the label, but each has
    its own noise, and the first of them that of a single `image`.

    Random numbers come from the generator that albumentations gives to its transforms, so that `Compose(seed=...)`
    holds. What is drawn is one integer, `seed`. `ReplayCompose` records it and the label, as JSON; a replay takes the
    recorded label, not that of its own call.

    In albumentations 2.0.8 all workers of a DataLoader draw the same random numbers, whatever the transform, and
    without `persistent_workers` again in each epoch. There, give the DataLoader a `worker_init_fn` that calls the
    pipeline's `set_random_seed(torch.initial_seed())`. In albumentationsx the workers differ.

    Serialized with the model's name (a shipped model, a hub id or a path, as it was given) and the hash of its weights.
    A pipeline read from a dict or file refuses other weights of the same name. `genaug.adapters.albumentations` must be
    imported before `albumentations.from_dict` or `albumentations.load`. A relative path counts from the working
    directory. A model given as an object cannot be serialized: a pipeline with it cannot be saved, recorded by
    `ReplayCompose`, or printed.

    For GPUs, forked processes, `resize` and `channels` see `genaug.transforms.ModelTransform`.

    Args:
        operation: what is done to the images.
        p: probability of changing the images of a call.
        label_key: name of the argument of the call with the class index (or None for no label), as "label" in
            `transform(image=image, label=3)`; without it the model runs with the null class ("no label").

    Raises:
        GenaugError: `p` outside [0, 1], a `label_key` that is no name.
        DataError: in use, images that do not fit the model, a label that is missing or that it does not know.
        CheckpointError: in use, weights that have changed since.

    >>> from genaug.transforms.operations import Vary
    >>> transform = ModelTransform(Vary("digits-vae", strength=0.0), p=1.0)
    >>> transform(image=np.zeros((8, 8), dtype=np.uint8))["image"].shape
    (8, 8)
    """

    def __init__(self, operation: Operation, *, p: float, label_key: str | None = None) -> None:
        check_share(p, name="p")
        if not (label_key is None or (isinstance(label_key, str) and label_key)):
            raise GenaugError(f'label_key must be the name of an argument, such as "label", got {shorten(label_key)}')
        super().__init__(p=p)
        # Under another name than the argument's: attributes of the names of arguments are what is serialized.
        self._operation = operation
        self.model = operation.reference.id or UnsavedModel(operation.reference.get())
        self.sha256 = operation.reference.sha256
        self.label_key, self.resize, self.channels = label_key, operation.resize, operation.channels

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the arguments of this very class: albumentations would add those of its bases."""
        names = set(inspect.signature(type(self).__init__).parameters)
        return tuple(sorted(names - {"self", "p"}))

    @property
    def targets_as_params(self) -> list[str]:
        """The name of the argument with the label, which `Compose(strict=True)` must know."""
        return [] if self.label_key is None else [self.label_key]

    def update_transform_params(self, params: dict[str, Any], data: dict[str, Any], **others: Any) -> dict[str, Any]:
        """Add the label to the parameters of a call.

        Raises:
            DataError: a label that is missing, or is no class index.
        """
        # Here rather than where the seed is drawn: between the two, albumentations has its own error for missing keys.
        params["label"] = self._find_label(data)
        return super().update_transform_params(params, data, **others)  # type: ignore[no-any-return]

    def _find_label(self, data: Mapping[str, Any]) -> int | None:
        if self.label_key is None:
            return None
        if self.label_key not in data:
            raise DataError(
                f"{self.label_key} must be among the arguments, as in transform(image=image, {self.label_key}=3), "
                f"got {', '.join(data)}; make the transform with label_key=None to do without"
            )
        label, spec = data[self.label_key], self._operation.spec
        if label is None or not spec.num_classes:
            return None
        try:
            index = -1 if isinstance(label, bool) else operator.index(label)
        except (TypeError, ValueError, RuntimeError):  # the latter two from tensors of several numbers
            index = -1
        if not 0 <= index < spec.num_classes:
            raise DataError(
                f"{self.label_key} must be a class index from 0 to {spec.num_classes - 1}, or None for no label, "
                f"got {shorten(label)}"
            )
        return index

    if SampledParams is None:

        def get_params(self) -> dict[str, Any]:
            """Draw the seed of a call."""
            return {"seed": self.py_random.getrandbits(SEED_BITS)}

    else:

        def sample_parameters(self, *, sampling: Any, **others: Any) -> Any:
            """Draw the seed of a call."""
            return SampledParams(params={"seed": sampling.py_random.getrandbits(SEED_BITS)})

    def apply(self, img: NDArray[Any], *, seed: int, label: int | None, **params: Any) -> NDArray[Any]:
        """Return an image (H, W) or (H, W, C), changed."""
        return self.apply_to_images(img[None], seed=seed, label=label)[0]  # type: ignore[no-any-return]

    def apply_to_images(
        self, images: NDArray[Any] | Sequence[NDArray[Any]], *, seed: int, label: int | None, **params: Any
    ) -> NDArray[Any]:
        """Return images (N, H, W) or (N, H, W, C), changed; the first with `seed`, the others with seeds made of it.

        Raises:
            DataError: images of another dtype, range or size than the model's.
        """
        pixels = np.array(images, order="C")  # a copy, since images may be read-only or lie backwards in memory
        if pixels.dtype not in (np.uint8, np.float32):
            raise DataError(
                f"image must be uint8 in [0, 255] or float32 in [0, 1], got {pixels.dtype}; convert it first"
            )
        if pixels.ndim not in (3, 4):
            raise DataError(f"image must have shape (H, W) or (H, W, C), got {pixels.shape[1:]}")
        gray = pixels.ndim == 3
        batch = torch.from_numpy(pixels)
        batch = batch[:, None] if gray else batch.permute(0, 3, 1, 2)
        labels = None if label is None else torch.full((len(batch),), label)
        seeds = [derive_seed(seed, place) if place else seed for place in range(len(batch))]
        changed = cast_like(self._operation(batch, labels, torch.tensor(seeds, dtype=torch.int64)), batch)
        return np.ascontiguousarray(changed[:, 0] if gray else changed.permute(0, 2, 3, 1))

    def apply_to_volumes(self, volumes: NDArray[Any] | Sequence[NDArray[Any]], **params: Any) -> NDArray[Any]:
        """Return volumes (N, D, H, W) or (N, D, H, W, C) with all their slices changed as images."""
        stack = np.asarray(volumes)
        return self.apply_to_images(stack.reshape(-1, *stack.shape[2:]), **params).reshape(stack.shape)

    def __repr__(self) -> str:
        arguments = {"p": self.p, **self.get_transform_init_args()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


class LatentJitter(ModelTransform):
    """Varies an image: encodes it, moves its latent, decodes (the model's `vary`).

    With its label the image stays within its class; see `genaug.transforms.LatentJitter`.

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        strength: from 0, the reconstruction, to 1, a new sample.
        keep_residual: add what the move changes in the reconstruction to the image, x + vary(x) - vary(x, strength=0),
            so that what the model cannot draw, such as fine detail and noise, stays; the model runs twice. A `strength`
            of 0 then changes nothing.
        p: probability of changing the images of a call.
        label_key: name of the argument of the call with the class index, see `ModelTransform`.
        resize: take images of any size: to the model's and back.
        channels: "convert" takes gray, RGB and RGBA images.
        sha256: hash that the weights must have; filled in where the transform is serialized.

    Raises:
        GenaugError: `strength` or `p` outside [0, 1], a model that cannot vary images.
        CheckpointError: a model that cannot be found, or whose weights have another hash.

    >>> from genaug.data import load_data
    >>> image = load_data("digits").images[0, 0].numpy()
    >>> transform = A.Compose([A.Affine(rotate=(-10, 10)), LatentJitter("digits-vae", label_key="label")], seed=0)
    >>> transform(image=image, label=0)["image"].shape
    (8, 8)
    """

    def __init__(
        self,
        model: Model | UnsavedModel | str | Path,
        *,
        strength: float = 0.3,
        keep_residual: bool = False,
        p: float = 0.5,
        label_key: str | None = None,
        resize: bool = False,
        channels: Channels = "match",
        sha256: str | None = None,
    ) -> None:
        operation = Vary(
            _unwrap(model),
            strength=strength,
            keep_residual=keep_residual,
            resize=resize,
            channels=channels,
            sha256=sha256,
        )
        super().__init__(operation, p=p, label_key=label_key)
        self.strength, self.keep_residual = operation.strength, operation.keep_residual


class Reconstruct(ModelTransform):
    """Replaces an image by the model's reconstruction of it (`vary` at strength 0).

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        p: probability of changing the images of a call.
        label_key: name of the argument of the call with the class index, see `ModelTransform`.
        resize: take images of any size: to the model's and back.
        channels: "convert" takes gray, RGB and RGBA images.
        sha256: hash that the weights must have; filled in where the transform is serialized.

    Raises:
        GenaugError: `p` outside [0, 1], a model that cannot reconstruct images.
        CheckpointError: a model that cannot be found, or whose weights have another hash.

    >>> Reconstruct("digits-vae")(image=np.zeros((8, 8, 1), dtype=np.float32))["image"].dtype
    dtype('float32')
    """

    def __init__(
        self,
        model: Model | UnsavedModel | str | Path,
        *,
        p: float = 1.0,
        label_key: str | None = None,
        resize: bool = False,
        channels: Channels = "match",
        sha256: str | None = None,
    ) -> None:
        operation = Vary(_unwrap(model), strength=0.0, resize=resize, channels=channels, sha256=sha256)
        super().__init__(operation, p=p, label_key=label_key)


class Denoise(ModelTransform):
    """Takes the noise off images of any size (the model's `restore`); see `genaug.transforms.Denoise`.

    Args:
        model: a model with `restore`, or what `genaug.load` takes.
        noise_level: standard deviation of the noise on the [0, 1] scale, where it is known; else it is estimated.
        strength: share of the restored image in the result, from 0 to 1.
        p: probability of restoring the images of a call.
        channels: "convert" takes color images for a gray model, channel by channel, and gray ones for a color model.
        sha256: hash that the weights must have; filled in where the transform is serialized.

    Raises:
        GenaugError: `noise_level`, `strength` or `p` outside [0, 1], a model that cannot restore images.
        CheckpointError: a model that cannot be found, or whose weights have another hash.

    >>> from genaug import DataSpec
    >>> from genaug.models import Denoiser, DenoiserConfig
    >>> model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> Denoise(model)(image=np.zeros((9, 30), dtype=np.uint8))["image"].shape
    (9, 30)
    """

    def __init__(
        self,
        model: Model | UnsavedModel | str | Path,
        *,
        noise_level: float | None = None,
        strength: float = 1.0,
        p: float = 1.0,
        channels: Channels = "match",
        sha256: str | None = None,
    ) -> None:
        operation = Restore(
            _unwrap(model), noise_level=noise_level, strength=strength, channels=channels, sha256=sha256
        )
        super().__init__(operation, p=p)
        self.noise_level, self.strength = operation.noise_level, operation.strength
