"""Noise: random values added to, multiplied into or put in place of those of an image.

The result is not clipped, as in the standard protocol of denoising: clipped noise is another kind of noise, with a mean
that is not the image. Where it is wanted, `Clip` comes next.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genaug.degradations.base import Degradation, Draws, Limits, Number, say

NOISE_LEVEL = Limits(0.0, 10.0)


@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """Add noise of N(0, noise_level^2) to each value.

    Args:
        noise_level: standard deviation on the [0, 1] scale, from 0 to 10, or a range that each image draws its own
            from.

    Raises:
        GenaugError: a field out of its range.

    >>> GaussianNoise(noise_level=(0, 0.2)).words()
    'gaussian noise 0 to 0.2'
    """

    noise_level: Number
    kind: Literal["gaussian-noise"] = "gaussian-noise"

    limits: ClassVar[dict[str, Limits]] = {"noise_level": NOISE_LEVEL}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        levels = draws.number(self.noise_level)
        return draws.normal(*images.shape[1:]).mul_(levels).to(images.device).add_(images)

    def words(self) -> str:
        return f"gaussian noise {say(self.noise_level)}"


@dataclass(frozen=True)
class PoissonNoise(Degradation):
    """Put Poisson(peak * x) / peak in place of each value x, as counting photons does; below 0 there are none.

    Args:
        peak: mean number of photons at white, from 0.1 to 1000000, or a range that each image draws its own from.

    Raises:
        GenaugError: a field out of its range.

    >>> PoissonNoise(peak=30).words()
    'poisson noise of peak 30'
    """

    peak: Number
    kind: Literal["poisson-noise"] = "poisson-noise"

    limits: ClassVar[dict[str, Limits]] = {"peak": Limits(0.1, 1e6)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        peaks = draws.number(self.peak)
        return draws.poisson(images.cpu().clamp(min=0).mul_(peaks)).div_(peaks).to(images.device)

    def words(self) -> str:
        return f"poisson noise of peak {say(self.peak)}"


@dataclass(frozen=True)
class SpeckleNoise(Degradation):
    """Turn each value x into x + x * n, with n of N(0, noise_level^2).

    Args:
        noise_level: standard deviation of n, from 0 to 10, or a range that each image draws its own from.

    Raises:
        GenaugError: a field out of its range.

    >>> SpeckleNoise(noise_level=0.1).words()
    'speckle noise 0.1'
    """

    noise_level: Number
    kind: Literal["speckle-noise"] = "speckle-noise"

    limits: ClassVar[dict[str, Limits]] = {"noise_level": NOISE_LEVEL}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        levels = draws.number(self.noise_level)
        return draws.normal(*images.shape[1:]).mul_(levels).to(images.device).mul_(images).add_(images)

    def words(self) -> str:
        return f"speckle noise {say(self.noise_level)}"


@dataclass(frozen=True)
class UniformNoise(Degradation):
    """Add noise to each value, uniform between -noise_level and noise_level.

    Args:
        noise_level: half the width on the [0, 1] scale, from 0 to 10, or a range that each image draws its own from.

    Raises:
        GenaugError: a field out of its range.

    >>> UniformNoise(noise_level=0.1).words()
    'uniform noise 0.1'
    """

    noise_level: Number
    kind: Literal["uniform-noise"] = "uniform-noise"

    limits: ClassVar[dict[str, Limits]] = {"noise_level": NOISE_LEVEL}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        levels = draws.number(self.noise_level)
        noise = draws.uniform(*images.shape[1:]).mul_(2).sub_(1).mul_(levels)
        return noise.to(images.device).add_(images)

    def words(self) -> str:
        return f"uniform noise {say(self.noise_level)}"


@dataclass(frozen=True)
class SaltAndPepper(Degradation):
    """Put 0 or 1, equally often, in place of values; those of one pixel's channels are hit independently.

    Args:
        fraction: share of the values, from 0 to 1, each hit with this probability, or a range that each image draws its
            own from.

    Raises:
        GenaugError: a field out of its range.

    >>> SaltAndPepper(fraction=0.05).words()
    'salt and pepper 0.05'
    """

    fraction: Number
    kind: Literal["salt-and-pepper"] = "salt-and-pepper"

    limits: ClassVar[dict[str, Limits]] = {"fraction": Limits(0.0, 1.0)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        half = draws.number(self.fraction) / 2
        chance = draws.uniform(*images.shape[1:])
        pepper, salt = (chance < half).to(images.device), (chance >= 1 - half).to(images.device)
        return images.masked_fill(pepper, 0.0).masked_fill_(salt, 1.0)

    def words(self) -> str:
        return f"salt and pepper {say(self.fraction)}"


@dataclass(frozen=True)
class Clip(Degradation):
    """Clip values to [0, 1], as a camera does.

    >>> Clip().words()
    'clipped'
    """

    kind: Literal["clip"] = "clip"

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        return torch.clamp(images, 0.0, 1.0)

    def words(self) -> str:
        return "clipped"
