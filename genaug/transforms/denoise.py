"""Restoring noisy images."""

from pathlib import Path

from genaug.models import Model
from genaug.transforms.base import ModelTransform
from genaug.transforms.operations import Channels, Restore


class Denoise(ModelTransform):
    """Takes the noise off images of any size (the model's `restore`).

    Floats may leave [0, 1], as those with noise do; restored ones do not, at the full strength. Large images are
    computed in tiles, without seams. Put it first, before what crops, resizes or normalizes: noise that was resized is
    not what the model knows.

    Args:
        model: a model with `restore`, or what `genaug.load` takes.
        noise_level: standard deviation of the noise on the [0, 1] scale, where it is known; else it is estimated.
        strength: share of the restored image in the result, from 0 to 1.
        p: probability of restoring an image, for each image of a batch on its own.
        channels: "match" takes images with the model's channels; with "convert" the channels of a color image go
            through a gray model one by one, and gray images enter a color model as three equal channels.

    Raises:
        GenaugError: `noise_level`, `strength` or `p` outside [0, 1], a model that cannot restore images.

    >>> import torch
    >>> from genaug import DataSpec
    >>> from genaug.models import Denoiser, DenoiserConfig
    >>> model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> Denoise(model, channels="convert")(torch.rand(3, 21, 30)).shape
    torch.Size([3, 21, 30])
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        noise_level: float | None = None,
        strength: float = 1.0,
        p: float = 1.0,
        channels: Channels = "match",
    ) -> None:
        operation = Restore(model, noise_level=noise_level, strength=strength, channels=channels)
        super().__init__(operation, p=p, labels_getter=None)
        self.noise_level, self.strength = operation.noise_level, operation.strength
