"""Degradations one after another: applied to images, read from plain values, and put into words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genaug.config import parse_config
from genaug.degradations.base import Degradation, Draws
from genaug.degradations.blur import GaussianBlur, MotionBlur
from genaug.degradations.loss import Downsample, Jpeg
from genaug.degradations.missing import MissingPixels, MissingRectangles
from genaug.degradations.noise import Clip, GaussianNoise, PoissonNoise, SaltAndPepper, SpeckleNoise, UniformNoise
from genaug.errors import DataError, GenaugError, shorten
from genaug.images import check_images, to_float
from genaug.seeding import check_seeds

KINDS: tuple[type[Degradation], ...] = (
    GaussianNoise,
    PoissonNoise,
    SpeckleNoise,
    UniformNoise,
    SaltAndPepper,
    Clip,
    GaussianBlur,
    MotionBlur,
    Jpeg,
    Downsample,
    MissingRectangles,
    MissingPixels,
)
DEGRADATIONS = {kind.kind: kind for kind in KINDS}


def degrade(images: Tensor, degradations: Iterable[Degradation], *, seeds: Tensor) -> Tensor:
    """Return degraded images (N, C, H, W), float32 on the same device; they may leave [0, 1].

    All that is drawn for an image depends on its own seed alone, so it is the same in any batch and on any device.
    What one degradation draws does not depend on those after it. No gradients flow.

    Args:
        images: public images (N, C, H, W), which stay as they are; floats may leave [0, 1] by 0.25, as in a resize.
        degradations: applied in their order.
        seeds: one for each image, int64 (N,); only their lowest 32 bits count, as for all generators of torch.

    Raises:
        DataError: images out of range, or that one of the degradations cannot be applied to.
        GenaugError: seeds of another type or number, or something else among the degradations.

    >>> images, seeds = torch.full((2, 1, 8, 8), 0.5), torch.tensor([1, 2])
    >>> noisy = degrade(images, [GaussianNoise(noise_level=(0, 0.2)), Clip()], seeds=seeds)
    >>> torch.equal(noisy[1:], degrade(images[1:], [GaussianNoise(noise_level=(0, 0.2)), Clip()], seeds=seeds[1:]))
    True
    """
    chain = _check_chain(degradations)
    check_images(images, overshoot=True)
    if images.ndim != 4 or not all(images.shape[1:]):
        raise DataError(f"images must have shape (N, C, H, W) and at least one pixel, got {tuple(images.shape)}")
    return degrade_checked(images, chain, seeds=check_seeds(seeds, count=len(images)))


def degrade_checked(images: Tensor, degradations: Iterable[Degradation], *, seeds: Tensor) -> Tensor:
    """Return what `degrade` does, of what is known to be right: to read the range of images is to wait for a GPU."""
    with torch.no_grad():
        result = to_float(images).float()
        if len(images):
            draws = Draws(seeds)
            for degradation in degradations:
                result = degradation.apply(result, draws)
        return result.clone() if result is images else result


def _check_chain(degradations: Iterable[Degradation]) -> tuple[Degradation, ...]:
    chain = tuple(degradations) if isinstance(degradations, Iterable) else ()
    if not isinstance(degradations, Iterable) or not all(isinstance(part, Degradation) for part in chain):
        raise GenaugError(
            f"degradations must be a list of degradations, such as [GaussianNoise(0.1)], got {shorten(degradations)}"
        )
    return chain


def parse_degradation(values: Mapping[str, Any], *, where: str) -> Degradation:
    """Return the degradation that plain `values` (from YAML or JSON) describe by its kind and its fields.

    Args:
        values: the kind and the fields, as `dataclasses.asdict` gives them; lists stand for ranges.
        where: start of the path that messages give.

    Raises:
        GenaugError: an unknown kind; an unknown, missing or wrong field. The message gives its path.

    >>> parse_degradation({"kind": "gaussian-noise", "noise_level": [0, 0.2]}, where="degradations.0")
    GaussianNoise(noise_level=(0.0, 0.2), kind='gaussian-noise')
    """
    if not isinstance(values, Mapping):
        raise GenaugError(f"{where}: must be named fields, such as kind: gaussian-noise, got {shorten(values)}")
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in DEGRADATIONS:
        found = shorten(kind) if "kind" in values else "nothing"
        raise GenaugError(f"{where}.kind: must be one of {', '.join(DEGRADATIONS)}; got {found}")
    return parse_config(DEGRADATIONS[kind], dict(values), where=where, error=GenaugError)


def parse_degradations(values: Sequence[Degradation | Mapping[str, Any]], *, where: str) -> tuple[Degradation, ...]:
    """Return the degradations of a list, each as it is or described by plain values; see `parse_degradation`.

    Args:
        values: degradations, or the kind and the fields of each.
        where: start of the path that messages give.

    Raises:
        GenaugError: no list; an unknown kind; an unknown, missing or wrong field. The message gives its path.

    >>> parse_degradations([GaussianNoise(0.1), {"kind": "clip"}], where="degradations")
    (GaussianNoise(noise_level=0.1, kind='gaussian-noise'), Clip(kind='clip'))
    """
    if not isinstance(values, (list, tuple)):
        raise GenaugError(f"{where}: must be a list of degradations, got {shorten(values)}")
    return tuple(
        value if isinstance(value, Degradation) else parse_degradation(value, where=f"{where}.{place}")
        for place, value in enumerate(values)
    )


def describe(degradations: Iterable[Degradation]) -> str:
    """Return the degradations in a few words, for a row of a table.

    Raises:
        GenaugError: something else among the degradations.

    >>> describe([GaussianNoise(noise_level=(0, 0.22)), Clip()])
    'gaussian noise 0 to 0.22, clipped'
    """
    return ", ".join(degradation.words() for degradation in _check_chain(degradations)) or "unchanged"
