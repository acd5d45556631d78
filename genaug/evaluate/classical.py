"""Classical denoisers of other libraries, as rivals: each is told the noise level, and a gray or an RGB image.

Where a method has a strength to choose, it is a multiple of the noise level: the best of four to six by mean PSNR at
noise levels of 25 and 50 of 255, on ten images of BSDS400 that the training of our denoisers holds out.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genaug.errors import GenaugError, check_choice

Pixels = NDArray[np.float32]  # (H, W) or (H, W, 3), on the [0, 1] scale, which noise may lead out of


def bm3d(noisy: Pixels, noise_level: float) -> Pixels:
    """Block matching and collaborative filtering (Dabov et al. 2007), by its authors; for color in opponent colors."""
    import bm3d as package

    restore: Any = package.bm3d if noisy.ndim == 2 else package.bm3d_rgb
    return np.asarray(restore(noisy, noise_level), dtype=np.float32)


def non_local_means(noisy: Pixels, noise_level: float) -> Pixels:
    """Non-local means (Buades et al. 2005) of scikit-image, with patches of 5x5 in a window of 13x13 pixels."""
    from skimage.restoration import denoise_nl_means

    options: dict[str, Any] = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return _as_float(denoise_nl_means(noisy, h=0.6 * noise_level, sigma=noise_level, **options, **_axis(noisy)))


def opencv_non_local_means(noisy: Pixels, noise_level: float) -> Pixels:
    """Non-local means of OpenCV, which takes 8 bits: the noise is clipped and rounded first."""
    import cv2

    pixels = (255 * noisy.clip(0, 1)).round().astype(np.uint8)
    if noisy.ndim == 2:
        return _as_float(cv2.fastNlMeansDenoising(pixels, h=0.8 * 255 * noise_level) / 255)
    strength = 0.6 * 255 * noise_level
    turned = np.ascontiguousarray(pixels[..., ::-1])  # it takes blue, green, red
    return _as_float(cv2.fastNlMeansDenoisingColored(turned, h=strength, hColor=strength)[..., ::-1] / 255)


def total_variation(noisy: Pixels, noise_level: float) -> Pixels:
    """Total variation (Chambolle 2004) of scikit-image."""
    from skimage.restoration import denoise_tv_chambolle

    return _as_float(denoise_tv_chambolle(noisy, weight=1.0 * noise_level, **_axis(noisy)))


def wavelets(noisy: Pixels, noise_level: float) -> Pixels:
    """Soft thresholds for wavelets (BayesShrink: Chang et al. 2000) of scikit-image, for color in YCbCr."""
    from skimage.restoration import denoise_wavelet

    options: dict[str, Any] = {"method": "BayesShrink", "mode": "soft", "wavelet": "db2", "rescale_sigma": True}
    color = noisy.ndim == 3
    return _as_float(denoise_wavelet(noisy, sigma=noise_level, convert2ycbcr=color, **options, **_axis(noisy)))


CLASSICAL: dict[str, Callable[[Pixels, float], Pixels]] = {
    "bm3d": bm3d,
    "nlm": non_local_means,
    "opencv-nlm": opencv_non_local_means,
    "tv": total_variation,
    "wavelet": wavelets,
}
PACKAGES = {
    "bm3d": ("bm3d", "pip install bm3d (free for non-commercial use only)"),
    "nlm": ("skimage", "pip install 'genaug[classical]'"),
    "opencv-nlm": ("cv2", "pip install 'genaug[opencv]'"),
    "tv": ("skimage", "pip install 'genaug[classical]'"),
    "wavelet": ("pywt", "pip install 'genaug[classical]'"),
}


def find_rival(name: str) -> Callable[[Tensor, float], Tensor]:
    """Return a rival by its name in `CLASSICAL`: noisy float32 (C, H, W) and noise level -> restored float32 (C, H, W).

    Raises:
        GenaugError: an unknown name, or a rival whose package is not installed.
    """
    check_choice(name, CLASSICAL, name="rival")
    if not is_installed(name):
        package, remedy = PACKAGES[name]
        raise GenaugError(f"rival {name} needs the package {package}, which is not installed; {remedy}")
    return partial(_restore, CLASSICAL[name])


def _restore(method: Callable[[Pixels, float], Pixels], noisy: Tensor, noise_level: float) -> Tensor:
    pixels = method(noisy.permute(1, 2, 0).squeeze(2).numpy(), noise_level)
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels))).permute(2, 0, 1)


def is_installed(name: str) -> bool:
    """Tell whether the package of a rival is there."""
    return find_spec(PACKAGES[name][0]) is not None


def _axis(noisy: Pixels) -> dict[str, Any]:
    return {"channel_axis": -1 if noisy.ndim == 3 else None}


def _as_float(pixels: Any) -> Pixels:
    return np.asarray(pixels, dtype=np.float32)
