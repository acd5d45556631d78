"""Cyan, magenta, yellow and black as light, and light as such inks again with as much black as there was."""

from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]


def inks_to_light(inks: Samples) -> Samples:
    """Return red, green and blue (3, H, W), float32 in [0, 1], of inks (4, H, W).

    The usual conversion without color management, R = (1 - C)(1 - K), which Pillow has too.

    Args:
        inks: uint8, uint16, or floats in [0, 1]; the highest level is most ink.

    >>> inks_to_light(np.array([0, 255, 0, 51], np.uint8).reshape(4, 1, 1)).ravel().tolist()
    [0.800000011920929, 0.0, 0.800000011920929]
    """
    clear = 1 - inks / _maximum(inks)
    return (clear[:3] * clear[3:]).astype(np.float32)


def light_to_inks(light: Samples, inks: Samples) -> Samples:
    """Return inks (4, H, W), in the dtype of `inks`, that give `light`, with their black or less.

    Black gives way where a color is brighter than it allows: K' = min(K, 1 - max(R, G, B)), then C' = 1 - R / (1 - K').
    Light that has not changed gives the same inks again.

    Args:
        light: red, green and blue (3, H, W), float32 in [0, 1].
        inks: (4, H, W), those that the light was made of before it was changed.
    """
    maximum = _maximum(inks)
    wanted = light.astype(np.float64)
    white = np.maximum(1 - inks[3] / maximum, wanted.max(0))  # 1 - K'
    levels = maximum * np.concatenate([1 - wanted / np.where(white == 0, 1, white), 1 - white[None]])
    changed = (light != inks_to_light(inks)).any(0)  # the others may be black in more than one way
    return np.where(changed, levels if maximum == 1 else levels.round(), inks).astype(inks.dtype)


def _maximum(samples: Samples) -> float:
    return float(np.iinfo(samples.dtype).max) if samples.dtype.kind == "u" else 1.0
