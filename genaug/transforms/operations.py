"""What transforms do to images, apart from the library whose transform it is: shared by all adapters."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from genaug.devices import settle_in_fork
from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.images import check_images, check_noisy_range, to_float
from genaug.models import Model
from genaug.spec import DataSpec
from genaug.transforms.reference import ModelReference

Channels = Literal["match", "convert"]


class FittedModel:
    """A model that can do `method`, and images brought to its size and channels, and back, where that is asked for.

    Args:
        model: a model, or what `genaug.load` takes.
        method: what it must be able to do.
        resize: bring images to the model's size, and the result back to theirs, both antialiased: what is finer than
            the model's size is lost, but for `Vary(keep_residual=True)`.
        channels: "match", which takes images with the model's channels only, or "convert": gray images enter a color
            model as three equal channels, color ones a gray model by their luminance, and come back likewise (colors
            are lost, with the same exception); the alpha of RGBA stays as it is.
        sha256: hash that the weights of a model given by name must have.

    Raises:
        GenaugError: a model that cannot do what is needed, another word for `channels`.
        CheckpointError: a model that cannot be found, or whose weights have another hash.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        method: str,
        resize: bool = False,
        channels: Channels = "match",
        sha256: str | None = None,
    ) -> None:
        if channels not in ("match", "convert"):
            raise GenaugError(f'channels must be "match" or "convert", got {shorten(channels)}')
        self.reference = ModelReference(model, method, sha256=sha256)
        self.resize, self.channels = bool(resize), channels

    @property
    def spec(self) -> DataSpec:
        """The images and classes that the model knows."""
        return self.reference.spec

    def check(self, images: Tensor) -> None:
        """Check that public images (N, C, H, W) fit the model, or can be brought to it.

        Raises:
            DataError: another range, number of channels or size; the message says what brings them to it.
        """
        check_images(images, overshoot=True)
        channels, height, width = images.shape[-3:]
        convertible = self.channels == "convert" and {channels, self.spec.channels} <= {1, 3, 4}
        if channels != self.spec.channels and not convertible:
            advice = 'pass channels="convert"' if self.channels == "match" else "only 1, 3 and 4 can be converted"
            raise DataError(
                f"images must have {self.spec.channels} channels, got {channels} (expected {self.spec.size}); "
                f"{advice}, or use a model of that kind"
            )
        if not height or not width:
            raise DataError(f"images must be of size {self.spec.size}, got {channels}x{height}x{width}, which is empty")
        if not self.resize and self._size(height, width) != (height, width):
            raise DataError(
                f"images must be of size {self.spec.size}, got {channels}x{height}x{width}; resize them first, "
                "or pass resize=True (there and back)"
            )

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return self.spec.height or height, self.spec.width or width

    def fit(self, images: Tensor) -> Tensor:
        """Return public images (N, C, H, W) with the model's size and channels, still public.

        Raises:
            DataError: images that do not fit.
        """
        self.check(images)
        size = self._size(*images.shape[-2:])
        fitted = convert_channels(images, self.spec.channels)
        if fitted.is_floating_point():
            fitted = fitted.clamp(0, 1)
        if size == fitted.shape[-2:]:
            return fitted
        # resized as floats, since there and back would round twice
        return _resize(to_float(fitted).float(), size)

    def restore(self, changed: Tensor, images: Tensor) -> Tensor:
        """Return what became of fitted images, float in [0, 1], with the size and channels that `images` have."""
        if changed.shape[-2:] != images.shape[-2:]:
            changed = _resize(changed, images.shape[-2:])
        return _restore_channels(changed, images)


class Operation(FittedModel, ABC):
    """Changes images by a method of a model; see `FittedModel`."""

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor | None, seeds: Tensor) -> Tensor:
        """Return changed images (N, C, H, W), float in [0, 1], of public images of the same shape.

        Args:
            images: public images on any device.
            labels: class indices (N,) on the CPU, or None.
            seeds: int64 (N,) on the CPU; all that is drawn for an image depends on its seed alone.

        Raises:
            DataError: images that do not fit; labels that the model does not know.
        """

    def check_labels(self, labels: Any, *, count: int) -> Tensor | None:
        """Return labels of `count` images as int64 (N,) on the CPU, or None where there are none or the model has none.

        Args:
            labels: an int or a tensor of integers, one for each image, or None. The null class is refused: it is what
                labels counted from 1 give the last class.
            count: how many images there are.

        Raises:
            DataError: labels of another kind or number, or that the model does not know.
        """
        if labels is None or not self.spec.num_classes:
            return None
        indices = torch.as_tensor(labels)
        if indices.is_floating_point() or indices.dtype == torch.bool or indices.numel() != count:
            raise DataError(
                f"labels must be one class index for each of {count} images, got {indices.dtype} {tuple(indices.shape)}"
            )
        indices = indices.reshape(count).to("cpu", torch.int64)
        self.spec.check_labels(indices)
        return indices


class Vary(Operation):
    """Moves the latents of images: the model's `vary`, with a `strength` from 0 (the reconstruction) to 1.

    With `keep_residual` what the move changes in the reconstruction is added to the image itself:
    x + vary(x, strength) - vary(x, 0), within [0, 1]. So what the model cannot draw, such as fine detail, noise, and a
    size and colors that it does not have, stays. Schwartz et al. (2018) bring changes within a class to other images
    likewise, by features. The model runs twice.

    Raises:
        GenaugError: a `strength` outside [0, 1]; see `Operation` for the rest.
    """

    def __init__(
        self, model: Model | str | Path, *, strength: float, keep_residual: bool = False, **options: Any
    ) -> None:
        self.strength, self.keep_residual = check_share(strength, name="strength"), bool(keep_residual)
        super().__init__(model, method="vary", **options)

    def __call__(self, images: Tensor, labels: Tensor | None, seeds: Tensor) -> Tensor:
        """Return variations of images; see `Operation`."""
        settle_in_fork()
        fitted = self.fit(images)
        if not len(images):
            return to_float(images)
        vary = partial(self.reference.get().vary, fitted, labels, seeds=seeds)
        varied = self.restore(vary(strength=self.strength), images)
        if not self.keep_residual:
            return varied
        rebuilt = self.restore(vary(strength=0.0), images)
        return (to_float(images.detach()).to(varied) + (varied - rebuilt)).clamp(0, 1)


class Restore(Operation):
    """Restores images: the model's `restore`, blended with the image by `strength`.

    Images may be of any size, and floats whose noise leads out of [0, 1]. With `channels="convert"` the channels of a
    color image go through a gray model one by one, so that colors are kept, and a gray image through a color model as
    three equal channels, whose mean is taken; alpha stays as it is.

    Args:
        model: a model that can restore images, or what `genaug.load` takes.
        noise_level: standard deviation of the noise on the [0, 1] scale, where it is known.
        strength: share of the restored image in the result, from 0 to 1.
        tile: longest side that the model computes at once; None is the model's own choice.
        options: see `FittedModel`.

    Raises:
        GenaugError: a `strength` or `noise_level` outside [0, 1]; see `Operation` for the rest.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        noise_level: float | None = None,
        strength: float = 1.0,
        tile: int | None = None,
        **options: Any,
    ) -> None:
        name = "noise_level (a standard deviation, where white is 1)"
        self.noise_level = None if noise_level is None else check_share(noise_level, name=name)
        self.strength = check_share(strength, name="strength")
        self.options = {"noise_level": self.noise_level} | ({} if tile is None else {"tile": tile})
        super().__init__(model, method="restore", **options)

    def check(self, images: Tensor) -> None:
        """Check that images (N, C, H, W) fit the model; floats may leave [0, 1], as noise makes them do."""
        if isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4:
            check_noisy_range(images)
            images = images.clamp(0, 1)
        super().check(images)

    def __call__(self, images: Tensor, labels: Tensor | None, seeds: Tensor) -> Tensor:
        """Return restored images; see `Operation`."""
        settle_in_fork()
        self.check(images)
        given = to_float(images.detach()).float()
        if not given.numel() or not self.strength:
            return given
        known = self.spec.channels
        color = given[:, :3] if self.channels == "convert" and known != given.shape[1] else given  # without alpha
        present = color.shape[1]
        one_by_one, as_equals = known == 1 < present, present == 1 < known
        parts = color.flatten(0, 1)[:, None] if one_by_one else color.expand(-1, known, -1, -1) if as_equals else color
        restored = self.reference.get().restore(parts, **self.options).to(given.device)
        if one_by_one:
            restored = restored.reshape(color.shape)
        elif as_equals:
            restored = restored.mean(1, keepdim=True)
        return torch.cat([color.lerp(restored, self.strength), given[:, present:]], 1)


def _resize(images: Tensor, size: Sequence[int]) -> Tensor:
    return F.resize(images, list(size), antialias=True).clamp_(0, 1)  # type: ignore[no-any-return]


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Return images (..., C, H, W) with another number of channels: 1 (gray), 3 (RGB) or 4 (RGBA, opaque).

    Gray is the luminance 0.2989 R + 0.587 G + 0.114 B (ITU-R BT.601), as torchvision and Pillow have it.

    >>> convert_channels(torch.ones(3, 2, 2), 1).shape
    torch.Size([1, 2, 2])
    """
    present = images.shape[-3]
    if present == channels:
        return images
    color = images[..., :3, :, :]
    if channels == 1:
        return F.rgb_to_grayscale(color)  # type: ignore[no-any-return]
    color = color.expand(*color.shape[:-3], 3, *color.shape[-2:])
    if channels == 3:
        return color
    return torch.cat([color, torch.full_like(color[..., :1, :, :], 255 if images.dtype == torch.uint8 else 1)], -3)


def _restore_channels(changed: Tensor, images: Tensor) -> Tensor:
    """Return `changed` with the channels that `images` have, and with their alpha."""
    channels, known = images.shape[-3], changed.shape[-3]
    if channels == known:
        return changed
    if channels == 4:
        return torch.cat([convert_channels(changed, 3), to_float(images[..., 3:, :, :]).to(changed)], -3)
    return convert_channels(changed, channels).contiguous()  # channels of their own, which can be changed in place
