"""What denoisers restore, and in what time: the shipped ones beside those of other libraries and a bare DnCNN."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from genaug.data import load_images
from genaug.evaluate import DenoisingResult, measure_denoising
from genaug.evaluate.classical import CLASSICAL, find_rival, is_installed
from genaug.evaluate.denoising import NOISE_LEVELS
from genaug.workflows.restoration import print_restoration
from genaug.workflows.timing import Row
from genaug.zoo import load

MODELS = {1: "denoiser-gray", 3: "denoiser-color"}
DNCNN = "DnCNN, random weights"
AIMS = {"bm3d": "<= 0.05", DNCNN: "<= 0.25"}


def bench_denoise(data: Any = None) -> list[Row]:
    """Print PSNR, SSIM and time of the shipped denoiser and of the rivals that are installed; return times to compare.

    On one processor, in float32, one image after another.

    Args:
        data: what `load_images` takes, all of it gray or all color; by default two photographs of scikit-learn, in
            gray and then in color.
    """
    sets = [_take_photographs(grayscale=True), _take_photographs(grayscale=False)] if data is None else [data]
    return [row for images in sets for row in _bench(images)]


def _bench(data: Any) -> list[Row]:
    images = load_images(data)
    channels = next(iter(images))[1].shape[0]
    name = MODELS.get(channels, MODELS[3])
    missing = [rival for rival in CLASSICAL if not is_installed(rival)]
    if missing:
        Console().print(f"not installed, so left out: {', '.join(missing)}", highlight=False)
    denoisers: dict[str, Any] = {name: load(name, device="cpu")}
    denoisers |= {rival: find_rival(rival) for rival in CLASSICAL if rival not in missing}
    dncnn = make_dncnn(channels)

    def run_dncnn(image: Tensor, level: float | None) -> Tensor:
        with torch.no_grad():
            return image - dncnn(image[None])[0]  # type: ignore[no-any-return]

    result = measure_denoising({**denoisers, DNCNN: run_dncnn}, images, noise_levels=NOISE_LEVELS)
    print_restoration(result)
    return _compare_times(result, name)


def _compare_times(result: DenoisingResult, name: str) -> list[Row]:
    """Return seconds per megapixel of our model beside those of its rivals, as means over noise levels."""
    seconds: dict[str, list[float]] = {}
    for row in result.rows:
        if row.seconds is not None:
            seconds.setdefault(row.denoiser, []).append(row.seconds)
    means = {denoiser: float(np.mean(values)) for denoiser, values in seconds.items()}
    return [
        (f"a megapixel of {name} / {rival}", means[name], mean, AIMS.get(rival, ""))
        for rival, mean in means.items()
        if rival != name
    ]


def make_dncnn(channels: int, *, depth: int = 17, width: int = 64) -> nn.Sequential:
    """Return the layers of DnCNN (Zhang et al. 2017) with any weights, its batch statistics folded into convolutions.

    >>> sum(weight.numel() for weight in make_dncnn(1).parameters())
    555137
    """
    net = nn.Sequential()
    for inputs, outputs in pairwise([channels, *[width] * (depth - 1), channels]):
        net.extend([nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()])
    return net[:-1].to(memory_format=torch.channels_last)


def _take_photographs(*, grayscale: bool) -> Any:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [photograph.convert("L") if grayscale else photograph for photograph in photographs]
