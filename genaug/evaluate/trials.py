"""Classifiers of clean, noisy, denoised and noise-augmented images, trained and tested for one seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genaug.data import LabeledImages
from genaug.data.allocation import allocate_pixels
from genaug.degradations import Clip, GaussianNoise, degrade
from genaug.errors import DataError
from genaug.evaluate.scoring import score_classifier
from genaug.images import to_uint8
from genaug.models.running import draw_seeds
from genaug.progress import Update
from genaug.seeding import make_generator
from genaug.transforms.operations import Restore

CLEAN, NOISY, DENOISED, AUGMENTED = "clean", "noisy", "denoised", "augmented"
CHUNK = 256  # images that are restored together


@dataclass(frozen=True)
class Trials:
    """What is done for each seed.

    Args:
        operation: how images are restored.
        train: the training part.
        test: held-out images.
        levels: noise levels above 0.
        augmentation_level: highest noise level of training with noise.
        fit: `train_classifier`, which lacks the training part, `seed` and `degradations`.
        device: where classifiers are.
        update: of a progress bar.
    """

    operation: Restore
    train: LabeledImages
    test: LabeledImages
    levels: list[float]
    augmentation_level: float
    fit: Callable[..., tuple[nn.Module, list[int]]]
    device: torch.device
    update: Update

    def run(self, seed: int) -> Iterator[dict[str, Any]]:
        """Train the classifiers of a seed one after another, and yield the scores of each when they are there."""
        seeds = draw_seeds(len(self.test), make_generator(seed, "robustness test noise"))
        clean = self._train(seed, CLEAN)
        augmented = self._train(seed, AUGMENTED, noise=(0.0, self.augmentation_level))
        for level in (0.0, *self.levels):
            shared = {"seed": seed, "noise_level": level}
            noisy = add_noise(self.test.images, level, seeds=seeds)
            denoised = restore(self.operation, noisy)
            yield {"trained": CLEAN, "tested": NOISY, **shared, **self._score(clean, noisy)}
            yield {"trained": CLEAN, "tested": DENOISED, **shared, **self._score(clean, denoised)}
            yield {"trained": AUGMENTED, "tested": NOISY, **shared, **self._score(augmented, noisy)}
            if level:
                own = self._train(seed, f"{NOISY} {level:g}", noise=level)
                yield {"trained": NOISY, "tested": NOISY, **shared, **self._score(own, noisy)}
                own = self._train(seed, f"{DENOISED} {level:g}", part=partial(self._denoise_training_part, seed, level))
                yield {"trained": DENOISED, "tested": DENOISED, **shared, **self._score(own, denoised)}

    def _train(
        self,
        seed: int,
        name: str,
        *,
        noise: float | tuple[float, float] | None = None,
        part: Callable[[], LabeledImages] | None = None,
    ) -> nn.Module:
        self.update(0, description=f"seed {seed}: {name}")
        degradations = () if noise is None else (GaussianNoise(noise_level=noise), Clip())
        net, _ = self.fit(self.train if part is None else part(), seed=seed, degradations=degradations)
        return net

    def _denoise_training_part(self, seed: int, level: float) -> LabeledImages:
        """Return a copy of the training part, noisy and denoised, chunk by chunk."""
        images = allocate_pixels(self.train.images.shape)
        seeds = draw_seeds(len(images), make_generator(seed, "robustness training noise"))
        for rows in torch.arange(len(images)).split(CHUNK):
            images[rows] = restore(self.operation, add_noise(self.train.images[rows], level, seeds=seeds[rows]))
        return LabeledImages(images, self.train.labels, self.train.spec)

    def _score(self, net: nn.Module, images: Tensor) -> dict[str, Any]:
        return score_classifier(net, images, self.test.labels, counts=self.train.counts, device=self.device)


def add_noise(images: Tensor, noise_level: float, *, seeds: Tensor) -> Tensor:
    """Return uint8 images (N, C, H, W) with Gaussian noise, clipped and rounded; at level 0 they are the same.

    Args:
        images: uint8.
        noise_level: standard deviation on the [0, 1] scale.
        seeds: one for each image, int64 (N,).

    >>> images = torch.full((2, 1, 4, 4), 200, dtype=torch.uint8)
    >>> torch.equal(add_noise(images, 0.0, seeds=torch.tensor([1, 2])), images)
    True
    """
    chain = GaussianNoise(noise_level=noise_level), Clip()
    parts = zip(images.split(CHUNK), seeds.split(CHUNK), strict=True)
    return torch.cat([to_uint8(degrade(part, chain, seeds=own)) for part, own in parts])


def restore(operation: Restore, images: Tensor) -> Tensor:
    """Return uint8 images (N, C, H, W) restored, uint8 on the CPU, in chunks.

    Raises:
        DataError: a model that gives values that are not finite.
    """
    restored = []
    for part in images.split(CHUNK):
        made = operation(part, None, torch.zeros(len(part), dtype=torch.int64))
        if not made.isfinite().all():
            raise DataError("the denoiser must give finite values, got NaN or infinite ones; train it again")
        restored.append(to_uint8(made).cpu())
    return torch.cat(restored)
