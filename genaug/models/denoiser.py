"""Denoising autoencoder for images of any size (Vincent et al. 2010), with skips: it restores noisy images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from genaug.degradations import GaussianNoise, degrade
from genaug.degradations.chain import degrade_checked
from genaug.errors import DataError, GenaugError, check_share
from genaug.images import check_images, from_model, to_float, to_model, to_uint8
from genaug.models.base import Model, check_noisy
from genaug.models.configs import STRONGEST, DenoiserConfig
from genaug.models.denoiser_network import NoiseNet
from genaug.models.neighbors import neighbor_loss
from genaug.models.running import draw_seeds, draw_uniform, inference, join, split_batches
from genaug.models.tiling import run_in_tiles
from genaug.spec import DataSpec

KNOWN = 0.25  # share of training images whose noise level the network is told
TILE = 1024


class Denoiser(Model):
    """Blind denoiser for gray or color images of any size.

    Restores x from y = x + n as y - f(y), f being a `NoiseNet`. Trained on clean images, with noise that is drawn anew
    for each, it approximates E[x | y] (with `loss: mse`; the median with `l1`). Trained on noisy images alone it learns
    the same where their noise is independent between pixels and of mean zero (Neighbor2Neighbor, Huang et al. 2021).

    Trained on pairs it restores the first image of each into the second. Where that one is clean, this is plain
    supervised learning. Where it is another noisy shot of the scene, with noise of its own, this is Noise2Noise
    (Lehtinen et al. 2018): the squared error is least at the mean of what the second image may be, which noise of mean
    zero leaves at E[x | y]; the absolute error at its median (section 2), which is another where the noise is not
    symmetric. So `loss: mse`, the default for pairs, is the one for noisy second images; `l1` is for clean ones. Noise
    that is cut off at black and white is not of mean zero there, and what is restored is off by as much.

    Its `spec` has neither size nor classes.

    Args:
        spec: image format; height, width and class names are left out.
        config: fields of the family.

    >>> model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> model.restore(torch.rand(2, 1, 9, 30)).shape
    torch.Size([2, 1, 9, 30])
    """

    family = "denoiser"
    config_class = DenoiserConfig
    config: DenoiserConfig
    purpose = "A blind denoiser for images of any size"
    usage = "restored = model.restore(images)  # uint8 or float images (N, C, H, W) -> float in [0, 1]"
    caution = "It restores noise like that which it was trained on; on other damage, or none, look at the result first."
    training_defaults: ClassVar[dict[str, Any]] = {"batch_size": 16, "learning_rate": 1e-3}

    def __init__(self, spec: DataSpec, config: DenoiserConfig | None = None) -> None:
        config = config or DenoiserConfig()
        super().__init__(DataSpec(channels=spec.channels), config)
        self.network = NoiseNet(spec.channels, width=config.width, levels=config.levels, blocks=config.blocks)

    @classmethod
    def learned_spec(cls, spec: DataSpec, config: DenoiserConfig, *, paired: bool) -> DataSpec:
        """Return the specification of a model that learns from data of `spec`: channels, those of one of a pair."""
        wanted = config.supervision == "pairs"
        if paired and not wanted:
            raise DataError(
                f"data must be single images for supervision: {config.supervision}, got pairs, of {spec.channels} "
                "channels together; set model.supervision=pairs, or leave --pairs (pairs=) out"
            )
        if wanted and not paired:
            raise DataError(
                f"data must be pairs for supervision: pairs, got single images {spec.size}; name the images that they "
                "are to become with --pairs (pairs=)"
            )
        return DataSpec(channels=spec.channels // 2 if paired else spec.channels)

    def _pair(self, images: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is to be restored, and into what, both (N, C, H, W), of float images or pairs (N, 2C, H, W)."""
        if self.config.supervision == "pairs":
            noisy, target = images.chunk(2, dim=1)
            return noisy, target
        return degrade_checked(images, self.config.degradations or (), seeds=seeds), images

    def _clean(self, noisy: Tensor, noise_levels: Tensor) -> Tensor:
        """Return what is left of images in [-1, 1], or beyond it, without their noise; differentiable."""
        return noisy - self.network(noisy, noise_levels)  # type: ignore[no-any-return]

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return numbers (N, ...) that decide crop, symmetry and what is known, and seeds of noise and of pairs."""
        return {
            "crop": draw_uniform((count, 3), generator, self.device),
            "known": draw_uniform((count,), generator, self.device),
            "seeds": draw_seeds(count, generator),
            "pairs": draw_seeds(count, generator),
        }

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean error of restored crops on the [0, 1] scale, and the PSNR of the batch in decibels.

        With `supervision: neighbor2neighbor` it is the loss of that, on the [-1, 1] scale, alone.

        Both images of a pair, (N, 2C, H, W) together, are cut and turned alike.
        """
        crops = to_float(crop_and_turn(images, draws["crop"], size=self.config.crop)).float()
        noisy, target = self._pair(crops, draws["seeds"])
        level = noisy.new_zeros(len(noisy))  # unknown
        if self.config.supervision == "neighbor2neighbor":
            restore = partial(self._clean, noise_levels=level)
            loss = neighbor_loss(restore, to_model(noisy), seeds=draws["pairs"], consistency=self.config.consistency)
            return loss, {}
        if self.config.supervision == "clean":
            level = 2 * (noisy - target).square().mean((1, 2, 3)).sqrt()  # in the range of the model
            level = torch.where(draws["known"] < KNOWN, level, 0.0)
        error = (self._clean(to_model(noisy), level) - to_model(target)) / 2
        squared = error.detach().square().mean()
        loss = error.square().mean() if self.config.loss == "mse" else error.abs().mean()
        return loss, {"psnr": -10 * squared.log10()}

    def restore(
        self, images: Tensor, *, noise_level: float | None = None, tile: int = TILE, batch_size: int = 16
    ) -> Tensor:
        """Return restored images (N, C, H, W), float32 in [0, 1], of images of any size.

        Args:
            images: uint8 in [0, 255], or finite floats whose noise may lead out of [0, 1].
            noise_level: standard deviation of the noise on the [0, 1] scale, where it is known; else it is estimated.
                For models with `supervision: clean` only: others never learn what it means.
            tile: longest side that is computed at once; larger images are cut into tiles, without seams.
            batch_size: images that are computed at once.

        Raises:
            DataError: images of other channels, another type, or with values that are not finite.
            GenaugError: a `noise_level` below 0 or above 1, or for a model that has no use for it; a `tile` or
                `batch_size` below 1.
        """
        check_noisy(images, self.spec)
        level = 0.0 if noise_level is None else 2 * check_share(noise_level, name="noise_level")
        if level and self.config.supervision != "clean":
            raise GenaugError(
                f"noise_level must be left out for a model with supervision: {self.config.supervision}, which was told "
                f"none in training, got {noise_level:g}"
            )

        def run(part: Tensor) -> Tensor:
            return self._clean(part, part.new_full((len(part),), level))

        cut = partial(
            run_in_tiles, run, tile=tile, margin=self.network.reach, stride=self.network.stride, device=self.device
        )
        if not images.numel():
            return torch.zeros(images.shape, device=self.device)
        with inference(self):
            chunks = split_batches(batch_size, images)
            return join(from_model(cut(to_model(part))).to(self.device) for (part,) in chunks)

    def vary(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        strength: float,
        generator: torch.Generator | None = None,
        seeds: Tensor | None = None,
        batch_size: int = 16,
    ) -> Tensor:
        """Return variations (N, C, H, W), float32 in [0, 1], of public images: noise is added, then taken off again.

        One step of the walk of a generalized denoising autoencoder (Bengio et al. 2013, section 3.1), near the images
        that it was trained on. The noise level is `strength` times 55/255; labels do not count.

        Raises:
            GenaugError: a strength outside [0, 1], images that do not fit, seeds of another number.
        """
        level = STRONGEST * check_share(strength, name="strength")
        self.spec.check_images(images)
        if seeds is None:
            seeds = draw_seeds(len(images), generator)
        noisy = degrade(images, [GaussianNoise(noise_level=level)] if level else [], seeds=seeds)
        known = level if level and self.config.supervision == "clean" else None
        return self.restore(noisy, noise_level=known, batch_size=batch_size)

    def illustrate(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return three rows: degraded images, restored ones, and the images themselves; of pairs the second ones."""
        check_images(images, overshoot=True)
        noisy, target = self._pair(to_float(images), draw_seeds(len(images), generator))
        return torch.cat([noisy.clamp(0, 1).to(self.device), self.restore(noisy), target.to(self.device)])

    def measure(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> dict[str, Any]:
        """Return mean PSNR in decibels of restored held-out images, rounded to 8 bits, and of degraded ones.

        Those of pairs are of the first image, restored and as it is, against the second: where that one is noisy too,
        its noise bounds both. Without clean images (`supervision: neighbor2neighbor` of images that are noisy
        themselves) there is nothing to compare with, and no score.
        """
        check_images(images, overshoot=True)
        rows = torch.arange(len(images)) if rows is None else rows
        if self.config.supervision == "neighbor2neighbor" and not self.config.degradations:
            return {}
        seeds = draw_seeds(len(rows), torch.Generator().manual_seed(0))
        restored, degraded = [], []
        for part, seed in split_batches(16, rows, seeds):
            noisy, target = self._pair(to_float(images[part].to(self.device)), seed)
            restored.append(psnr(to_float(to_uint8(self.restore(noisy))), target))
            degraded.append(psnr(noisy, target))
        found = {"psnr": restored, "psnr_degraded": degraded}
        scores = {name: round(float(torch.cat(values).mean()), 3) for name, values in found.items()}
        return {**scores, "held_out_images": len(rows)}


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (N,) in decibels of images (N, C, H, W) on the [0, 1] scale.

    >>> psnr(torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 2))
    tensor([20.])
    """
    return -10 * (images - clean).square().flatten(1).mean(1).clamp(min=1e-10).log10()


def crop_and_turn(images: Tensor, draws: Tensor, *, size: int) -> Tensor:
    """Return a square of side `size` at most out of each image (N, C, H, W), in one of its eight symmetries.

    `draws` (N, 3) are uniform in [0, 1): the first two place the square, the last one chooses the symmetry.
    """
    height, width = images.shape[-2:]
    side = min(size, height, width)
    places = draws[:, :2] * torch.tensor([height - side + 1, width - side + 1], device=draws.device)
    top, left = places.long().unbind(1)
    along = torch.arange(side, device=images.device)
    first = torch.arange(len(images), device=images.device)[:, None, None]
    crops = images.permute(0, 2, 3, 1)[first, (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None]]
    crops = crops.permute(0, 3, 1, 2)
    kind = (8 * draws[:, 2]).long()[:, None, None, None]
    crops = torch.where(kind & 1 > 0, crops.flip(-1), crops)
    crops = torch.where(kind & 2 > 0, crops.flip(-2), crops)
    return torch.where(kind & 4 > 0, crops.mT, crops)
