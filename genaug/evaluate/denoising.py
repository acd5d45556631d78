"""How well do denoisers restore images? By the protocol of the literature, beside the time that they take."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from genaug.degradations import Degradation, degrade, describe
from genaug.errors import DataError, GenaugError, check_share, shorten
from genaug.images import to_float, to_uint8
from genaug.models import require
from genaug.progress import progress_bar

NOISE_LEVELS = 15 / 255, 25 / 255, 50 / 255
INPUT = "input"  # the row of the degraded images themselves
WINDOW = 11  # side of the window of SSIM
MEGAPIXEL = 1e6
PROTOCOL = (
    "Gaussian noise of the protocol is drawn by numpy.random.RandomState(0) anew for each image, and is {clipped}; "
    "restored images are clamped and rounded to 8 bits; PSNR and SSIM (Gaussian window of 11x11, mean over channels) "
    "are means over images. PSNR leaves out images that the degradation left as they were, and those that are restored "
    "exactly (exact), of which it is infinite. Seconds are those of one image after another, from floats to 8 bits, on "
    "{threads} threads."
)

Denoiser = Callable[[Tensor, float | None], Tensor]


class NamedImages(Protocol):
    """A known number of images with their names, to go through several times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Tensor]]: ...


@dataclass(frozen=True)
class DenoisingRow:
    """What one denoiser made of one kind of degraded images.

    Args:
        denoiser: its name, or "input" for the degraded images themselves.
        degradation: in words.
        noise_level: standard deviation of the Gaussian noise of the protocol, on the [0, 1] scale; None for another
            degradation.
        images: how many.
        psnr: mean of the peak signal-to-noise ratios, in decibels, of the images that the degradation changed and that
            were not restored exactly, of which it would be infinite; None where no image is left.
        exact: images that are equal to the clean ones; of the input, those that the degradation left as they were.
        ssim: mean structural similarity (Wang et al. 2004); None where an image has a side below 11.
        seconds: per megapixel; None for the input.
    """

    denoiser: str
    degradation: str
    noise_level: float | None
    images: int
    psnr: float | None
    exact: int
    ssim: float | None
    seconds: float | None


@dataclass
class DenoisingResult:
    """The rows of all denoisers, degradation by degradation, and how they were measured."""

    protocol: str
    rows: list[DenoisingRow] = field(default_factory=list)

    def row(self, denoiser: str, degradation: str) -> DenoisingRow:
        """Return one row.

        Raises:
            GenaugError: there is none of these names.
        """
        for row in self.rows:
            if (row.denoiser, row.degradation) == (denoiser, degradation):
                return row
        raise GenaugError(f"no row of {shorten(denoiser)} for {shorten(degradation)}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def measure_denoising(
    denoisers: Mapping[str, Any],
    images: NamedImages,
    *,
    noise_levels: Sequence[float] = NOISE_LEVELS,
    degradations: Sequence[Degradation] = (),
    clip: bool = False,
    progress: bool = True,
    on_rows: Callable[[DenoisingResult], None] | None = None,
) -> DenoisingResult:
    """Measure denoisers on clean images that are degraded here.

    All of them restore the same pixels, one image after the other, so that their times compare.

    Args:
        denoisers: by name; models that `restore`, which are not told the noise level, or functions of a degraded image,
            float32 (C, H, W), and its noise level (None where it is unknown) that return the restored one.
        images: names and clean images, uint8 (C, H, W), of any size, such as `load_images` gives.
        noise_levels: standard deviations of Gaussian noise on the [0, 1] scale, a row each.
        degradations: further ones, a row each.
        clip: clip the noise to [0, 1], as files do; papers leave it out.
        progress: show a progress bar.
        on_rows: called with the result so far after each degradation.

    Raises:
        GenaugError: a denoiser that cannot `restore`, or called "input"; noise levels out of range; nothing to measure.
        DataError: no images, or images that a denoiser cannot take; a restored image of another shape, or
            with values that are not finite.

    >>> from genaug.models import Denoiser, DenoiserConfig
    >>> from genaug.spec import DataSpec
    >>> model = Denoiser(DataSpec(channels=1), DenoiserConfig(width=4, levels=2, blocks=1))
    >>> images = [("flat", torch.full((1, 16, 24), 128, dtype=torch.uint8))]
    >>> result = measure_denoising({"untrained": model}, images, noise_levels=[0.1], progress=False)
    >>> [(row.denoiser, row.degradation, round(row.psnr)) for row in result.rows]
    [('input', 'noise 25.5/255', 20), ('untrained', 'noise 25.5/255', 20)]
    """
    jobs = _list_degradations(noise_levels, degradations, clip=clip)
    if INPUT in denoisers:
        raise GenaugError(f"denoisers must have other names than {INPUT!r}, which is that of the images given")
    workers: dict[str, Denoiser] = {INPUT: lambda image, level: image}
    workers |= {name: _as_denoiser(denoiser) for name, denoiser in denoisers.items()}
    clipped = "clipped to [0, 1]" if clip else "not clipped"
    result = DenoisingResult(PROTOCOL.format(clipped=clipped, threads=torch.get_num_threads()))
    warm: set[str] = set()
    with progress_bar("restoring", total=len(jobs) * len(images) * len(workers), enabled=progress) as update:
        for words, level, spoil in jobs:
            tallies = {name: _Tally() for name in workers}
            for number, (where, clean) in enumerate(images):
                degraded = spoil(clean, number)
                for name, work in workers.items():
                    if name not in warm:
                        work(degraded, level)  # what is set up at the first call does not count
                        warm.add(name)
                    restored, seconds = _time(work, degraded, level)
                    if not restored.isfinite().all():
                        raise DataError(f"{where}: denoiser {name!r} must give finite values, got NaN or infinite ones")
                    restored = to_uint8(restored.clamp(0, 1))
                    tallies[name].add(restored, seconds, clean=clean, where=f"{where}, {name}")
                    update()
            before = tallies[INPUT].psnr
            result.rows += [tally.row(name, words, level, before=before) for name, tally in tallies.items()]
            if on_rows is not None:
                on_rows(result)
    return result


class _Tally:
    """Scores of one denoiser for one degradation."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.seconds = 0.0
        self.pixels = 0

    def add(self, restored: Tensor, seconds: float, *, clean: Tensor, where: str) -> None:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        if restored.shape != clean.shape:
            raise DataError(f"{where}: a restored image must have its shape {tuple(clean.shape)}, got {restored.shape}")
        pair = (to_float(restored)[None], to_float(clean)[None])
        self.psnr.append(float(peak_signal_noise_ratio(*pair, data_range=1.0)))
        self.ssim.append(_measure_ssim(*pair) if min(clean.shape[1:]) >= WINDOW else math.nan)
        self.seconds += seconds
        self.pixels += clean[0].numel()

    def row(self, name: str, words: str, level: float | None, *, before: Sequence[float]) -> DenoisingRow:
        if not self.psnr:
            raise DataError("images must hold at least one image, got none")
        finite = [psnr for psnr, first in zip(self.psnr, before, strict=True) if max(psnr, first) < math.inf]
        ssim = fmean(self.ssim)
        return DenoisingRow(
            denoiser=name,
            degradation=words,
            noise_level=level,
            images=len(self.psnr),
            psnr=fmean(finite) if finite else None,
            exact=self.psnr.count(math.inf),
            ssim=None if math.isnan(ssim) else ssim,
            seconds=None if name == INPUT else self.seconds * MEGAPIXEL / self.pixels,
        )


def _measure_ssim(restored: Tensor, clean: Tensor) -> float:
    """Return the mean structural similarity of a pair (1, C, H, W) where the window lies within the image."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, places = structural_similarity_index_measure(restored, clean, data_range=1.0, return_full_image=True)
    reach = WINDOW // 2
    return float(places[..., reach : places.shape[-2] - reach, reach : places.shape[-1] - reach].mean())


def _time(work: Denoiser, degraded: Tensor, level: float | None) -> tuple[Tensor, float]:
    """Return the restored image on the CPU, and the seconds until it was there."""
    began = time.perf_counter()
    restored = work(degraded, level).cpu()
    return restored, time.perf_counter() - began


def _as_denoiser(denoiser: Any) -> Denoiser:
    if not hasattr(denoiser, "restore") and callable(denoiser) and not isinstance(denoiser, torch.nn.Module):
        return denoiser  # type: ignore[no-any-return]
    restore = require(denoiser, "restore")
    return lambda image, level: restore(image[None])[0]


def _list_degradations(
    noise_levels: Sequence[float], degradations: Sequence[Degradation], *, clip: bool
) -> list[tuple[str, float | None, Callable[[Tensor, int], Tensor]]]:
    """Return words, noise level and function of a clean image and its number, for each row."""
    levels = [check_share(level, name="noise_levels") for level in noise_levels]
    if not all(levels):
        raise GenaugError(
            f"noise_levels must be above 0, where there is noise to take off, got {shorten(noise_levels)}"
        )
    jobs: list[tuple[str, float | None, Callable[[Tensor, int], Tensor]]] = [
        (f"noise {255 * level:.4g}/255" + ", clipped" * clip, level, partial(_add_noise, level=level, clip=clip))
        for level in levels
    ]
    jobs += [(describe([one]), None, partial(_degrade, degradation=one)) for one in degradations]
    if not jobs:
        raise GenaugError("noise_levels or degradations must name at least one degradation, got none")
    return jobs


def _add_noise(clean: Tensor, number: int, *, level: float, clip: bool) -> Tensor:
    channels, height, width = clean.shape
    generator = np.random.RandomState(0)  # of the protocol, with its order of pixels and channels
    noise = torch.from_numpy(generator.normal(0, level, (height, width, channels))).permute(2, 0, 1)
    noisy = (to_float(clean) + noise).float()
    return noisy.clamp(0, 1) if clip else noisy


def _degrade(clean: Tensor, number: int, *, degradation: Degradation) -> Tensor:
    return degrade(clean[None], [degradation], seeds=torch.tensor([number]))[0]
