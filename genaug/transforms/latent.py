"""Variations of real images through the latents of a model."""

from pathlib import Path

from genaug.models import Model
from genaug.samples import LabelsGetter
from genaug.transforms.base import ModelTransform
from genaug.transforms.operations import Channels, Vary


class LatentJitter(ModelTransform):
    """Varies an image: encodes it, moves its latent, decodes (the model's `vary`).

    With its label the image stays within its class. Without one it moves among all classes, and the larger the
    `strength`, the more often it leaves its own. For `digits-vae`, README.md says how often.

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        strength: from 0, the reconstruction, to 1, a new sample.
        keep_residual: add what the move changes in the reconstruction to the image, x + vary(x) - vary(x, strength=0),
            so that what the model cannot draw, such as fine detail and noise, stays; the model runs twice. A `strength`
            of 0 then changes nothing.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: where the labels are, see `ModelTransform`.
        resize: take images of any size, see `ModelTransform`.
        channels: "convert" takes gray, RGB and RGBA images, see `ModelTransform`.

    Raises:
        GenaugError: `strength` or `p` outside [0, 1], a model that cannot vary images.

    >>> from genaug.data import load_data
    >>> image, label = load_data("digits")[0]
    >>> varied, label = LatentJitter("digits-vae", strength=0.3, p=1.0)(image, label)
    >>> varied.shape, label
    (torch.Size([1, 8, 8]), 0)
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        strength: float = 0.3,
        keep_residual: bool = False,
        p: float = 0.5,
        labels_getter: LabelsGetter = "default",
        resize: bool = False,
        channels: Channels = "match",
    ) -> None:
        operation = Vary(model, strength=strength, keep_residual=keep_residual, resize=resize, channels=channels)
        super().__init__(operation, p=p, labels_getter=labels_getter)
        self.strength, self.keep_residual = operation.strength, operation.keep_residual


class Reconstruct(ModelTransform):
    """Replaces an image by the model's reconstruction of it (`vary` at strength 0).

    Args:
        model: a model with `vary`, or what `genaug.load` takes.
        p: probability of changing an image, for each image of a batch on its own.
        labels_getter: where the labels are, see `ModelTransform`.
        resize: take images of any size, see `ModelTransform`.
        channels: "convert" takes gray, RGB and RGBA images, see `ModelTransform`.

    Raises:
        GenaugError: `p` outside [0, 1], a model that cannot reconstruct images.

    >>> from genaug.data import load_data
    >>> image, label = load_data("digits")[0]
    >>> Reconstruct("digits-vae")(image).dtype
    torch.uint8
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        p: float = 1.0,
        labels_getter: LabelsGetter = "default",
        resize: bool = False,
        channels: Channels = "match",
    ) -> None:
        operation = Vary(model, strength=0.0, resize=resize, channels=channels)
        super().__init__(operation, p=p, labels_getter=labels_getter)
