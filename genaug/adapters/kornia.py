"""Intensity augmentations for kornia pipelines that run a model of genaug."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genaug.devices import settle_in_fork
from genaug.errors import DataError, check_share
from genaug.images import cast_like
from genaug.models import Model
from genaug.transforms.operations import Channels, Operation, Restore, Vary

try:
    from kornia.augmentation import IntensityAugmentationBase2D
except ImportError as problem:
    raise ImportError(f"genaug.adapters.kornia needs kornia ({problem}); install genaug[kornia]") from problem

__all__ = ["Denoise", "LatentJitter", "ModelAugmentation", "Reconstruct"]


class ModelAugmentation(IntensityAugmentationBase2D):  # type: ignore[misc, unused-ignore]
    """Changes each image of a batch with probability `p` by an operation of a model; masks, boxes and points stay.

    Takes what kornia's augmentations take: (B, C, H, W), (C, H, W) or (H, W), float and in [0, 1]. Put it before what
    leaves that range, such as `Normalize` or `RandomGaussianNoise`; what kornia's rotations and blurs leave it by is
    rounding, and is clamped. Shape (with `keepdim`, else always four dimensions), dtype and device stay.

    Only the images that are chosen go through the model. It runs where it is, one given by name on the CPU; for a GPU,
    pass `genaug.load(name, device="cuda")`. It is no submodule: `.to()`, `.parameters()` and `.state_dict()` leave it
    alone. No gradient passes through it: that of a changed image is zero, that of any other is passed on.

    `_params` hold which images change ("batch_prob") and a seed for each ("seeds"), drawn from torch's global
    generator; `augmentation(images, params=augmentation._params)` does the same again. In a forked process, torch is
    set to one thread, without which it can hang there.

    A conditional model needs labels to stay within the class; without them it runs with the null class ("no label").
    kornia's containers show labels to no augmentation, also where `data_keys` has "class"; there they go among the
    parameters, as in the example.

    Args:
        operation: what is done to the images.
        p: probability of changing an image, for each image of a batch on its own.
        same_on_batch: change all images of a batch or none, and with the same noise.
        keepdim: return (C, H, W) for (C, H, W), not (1, C, H, W).

    Raises:
        GenaugError: `p` outside [0, 1].
        DataError: in use, images that do not fit the model; labels that it does not know, or not one for each image.
        CheckpointError: in use, weights that have changed since.

    >>> from kornia.augmentation import AugmentationSequential
    >>> images, labels = torch.zeros(2, 1, 8, 8), torch.tensor([3, 1])
    >>> augmentation = ModelAugmentation(Vary("digits-vae", strength=0.0), p=1.0)
    >>> varied = augmentation(images, labels=labels)
    >>> pipeline = AugmentationSequential(augmentation, data_keys=["input", "class"])
    >>> params = pipeline.forward_parameters(images.shape)
    >>> params[0].data["labels"] = labels
    >>> torch.equal(pipeline(images, labels, params=params)[0], varied)
    True
    """

    def __init__(
        self, operation: Operation, *, p: float = 0.5, same_on_batch: bool = False, keepdim: bool = False
    ) -> None:
        check_share(p, name="p")
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        # No module, so that torch does not take the model for a part of the pipeline to move, list and save.
        self.operation = operation

    def forward(
        self, input: Tensor, params: dict[str, Any] | None = None, *, labels: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Return the images with the chosen ones changed.

        Args:
            input: float images in [0, 1]: (B, C, H, W), (C, H, W) or (H, W).
            params: parameters of an earlier call, to do the same again.
            labels: class indices (B,), int64; kept in `_params`.
            kwargs: passed on to kornia, which takes them for parameters in place of those drawn.
        """
        settle_in_fork()
        if labels is not None:
            kwargs["labels"] = labels  # kornia puts it among the parameters
        result: Tensor = super().forward(input, params, **kwargs)
        return result

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw a seed for each image, on which depends whatever the model draws for it."""
        count = batch_shape[0]
        return {"seeds": torch.randint(2**62, (1 if self.same_on_batch else count,)).expand(count)}

    def apply_transform(
        self, input: Tensor, params: dict[str, Any], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return images (N, C, H, W) with the chosen ones changed."""
        chosen = torch.atleast_1d(params["batch_prob"] > 0.5).cpu()
        # kornia 0.9 hands over all images with a seed for each, 0.8 the chosen ones alone with theirs.
        rows = chosen.nonzero().flatten() if len(chosen) == len(input) else torch.arange(len(input))
        labels, seeds = self.operation.check_labels(params.get("labels"), count=len(chosen)), params["seeds"].cpu()
        if len(seeds) != len(input):
            raise DataError(f"params must be drawn for as many images, got {len(seeds)} seeds for {len(input)} images")
        if not len(rows):
            return input
        places = rows.to(input.device)
        chosen_labels = None if labels is None else labels[chosen]
        changed = self.operation(input[places], chosen_labels, seeds[rows])
        result = input.clone()
        result[places] = cast_like(changed, input)
        return result

    def extra_repr(self) -> str:
        """Return what is shown of the model."""
        return self.operation.reference.name

    def __repr__(self) -> str:
        text: str = super().__repr__()
        return text.replace("(", f"({self.extra_repr()}, ", 1)


class LatentJitter(ModelAugmentation):
    """Varies images: encodes them, moves their latents, decodes (the model's `vary`).

    With its label an image stays within its class. Without one it moves among all classes, and the larger the
    `strength`, the more often it leaves its own. For `digits-vae`, README.md says how often. For what it takes and
    returns, and how labels reach it, see `ModelAugmentation`.

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        strength: from 0, the reconstruction, to 1, a new sample.
        keep_residual: add what the move changes in the reconstruction to the image, x + vary(x) - vary(x, strength=0),
            so that what the model cannot draw, such as fine detail and noise, stays; the model runs twice. A `strength`
            of 0 then changes nothing.
        p: probability of changing an image, for each image of a batch on its own.
        same_on_batch: change all images of a batch or none, and with the same noise.
        keepdim: return (C, H, W) for (C, H, W), not (1, C, H, W).
        resize: take images of any size: brought to the model's and back; what is finer is lost.
        channels: "convert" takes gray, RGB and RGBA images, whatever the model's channels; see `FittedModel`.

    Raises:
        GenaugError: `strength` or `p` outside [0, 1], a model that cannot vary images.
        CheckpointError: a model that cannot be found.

    >>> from genaug.data import load_data
    >>> images = load_data("digits").images[:4] / 255
    >>> augmentation = LatentJitter("digits-vae", strength=0.3, p=0.5)
    >>> varied = augmentation(images)
    >>> torch.equal(augmentation(images, params=augmentation._params), varied)
    True
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        strength: float = 0.3,
        keep_residual: bool = False,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
        resize: bool = False,
        channels: Channels = "match",
    ) -> None:
        operation = Vary(model, strength=strength, keep_residual=keep_residual, resize=resize, channels=channels)
        super().__init__(operation, p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.strength, self.keep_residual = operation.strength, operation.keep_residual

    def extra_repr(self) -> str:
        """Return what is shown of the model and its use."""
        return f"{super().extra_repr()}, strength={self.strength}, keep_residual={self.keep_residual}"


class Reconstruct(ModelAugmentation):
    """Replaces images by the model's reconstructions of them (`vary` at strength 0).

    For what it takes and returns, and how labels reach it, see `ModelAugmentation`.

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        p: probability of changing an image, for each image of a batch on its own.
        same_on_batch: change all images of a batch or none.
        keepdim: return (C, H, W) for (C, H, W), not (1, C, H, W).
        resize: take images of any size: brought to the model's and back; what is finer is lost.
        channels: "convert" takes gray, RGB and RGBA images, whatever the model's channels; see `FittedModel`.

    Raises:
        GenaugError: `p` outside [0, 1], a model that cannot reconstruct images.
        CheckpointError: a model that cannot be found.

    >>> from genaug.data import load_data
    >>> image = load_data("digits").images[0] / 255
    >>> Reconstruct("digits-vae", keepdim=True)(image).shape
    torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        resize: bool = False,
        channels: Channels = "match",
    ) -> None:
        operation = Vary(model, strength=0.0, resize=resize, channels=channels)
        super().__init__(operation, p=p, same_on_batch=same_on_batch, keepdim=keepdim)


class Denoise(ModelAugmentation):
    """Takes the noise off images of any size (the model's `restore`); see `genaug.transforms.Denoise`.

    Floats may leave [0, 1], as those with noise do; restored ones do not, at the full strength. So it can stand behind
    `RandomGaussianNoise`.

    Args:
        model: a model with `restore`, or what `genaug.load` takes.
        noise_level: standard deviation of the noise on the [0, 1] scale, where it is known; else it is estimated.
        strength: share of the restored image in the result, from 0 to 1.
        p: probability of restoring an image, for each image of a batch on its own.
        same_on_batch: change all images of a batch or none.
        keepdim: return (C, H, W) for (C, H, W), not (1, C, H, W).
        channels: "convert" takes color images for a gray model, channel by channel, and gray ones for a color model.

    Raises:
        GenaugError: `noise_level`, `strength` or `p` outside [0, 1], a model that cannot restore images.
        CheckpointError: a model that cannot be found.

    >>> from genaug import DataSpec
    >>> from genaug.models import Denoiser, DenoiserConfig
    >>> model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> Denoise(model)(torch.rand(2, 1, 9, 30)).shape
    torch.Size([2, 1, 9, 30])
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        noise_level: float | None = None,
        strength: float = 1.0,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        channels: Channels = "match",
    ) -> None:
        operation = Restore(model, noise_level=noise_level, strength=strength, channels=channels)
        super().__init__(operation, p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.noise_level, self.strength = operation.noise_level, operation.strength
