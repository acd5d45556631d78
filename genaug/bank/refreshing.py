"""A bank whose samples are drawn anew in the background and swapped in whole between epochs."""

import atexit
import os
import shutil
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genaug.bank.drawing import Counts, check_request, fill_bank, write_bank
from genaug.bank.files import PROVENANCE, Pixels, Provenance, read_bank
from genaug.bank.sample_bank import SampleBank
from genaug.bank.selection import MAX_DRAWS, Filter, Selection, Short
from genaug.devices import side_stream
from genaug.errors import DataError, GenaugError, shorten
from genaug.seeding import check_seed, derive_seed
from genaug.storage import check_vacant, expand, new_directory

NEXT = "next"  # where samples are drawn until they are put in place


class RefreshingBank(SampleBank):
    """A bank in a directory that can draw its next samples in the background, and put them in place at once.

    Call `refresh` when an epoch begins and `swap` when it has ended; workers of a loader, also those that are kept
    between epochs, read the new samples from then on. The directory holds a bank for each refresh, `0`, `1` and so on,
    of which the last two are kept; the same seed gives the same ones again. A pickled bank is for processes that share
    the memory, such as a loader's workers; one that is kept otherwise finds its samples gone after two swaps.

    In distributed training each process generates one at a path of its own, all with the same seed. A job that is
    started anew generates one at a new path: what `open` reads from an old one stays as it is.

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
        self._request: tuple[Any, list[int], int, Selection] | None = None
        self._made_in: int | None = None

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
    ) -> "RefreshingBank":
        """Draw the first samples into a new directory `path`, as `SampleBank.generate` does.

        A class that cannot be filled is always an error, here or in `swap`: `counts`, which data sets that mix the
        samples in go by, stay the same for all samples.

        Raises:
            DataError: no path, or another `short` than "error"; else as `SampleBank.generate`.
            GenaugError: as `SampleBank.generate`.
        """
        selection = Selection(filters, short, max_draws)
        if short != "error":
            raise DataError(
                "short must be 'error' for a RefreshingBank, whose later samples must be as many, got "
                f"{shorten(short)}; ask for fewer samples, or generate a SampleBank"
            )
        if path is None:
            raise DataError("path must name a new directory for a RefreshingBank, got None")
        folder = expand(path, error=DataError).absolute()
        check_vacant(folder, overwrite=None)
        seed, wanted = check_seed(seed), check_request(source, counts, seed)
        write_bank(folder / "0", source, wanted, seed=_seed_of(seed, 0), selection=selection, progress=progress)
        bank = cls(folder, torch.zeros(1, dtype=torch.int64).share_memory_())
        bank._request, bank._made_in = (source, wanted, seed, selection), os.getpid()
        return bank

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> SampleBank:
        """Open the samples that were last in place in a directory that `generate` made, as a bank that stays as it is.

        Raises:
            DataError: no such directory, or a bank in it that is damaged.
        """
        folder = expand(path, error=DataError)
        if (folder / PROVENANCE).is_file():
            raise DataError(f"{folder}: must be a refreshing bank, got one that stays; open it with SampleBank.open")
        versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal()]
        return SampleBank.open(folder / str(max(versions, default=0)), verify=verify)

    @property
    def version(self) -> int:
        """How many times the samples were swapped."""
        return int(self._current)

    def refresh(self) -> None:
        """Begin to draw the next samples in a thread; those that are in use stay so until `swap`.

        The source is used in the thread, in evaluation mode: it must not be trained meanwhile. At the end of the
        program the thread stops after the samples that it is at.

        Raises:
            GenaugError: they are being drawn already, or this is a copy, or in another process.
        """
        if self._request is None or self._made_in != os.getpid():
            raise GenaugError("refresh must be called in the process that made the bank, not in a copy of it")
        if self._next is not None:
            raise GenaugError("refresh must be called once between two calls of swap")
        source, counts, seed, selection = self._request
        self._next = _Drawing(self._folder / NEXT, source, counts, _seed_of(seed, self.version + 1), selection)
        self._next.start()

    def swap(self) -> None:
        """Wait for the samples that `refresh` began to draw, and put them in the place of all that are there.

        Raises:
            GenaugError: `refresh` was not called. What went wrong in drawing is raised here too; then the samples stay.
        """
        if self._next is None or self._made_in != os.getpid():
            raise GenaugError("swap must be called after refresh, which begins to draw the next samples")
        self._next.ended.wait()  # not `join`, which counts a thread as ended where Ctrl-C interrupts the waiting
        drawing, self._next = self._next, None
        if drawing.problem is not None:
            raise drawing.problem
        os.replace(self._folder / NEXT, self._path(self.version + 1))
        self._current += 1
        shutil.rmtree(self._path(self.version - 2), ignore_errors=True)  # a worker may just be opening the one before

    def _follow(self) -> None:
        """Open the samples that are in place, where these are not open yet."""
        version = self.version
        if self._opened != version:
            self._stored, self._provenance = read_bank(self._path(version), verify=False)
            self._opened = version

    @property
    def _pixels(self) -> Pixels:
        self._follow()
        return super()._pixels

    @property
    def provenance(self) -> Provenance:
        """Where the samples that are in place come from."""
        self._follow()
        return self._provenance

    @provenance.setter
    def provenance(self, provenance: Provenance) -> None:
        self._provenance = provenance

    def _path(self, version: int) -> Path:
        return self._folder / str(version)

    def __reduce__(self) -> tuple[Any, ...]:
        return RefreshingBank, (self._folder, self._current)


class _Drawing(threading.Thread):
    """Draws a bank into a new directory, and keeps the exception where that fails."""

    def __init__(self, path: Path, source: Any, counts: list[int], seed: int, selection: Selection) -> None:
        super().__init__(name="genaug-refresh", daemon=True)  # the end of the program does not wait for all samples
        self._path, self._source, self._counts, self._seed, self._selection = path, source, counts, seed, selection
        self.problem: BaseException | None = None
        self.ended, self._stopped = threading.Event(), threading.Event()
        device = getattr(source, "device", None)
        self._stream = side_stream(device if isinstance(device, torch.device) else None)
        _DRAWING.add(self)

    def run(self) -> None:
        try:
            shutil.rmtree(self._path, ignore_errors=True)  # of a refresh that was never swapped in
            with (
                torch.cuda.stream(self._stream),
                new_directory(self._path, last=PROVENANCE) as aside,
            ):
                options: dict[str, Any] = {"seed": self._seed, "selection": self._selection, "progress": False}
                fill_bank(aside, self._source, self._counts, between=self._check, **options)
        except BaseException as problem:
            self.problem = problem
        finally:
            self.ended.set()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise GenaugError("the program ended while samples were drawn")

    def stop(self) -> None:
        """Let the thread end after the samples that it is at, and wait for that."""
        self._stopped.set()
        self.ended.wait()


_DRAWING: weakref.WeakSet[_Drawing] = weakref.WeakSet()


@atexit.register
def _stop_drawing() -> None:
    """Stop threads before the interpreter cuts them off, within torch perhaps, which aborts the process."""
    for drawing in list(_DRAWING):
        if drawing.is_alive():
            drawing.stop()


def _seed_of(seed: int, version: int) -> int:
    return derive_seed(seed, "refresh", version)
