"""Loss of detail: compression, and a resolution that was too low."""

from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn.functional import interpolate

from genaug.degradations.base import Degradation, Draws, Limits, WholeNumber, say
from genaug.errors import DataError
from genaug.images import to_float, to_uint8

LONGEST_JPEG = 65_500  # pixels a side, in libjpeg


@dataclass(frozen=True)
class Jpeg(Degradation):
    """Compress to JPEG and back with Pillow, on the CPU; values are clipped and rounded to 8 bits before.

    Args:
        quality: a whole number from 1 to 100, or a range that each image draws its own from.

    Raises:
        GenaugError: a field out of its range.

    >>> Jpeg(quality=(10, 90)).words()
    'jpeg quality 10 to 90'
    """

    quality: WholeNumber
    kind: Literal["jpeg"] = "jpeg"

    limits: ClassVar[dict[str, Limits]] = {"quality": Limits(1, 100, whole=True)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        if images.shape[1] not in (1, 3) or max(images.shape[-2:]) > LONGEST_JPEG:
            raise DataError(
                f"images must be gray or RGB (1 or 3 channels), and have sides of at most {LONGEST_JPEG} pixels, "
                f"for jpeg, got shape {tuple(images.shape)}"
            )
        qualities = draws.whole_number(self.quality).flatten().int().tolist()
        levels = to_uint8(images).cpu()
        coded = [_code(image, quality) for image, quality in zip(levels, qualities, strict=True)]
        return to_float(torch.stack(coded).to(images.device))

    def words(self) -> str:
        return f"jpeg quality {say(self.quality)}"


def _code(image: Tensor, quality: int) -> Tensor:
    """Return an image (C, H, W), uint8, as it comes out of a JPEG file."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with JpegImageFile(file) as decoded:  # unlike Image.open it takes images of any size; this one is known to be ours
        return torch.from_numpy(np.array(decoded)).view(*image.shape[1:], len(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class Downsample(Degradation):
    """Make an image smaller, against aliasing, and as large as it was again, both bicubic (Keys 1981, a = -1/2).

    Args:
        factor: a whole number from 2 to 8, of the sides, which are rounded up where they are no multiples.

    Raises:
        GenaugError: a field out of its range.

    >>> Downsample(factor=4).words()
    'downsampled 4x'
    """

    factor: int
    kind: Literal["downsample"] = "downsample"

    limits: ClassVar[dict[str, Limits]] = {"factor": Limits(2, 8, whole=True, single=True)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        size = images.shape[-2:]
        small = interpolate(images, [-(-side // self.factor) for side in size], mode="bicubic", antialias=True)
        return interpolate(small, size, mode="bicubic", antialias=True)  # without antialias, a would be -3/4

    def words(self) -> str:
        return f"downsampled {self.factor}x"
