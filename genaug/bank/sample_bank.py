"""Pools of accepted synthetic samples: drawn once in the main process, read by any number of workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genaug.bank.drawing import Counts, draw_bank, write_bank
from genaug.bank.exports import EXPORTS, check_format, check_target, replacement
from genaug.bank.files import PROVENANCE, Pixels, Provenance, read_bank
from genaug.bank.selection import MAX_DRAWS, Filter, Selection, Short, warn_of_short
from genaug.errors import DataError, shorten
from genaug.spec import DataSpec
from genaug.storage import expand


class SampleBank:
    """A pool of uint8 images (N, C, H, W) with labels, sorted by class, in memory or memory-mapped from a directory.

    Made by `SampleBank.generate` or `SampleBank.open`. A bank in a directory is pickled as its path, so that workers
    of a loader share one copy.

    Attributes:
        provenance: where the samples come from: source and hash of its weights, seed, versions, filters, and what of
            the samples of each class they accepted.
        path: the directory, or None in memory.

    >>> from types import SimpleNamespace
    >>> def noise(labels, *, generator=None):
    ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
    >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
    >>> bank = SampleBank.generate(source, [2, 3], seed=0, progress=False)
    >>> bank.counts, bank.labels.tolist(), bank.rows(1)
    ([2, 3], [0, 0, 1, 1, 1], (2, 5))
    """

    def __init__(self, stored: Tensor | Pixels, provenance: Provenance, *, path: Path | None = None) -> None:
        self._stored = stored  # a tensor in memory, which processes can share, or the mapped file
        self.provenance = provenance
        self.path = path
        self._starts = [0, *np.cumsum(provenance.counts).tolist()]

    @classmethod
    def generate(
        cls,
        source: Any,
        counts: Counts,
        *,
        seed: int,
        filters: Sequence[Filter] = (),
        path: str | Path | None = None,
        progress: bool = True,
        short: Short = "error",
        max_draws: int = MAX_DRAWS,
    ) -> SampleBank:
        """Draw accepted samples of every class from `source`, in memory or straight into a new directory.

        Samples of a class depend on `source`, `seed` and `filters` alone: a larger bank starts with those of a smaller
        one. What the filters accepted of each class stands in `provenance`: `acceptance` of all together, and
        `filter_acceptance` of each.

        Args:
            source: a model or bank, with `spec` and `sample(labels, *, generator=None)`. Those of a bank are drawn with
                replacement: some repeat, and others are left out.
            counts: samples a class: one number for all, a dict by class name, or a list.
            seed: of all draws.
            filters: called with uint8 images (n, C, H, W) and labels (n,); return a bool mask (n,) of those to keep,
                such as those of `genaug.filters`.
            path: directory of the bank, streamed to in bounded memory; None keeps the bank in memory.
            progress: show a progress bar.
            short: what to do where the filters accept too few samples of a class: "error", or "fewer" to make a bank
                with those that were found, and warn once of all such classes. `counts` and `provenance` say what is
                there.
            max_draws: how many samples are drawn, at most, for each one that is wanted of a class (and up to 127 more,
                as they are drawn in chunks); at least 1.

        Raises:
            DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all
                (with short="fewer": all), or that were fitted for other classes or without images of one that is
                wanted; another `short` or `max_draws`.
            GenaugError: `path` exists, the disk is full or not writable, or a seed that is no integer.

        >>> from types import SimpleNamespace
        >>> def noise(labels, *, generator=None):
        ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
        >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
        >>> len(SampleBank.generate(source, {"b": 5}, seed=0, progress=False))
        5
        """
        selection = Selection(filters, short, max_draws)
        options: dict[str, Any] = {"seed": seed, "selection": selection, "progress": progress}
        if path is None:
            pixels, provenance, tallies = draw_bank(source, counts, **options)
            bank = cls(pixels, provenance)
        else:
            path = expand(path, error=DataError)
            tallies = write_bank(path, source, counts, **options)
            bank = cls.open(path, verify=False)
        warn_of_short(bank.spec, selection.names, tallies, stacklevel=2)
        return bank

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> SampleBank:
        """Open the bank in directory `path`; its images stay on disk and are mapped into memory.

        Args:
            path: directory that `generate` or `export` wrote.
            verify: read all of it once and compare its hash.

        Raises:
            DataError: a directory that is no bank, or one that is incomplete, damaged or changed.

        >>> SampleBank.open("no/such/bank")
        Traceback (most recent call last):
        genaug.errors.DataError: no/such/bank: no such directory; a bank is made by SampleBank.generate(..., path=)
        """
        path = expand(path, error=DataError)
        if not os.path.exists(path / PROVENANCE) and os.path.exists(path / "0" / PROVENANCE):  # False for a long name
            raise DataError(f"{path}: holds a bank of several versions; open it with RefreshingBank.open")
        pixels, provenance = read_bank(path, verify=verify)
        return cls(pixels, provenance, path=path.absolute())

    @property
    def _pixels(self) -> Pixels:
        return self._stored.numpy() if isinstance(self._stored, Tensor) else self._stored

    @property
    def spec(self) -> DataSpec:
        """Size of the images, and names of the classes."""
        return self.provenance.spec

    @property
    def counts(self) -> list[int]:
        """Number of samples of every class."""
        return list(self.provenance.counts)

    @property
    def labels(self) -> Tensor:
        """Class index of every sample: int64 (N,), sorted."""
        return torch.repeat_interleave(torch.tensor(self.counts))

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"SampleBank({len(self)} images {self.spec.size} of {self.spec.num_classes} classes, path={self.path})"

    def rows(self, class_index: int) -> tuple[int, int]:
        """Return the first row of a class and the one after its last.

        Raises:
            DataError: `class_index` is no class of the bank.
        """
        if not 0 <= class_index < self.spec.num_classes:
            raise DataError(f"class_index must be from 0 to {self.spec.num_classes - 1}, got {class_index}")
        return self._starts[class_index], self._starts[class_index + 1]

    def images(self, rows: Tensor | Sequence[int]) -> Tensor:
        """Return the uint8 images (n, C, H, W) of these `rows` (n,), as a new tensor.

        Raises:
            DataError: a row that the bank does not have, or rows that are no integers, such as a mask.

        >>> from types import SimpleNamespace
        >>> def noise(labels, *, generator=None):
        ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
        >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
        >>> SampleBank.generate(source, 2, seed=0, progress=False).images([1, 0]).shape
        torch.Size([2, 1, 4, 4])
        """
        given = torch.as_tensor(rows)
        if given.numel() and (given.dtype == torch.bool or given.is_floating_point()):
            raise DataError(f"rows must be integers, got {given.dtype}; of a mask pass mask.nonzero()")
        wanted = np.asarray(given.to("cpu", torch.int64)).reshape(-1)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise DataError(f"rows must be from 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        return torch.from_numpy(self._pixels.take(wanted, axis=0))

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return a random uint8 image (n, C, H, W) of each of the classes `labels` (n,), with replacement.

        Args:
            labels: int64 class indices.
            generator: to draw with; None takes torch's global one.

        Raises:
            DataError: a label that is no class of the bank, or a class without samples.

        >>> from types import SimpleNamespace
        >>> def noise(labels, *, generator=None):
        ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
        >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
        >>> bank = SampleBank.generate(source, 2, seed=0, progress=False)
        >>> bank.sample(torch.tensor([1, 1, 0]), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1, 4, 4])
        """
        self.spec.check_labels(labels)
        labels = labels.cpu()
        counts = torch.tensor(self.counts)[labels]
        if len(counts) and not counts.min():
            names = [self.spec.class_names[index] for index in sorted(set(labels[counts == 0].tolist()))]
            raise DataError(f"labels must be of classes that the bank has samples of; it has none of {shorten(names)}")
        device = generator.device if generator is not None else "cpu"
        numbers = torch.randint(2**62, labels.shape, generator=generator, device=device).cpu()
        return self.images(torch.tensor(self._starts)[labels] + numbers % counts)

    def export(
        self, path: str | Path, *, format: Literal["imagefolder", "bank", "parquet"], overwrite: bool = False
    ) -> None:
        """Write all samples to `path`, whole or not at all, without loss.

        Args:
            path: a directory for "imagefolder" and "bank", a file for "parquet"; an empty directory is filled.
            format: "imagefolder" (a folder of PNG files a class), "bank" (as `open` reads), or "parquet" (as
                `datasets.load_dataset("parquet", data_files=path)` reads, with columns `image` and `label`).
            overwrite: replace an earlier export.

        Raises:
            DataError: an unknown format, channels that PNG has not, class names that are unsafe as folders.
            GenaugError: `path` exists and `overwrite` is not set, or the disk is full or not writable.

        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> def noise(labels, *, generator=None):
        ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
        >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
        >>> bank = SampleBank.generate(source, 2, seed=0, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bank.export(Path(folder, "out"), format="imagefolder")
        ...     sorted(file.name for file in Path(folder, "out", "a").iterdir())
        ['000000.png', '000001.png']
        """
        target = expand(path, error=DataError)
        check_format(format, self.spec, self.counts)
        check_target(target, format=format, overwrite=overwrite)
        with replacement(target, format=format) as directory:
            EXPORTS[format](directory, self._pixels, self.provenance)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return _reopen, (str(self.path), self.provenance.images_sha256)
        return SampleBank, (self._stored, self.provenance)


def _reopen(path: str, images_sha256: str) -> SampleBank:
    bank = SampleBank.open(path, verify=False)
    if bank.provenance.images_sha256 != images_sha256:
        raise DataError(f"{path}: the bank was replaced by another one while it was in use; open it again")
    return bank
