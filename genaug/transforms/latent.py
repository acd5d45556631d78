"""Variations of real images through the latents of a model."""

from pathlib import Path

import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten
from genaug.models import Model
from genaug.transforms.base import LabelsGetter, ModelTransform


class LatentJitter(ModelTransform):
    """Varies an image: encodes it, moves its latent, decodes (the model's `vary`).

    With its label the image stays within its class. Without one it moves among all classes, and the larger the
    `strength`, the more often it leaves its own. For `digits-vae`, README.md says how often.

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        strength: from 0, the reconstruction, to 1, a new sample.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: where the labels are, see `ModelTransform`.

    Raises:
        GenaugError: `strength` or `p` outside [0, 1], a model that cannot vary images.

    >>> from genaug.data import load_data
    >>> image, label = load_data("digits")[0]
    >>> varied, label = LatentJitter("digits-vae", strength=0.3, p=1.0)(image, label)
    >>> varied.shape, label
    (torch.Size([1, 8, 8]), 0)
    """

    method = "vary"

    def __init__(
        self,
        model: Model | str | Path,
        *,
        strength: float = 0.3,
        p: float = 0.5,
        labels_getter: LabelsGetter = "default",
    ) -> None:
        super().__init__(model, p=p, labels_getter=labels_getter)
        if not 0.0 <= strength <= 1.0:
            raise GenaugError(f"strength must be from 0 to 1, got {shorten(strength)}")
        self.strength = strength

    def change(self, images: Tensor, labels: Tensor | None, *, seed: int) -> Tensor:
        """Return variations of public images (N, C, H, W) of classes `labels` (N,)."""
        generator = torch.Generator().manual_seed(seed)
        return self.model.vary(images, labels, strength=self.strength, generator=generator)  # type: ignore[no-any-return]


class Reconstruct(ModelTransform):
    """Replaces an image by the model's reconstruction of it (`vary` at strength 0).

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: where the labels are, see `ModelTransform`.

    Raises:
        GenaugError: `p` outside [0, 1], a model that cannot reconstruct images.

    >>> from genaug.data import load_data
    >>> image, label = load_data("digits")[0]
    >>> Reconstruct("digits-vae")(image).dtype
    torch.uint8
    """

    method = "vary"

    def __init__(self, model: Model | str | Path, *, p: float = 1.0, labels_getter: LabelsGetter = "default") -> None:
        super().__init__(model, p=p, labels_getter=labels_getter)

    def change(self, images: Tensor, labels: Tensor | None, *, seed: int) -> Tensor:
        """Return reconstructions of public images (N, C, H, W) of classes `labels` (N,)."""
        generator = torch.Generator().manual_seed(seed)  # what it draws is not used at strength 0
        return self.model.vary(images, labels, strength=0.0, generator=generator)  # type: ignore[no-any-return]
