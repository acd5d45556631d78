"""Files of a bank: written front to back in bounded memory, and read strictly.

A bank is a directory with `images.safetensors` (int64 `labels` (N,), sorted, and uint8 `images` (N, C, H, W)) and
`provenance.json`, which holds the hash of the former.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.checkpoint import check_layout, make_header, read_header
from genaug.config import parse_config, read_json
from genaug.errors import CheckpointError, DataError, shorten
from genaug.spec import DataSpec
from genaug.storage import hash_file

IMAGES = "images.safetensors"
PROVENANCE = "provenance.json"
FORMAT_VERSION = 1

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class FilterAcceptance:
    """Share that one filter accepted of all that was drawn of each class, whatever other filters said of it.

    >>> FilterAcceptance("NotACopy", (0.75, None)).rates
    (0.75, None)
    """

    name: str
    rates: tuple[float | None, ...]

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Provenance:
    """Where the samples of a bank come from; `acceptance` is the share that passed the filters, None if none was drawn.

    `filter_acceptance` has an entry for each of `filters`; banks of earlier versions, and those without filters, have
    none. `images_sha256` is None for a bank that was never written.

    Raises:
        DataError: counts or acceptance that do not fit the classes or filters, a size of images that is not fixed.
    """

    spec: DataSpec
    source: str
    source_sha256: str | None
    seed: int
    counts: tuple[int, ...]
    filters: tuple[str, ...]
    acceptance: tuple[float | None, ...]
    versions: dict[str, str]
    images_sha256: str | None = None
    format_version: int = FORMAT_VERSION
    filter_acceptance: tuple[FilterAcceptance, ...] = ()

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise DataError(
                f"format_version must be {FORMAT_VERSION}, got {self.format_version}; "
                "it was written by another version of genaug"
            )
        if self.spec.height is None or self.spec.width is None:
            raise DataError(f"spec must give the height and width of the images, got {self.spec.size}")
        if len(self.counts) != self.spec.num_classes or len(self.acceptance) != self.spec.num_classes:
            raise DataError(
                f"counts and acceptance must have one number for each of {self.spec.num_classes} classes, "
                f"got {len(self.counts)} and {len(self.acceptance)}"
            )
        if any(count < 0 for count in self.counts) or not sum(self.counts):
            raise DataError(f"counts must be at least 0 and not all 0, got {shorten(self.counts)}")
        _check_rates(self.acceptance, name="acceptance")
        if self.filter_acceptance and tuple(one.name for one in self.filter_acceptance) != self.filters:
            names = [one.name for one in self.filter_acceptance]
            raise DataError(f"filter_acceptance must be of the filters {shorten(self.filters)}, got {shorten(names)}")
        for one in self.filter_acceptance:
            if len(one.rates) != self.spec.num_classes:
                raise DataError(
                    f"filter_acceptance must have one rate for each of {self.spec.num_classes} classes, "
                    f"got {len(one.rates)} of {shorten(one.name)}"
                )
            _check_rates(one.rates, name="filter_acceptance")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (N, C, H, W) of all images together."""
        return sum(self.counts), self.spec.channels, int(self.spec.height or 0), int(self.spec.width or 0)

    @property
    def layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Dtypes and shapes in the tensor file; labels stand first, where their 8-byte items are aligned."""
        return {"labels": (torch.int64, self.shape[:1]), "images": (torch.uint8, self.shape)}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values that JSON can hold."""
        return {**asdict(self), "spec": self.spec.to_dict()}


def _check_rates(rates: tuple[float | None, ...], *, name: str) -> None:
    if not all(rate is None or 0 <= rate <= 1 for rate in rates):
        raise DataError(f"{name} must be from 0 to 1, or null, for each class, got {shorten(rates)}")


class BankWriter:
    """Writes the tensor file of a bank from front to back, after its whole size is reserved on the disk."""

    def __init__(self, directory: Path, provenance: Provenance) -> None:
        header, places = make_header(provenance.layout)
        self._directory = directory
        self._hash = hashlib.sha256()
        self._file = (directory / IMAGES).open("xb")
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS, where a full disk shows only while writing
                os.posix_fallocate(self._file.fileno(), 0, places["images"].end)
            self._write(header)
            for index, count in enumerate(provenance.counts):
                self._write(np.full(count, index, dtype="<i8").tobytes())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "BankWriter":
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()

    def write(self, images: Pixels) -> None:
        """Append uint8 images (n, C, H, W); classes in order."""
        self._write(np.ascontiguousarray(images).data.cast("B"))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)

    def finish(self, provenance: Provenance) -> Provenance:
        """Write and return `provenance`, of the same counts, with the hash of what was written."""
        self._file.close()
        provenance = replace(provenance, images_sha256=self._hash.hexdigest())
        text = json.dumps(provenance.to_dict(), indent=2, allow_nan=False) + "\n"
        (self._directory / PROVENANCE).write_text(text, encoding="utf-8")
        return provenance


def read_bank(path: Path, *, verify: bool) -> tuple[Pixels, Provenance]:
    """Return the memory-mapped, read-only images (N, C, H, W) of the bank in `path`, and its provenance.

    Args:
        path: directory of the bank.
        verify: read the whole file once and compare its hash.

    Raises:
        DataError: a directory that is no bank, or one that is incomplete, damaged or changed.
    """
    if not os.path.isdir(path):  # unlike Path.is_dir, it takes a name that is too long
        raise DataError(f"{path}: no such directory; a bank is made by SampleBank.generate(..., path=)")
    values = read_json(path / PROVENANCE, error=DataError)
    provenance = parse_config(Provenance, values, where=str(path / PROVENANCE), error=DataError)
    file = path / IMAGES
    if provenance.images_sha256 is None and not file.exists():
        raise DataError(
            f"{path}: must be a bank, got samples that were exported in another format; read them with "
            "genaug.data.load_data, or generate a bank"
        )
    try:
        header = read_header(file)
        check_layout(file, header, provenance.layout)
        if verify and (found := hash_file(file)) != provenance.images_sha256:
            raise CheckpointError(f"{file}: hash {found[:12]} differs from that in {PROVENANCE}; the file was changed")
        labels = np.memmap(file, dtype="<i8", mode="r", offset=header["labels"].start, shape=provenance.shape[:1])
        images = np.memmap(file, dtype=np.uint8, mode="r", offset=header["images"].start, shape=provenance.shape)
    except (CheckpointError, OSError) as problem:
        raise DataError(f"{problem}; the bank is damaged, generate or copy it again") from None
    if not np.array_equal(labels, np.repeat(np.arange(len(provenance.counts)), provenance.counts)):
        raise DataError(
            f"{file}: labels differ from the counts in {PROVENANCE}; the bank is damaged, generate it again"
        )
    return images.view(np.ndarray), provenance
