"""One image of a file as numbers, and what every kind of image file can do."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genaug.data.pictures.inks import inks_to_light, light_to_inks
from genaug.errors import DataError, GenaugError, shorten
from genaug.images import LEVELS
from genaug.storage import new_file

Levels = npt.NDArray[Any]  # uint8, uint16 or float32, samples last: (H, W, S)

FARTHEST = 1.0  # that noise leads float pixels out of [0, 1]; more is another scale


@dataclass(frozen=True)
class Picture:
    """One image of a file: what a model may change, and what is kept beside it.

    Args:
        pixels: (1, H, W) gray or (3, H, W) RGB; uint8 in [0, 255], uint16 in [0, 65535] or float32 in [0, 1], which
            noise may lead out of.
        alpha: (A, H, W) of the file's dtype, what else there is for each pixel; it goes back untouched.
        inks: (4, H, W) of the file's dtype, the cyan, magenta, yellow and black that float `pixels` were made of.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    inks: Tensor | None = None

    @property
    def maximum(self) -> float:
        """The level of `pixels` that is white: 255, 65535 or 1."""
        return float(LEVELS.get(self.pixels.dtype, 1))

    def with_pixels(self, pixels: Tensor) -> "Picture":
        """Return this picture with other pixels of the same shape and dtype.

        Raises:
            DataError: another shape or dtype.
        """
        if pixels.shape != self.pixels.shape or pixels.dtype != self.pixels.dtype:
            raise DataError(
                f"pixels must be {self.pixels.dtype} of shape {tuple(self.pixels.shape)} as before, got {pixels.dtype} "
                f"of shape {tuple(pixels.shape)}"
            )
        return replace(self, pixels=pixels)

    def to_levels(self) -> Levels:
        """Return all samples (H, W, S) as the file holds them: gray, color or inks, then the rest."""
        samples = self.pixels.cpu().numpy()
        if self.inks is not None:
            samples = light_to_inks(samples, self.inks.numpy())
        if self.alpha is not None:
            samples = np.concatenate([samples, self.alpha.numpy()])
        return np.ascontiguousarray(samples.transpose(1, 2, 0))


def make_picture(levels: Levels, *, color: int) -> Picture:
    """Return the picture of samples (H, W, S), of which the first `color` are gray (1), RGB (3) or CMYK (4).

    Raises:
        DataError: floats that are not finite or far outside [0, 1].
    """
    native = levels.dtype.newbyteorder("=")
    samples = torch.from_numpy(np.array(levels.transpose(2, 0, 1), dtype=native, order="C"))
    pixels, rest = samples[:color], samples[color:]
    if pixels.dtype == torch.float32:
        _check_floats(pixels)
    alpha = rest if len(rest) else None
    if color == 4:
        return Picture(torch.from_numpy(inks_to_light(pixels.numpy())), alpha, pixels)
    return Picture(pixels, alpha)


def _check_floats(pixels: Tensor) -> None:
    if not pixels.isfinite().all():
        raise DataError("holds NaN or infinite pixels, which cannot be restored; replace them first")
    low, high = (float(value) for value in pixels.aminmax())
    if low < -FARTHEST or high > 1 + FARTHEST:
        raise DataError(
            f"float pixels must be in [0, 1], but for noise, got values from {low:g} to {high:g}; scale them, or store "
            "them as 16-bit integers"
        )


class PictureFile(ABC):
    """A file of one or more images, which are read one after another, and saved as a file of the same kind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Iterator[Picture]:
        """Yield the images; several where the file has pages.

        Raises:
            DataError: a file that is damaged, or of a kind that would not survive; the message names it.
        """
        with explain_read_errors(self.path):
            yield from self.decode()

    def save(self, path: str | os.PathLike[str], restored: Iterable[Picture]) -> None:
        """Write a file like this one, with other pixels, to `path`, whole or not at all; a file there is replaced.

        Args:
            path: where to write, with a suffix that fits; folders that are missing are made.
            restored: the images of `read` with new pixels, as many and in that order. They are taken one at a time,
                so that a generator keeps one page in memory.

        Raises:
            GenaugError: the disk is full or not writable.
            DataError: an image that this kind of file cannot hold.
        """
        with new_file(Path(path)) as file:
            self.encode(file, restored)

    @abstractmethod
    def decode(self) -> Iterator[Picture]:
        """Yield the images; errors of any kind mean a damaged file."""

    @abstractmethod
    def encode(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write the file, with the pixels of `pictures`, to an empty `file` that can be read too."""


@contextmanager
def explain_read_errors(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading an image file into a `DataError` that names `path`; hide warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders, about metadata; and of sizes short of a bomb's
            yield
    except Exception as problem:  # decoders of damaged files fail with anything: SyntaxError, struct.error, ...
        if isinstance(problem, OSError) and problem.strerror:
            reason = problem.strerror
        else:
            reason = str(problem) if isinstance(problem, GenaugError) else shorten(str(problem), 300)
        raise DataError(f"{path}: cannot be read as an image ({reason})") from problem
