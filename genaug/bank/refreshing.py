"""A bank whose samples are drawn anew in the background and swapped in whole between epochs."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import Counts, Filter, write_bank
from genaug.bank.files import Pixels, read_bank
from genaug.bank.sample_bank import SampleBank
from genaug.devices import side_stream
from genaug.errors import DataError, GenaugError
from genaug.seeding import check_seed, derive_seed
from genaug.storage import check_vacant, expand


class RefreshingBank(SampleBank):
    """A bank in a directory that can draw its next samples in the background, and put them in place at once.

    Call `refresh` when an epoch begins and `swap` when it has ended; workers of a loader, also those that are kept
    between epochs, read the new samples from then on. The directory holds a bank for each refresh, `0`, `1` and so on,
    of which the last two are kept; the same seed gives the same ones again.

    Made by `RefreshingBank.generate`, with the arguments of `SampleBank.generate`.

    >>> import tempfile
    >>> from genaug import DataSpec
    >>> from types import SimpleNamespace
    >>> def noise(labels, *, generator=None):
    ...     return torch.rand(len(labels), 1, 4, 4, generator=generator)
    >>> source = SimpleNamespace(spec=DataSpec(1, 4, 4, ("a", "b")), sample=noise)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bank = RefreshingBank.generate(source, 5, seed=0, path=f"{folder}/bank", progress=False)
    ...     before = bank.images(range(10))
    ...     bank.refresh()
    ...     bank.swap()
    ...     torch.equal(bank.images(range(10)), before), bank.version
    (False, 1)
    """

    def __init__(self, folder: Path, current: Tensor) -> None:
        self._folder, self._current = folder, current  # the latter in shared memory, so that workers see a swap
        self._opened = int(current)
        super().__init__(*read_bank(self._path(self._opened), verify=False), path=folder)
        self._next: _Drawing | None = None
        self._request: tuple[Any, Counts, int, tuple[Filter, ...]] | None = None

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
    ) -> "RefreshingBank":
        """Draw the first samples into a new directory `path`, as `SampleBank.generate` does.

        Raises:
            DataError: no path; else as `SampleBank.generate`.
            GenaugError: as `SampleBank.generate`.
        """
        if path is None:
            raise DataError("path must name a new directory for a RefreshingBank, got None")
        folder = expand(path, error=DataError).absolute()
        check_vacant(folder, overwrite=False)
        seed = check_seed(seed)
        write_bank(folder / "0", source, counts, seed=_seed_of(seed, 0), filters=filters, progress=progress)
        bank = cls(folder, torch.zeros(1, dtype=torch.int64).share_memory_())
        bank._request = source, counts, seed, tuple(filters)
        return bank

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> SampleBank:
        """Open the samples that were last in place in a directory that `generate` made, as a bank that stays as it is.

        Raises:
            DataError: no such directory, or a bank in it that is damaged.
        """
        folder = expand(path, error=DataError)
        versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal()]
        return SampleBank.open(folder / str(max(versions, default=0)), verify=verify)

    @property
    def version(self) -> int:
        """How many times the samples were swapped."""
        return int(self._current)

    def refresh(self) -> None:
        """Begin to draw the next samples in a thread; those that are in use stay so until `swap`.

        Raises:
            GenaugError: they are being drawn already, or this is a copy in another process.
        """
        if self._request is None:
            raise GenaugError("refresh must be called in the process that made the bank, not in a copy of it")
        if self._next is not None:
            raise GenaugError("refresh must be called once between two calls of swap")
        source, counts, seed, filters = self._request
        version = self.version + 1
        self._next = _Drawing(self._path(version), source, counts, _seed_of(seed, version), filters)
        self._next.start()

    def swap(self) -> None:
        """Wait for the samples that `refresh` began to draw, and put them in the place of all that are there.

        Raises:
            GenaugError: `refresh` was not called. What went wrong in drawing is raised here too; then the samples stay.
        """
        if self._next is None:
            raise GenaugError("swap must be called after refresh, which begins to draw the next samples")
        drawing, self._next = self._next, None
        drawing.join()
        if drawing.problem is not None:
            raise drawing.problem
        self._current += 1
        shutil.rmtree(self._path(self.version - 2), ignore_errors=True)  # a worker may just be opening the one before

    @property
    def _pixels(self) -> Pixels:
        if self._opened != self.version:
            self._opened = self.version
            self._stored, self.provenance = read_bank(self._path(self._opened), verify=False)
        return super()._pixels

    def _path(self, version: int) -> Path:
        return self._folder / str(version)

    def __reduce__(self) -> tuple[Any, ...]:
        return RefreshingBank, (self._folder, self._current)


class _Drawing(threading.Thread):
    """Draws a bank into a new directory, and keeps the exception where that fails."""

    def __init__(self, path: Path, source: Any, counts: Counts, seed: int, filters: tuple[Filter, ...]) -> None:
        super().__init__(name="genaug-refresh", daemon=True)  # the end of the program does not wait for samples
        self._arguments = path, source, counts
        self._options: dict[str, Any] = {"seed": seed, "filters": filters, "progress": False}
        self.problem: Exception | None = None

    def run(self) -> None:
        device = getattr(self._arguments[1], "device", None)
        try:
            with side_stream(device if isinstance(device, torch.device) else None):
                write_bank(*self._arguments, **self._options)
        except Exception as problem:
            self.problem = problem


def _seed_of(seed: int, version: int) -> int:
    return derive_seed(seed, "refresh", version)
