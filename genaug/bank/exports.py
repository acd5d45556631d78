"""A bank in the formats of other tools: class folders of PNG files, Parquet for Hugging Face, or a copy of the bank."""

import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from genaug.bank.files import IMAGES, PROVENANCE, BankWriter, Pixels, Provenance
from genaug.errors import DataError, GenaugError, check_choice, shorten
from genaug.spec import DataSpec
from genaug.storage import check_vacant, explain_write_errors, new_directory, write_json

COPY_ROWS = 128
PNG_CHANNELS = (1, 3, 4)
MAX_NAME_BYTES = 255
FILES = {"parquet": "samples.parquet"}  # formats of one file, and its name until it takes its place
AUDIT = "memorization.json"  # in a folder of samples, or NAME.memorization.json beside a file


def check_format(format: str, spec: DataSpec, counts: Sequence[int]) -> None:
    """Check that a `format` of `EXPORTS` can hold images of `spec`, of the classes that `counts` ask for.

    Raises:
        DataError: an unknown format, channels that PNG has not, class names that are unsafe as folders.
    """
    check_choice(format, EXPORTS, name="format", error=DataError)
    if format != "bank" and spec.channels not in PNG_CHANNELS:
        raise DataError(
            f"format {format!r} stores PNG files of 1, 3 or 4 channels, got {spec.channels}; use format 'bank'"
        )
    names = [name for name, count in zip(spec.class_names, counts, strict=True) if count]
    unsafe = [name for name in names if not is_safe_folder(name)]
    if format == "imagefolder" and unsafe:
        raise DataError(
            f"class_names must be safe names of folders for format 'imagefolder', got {shorten(unsafe)}; "
            "use format 'parquet'"
        )


def check_target(path: Path, *, format: str, overwrite: bool) -> None:
    """Check that `path` is free for a `format` of `EXPORTS`, or holds what may be overwritten.

    Raises:
        GenaugError: a file where the format is a folder, or the reverse; `path` exists and `overwrite` is not set, or
            holds more than an earlier export.
    """
    wanted = "file" if format in FILES else "folder"
    with explain_write_errors(path):
        found = "folder" if path.is_dir() else "file" if path.is_file() else "device"
        if path.exists() and found != wanted:
            hint = f", such as {path / 'samples.parquet'}" if found == "folder" else ""
            raise GenaugError(f"{path}: is a {found}, and {format} is written as a {wanted}; choose another path{hint}")
        check_vacant(path, overwrite=overwrite)
        if format in FILES:
            check_vacant(audit_path(path, format=format), overwrite=overwrite)
        if found == "folder" and not _is_replaceable(path):
            raise GenaugError(
                f"{path}: holds more than an earlier export, which is all that is overwritten; remove it first"
            )


def audit_path(path: Path, *, format: str) -> Path:
    """Return where the audit of samples written to `path` is kept.

    >>> audit_path(Path("samples.parquet"), format="parquet").name
    'samples.memorization.json'
    """
    return path.with_name(f"{path.stem}.{AUDIT}") if format in FILES else path / AUDIT


def _export_bank(directory: Path, pixels: Pixels, provenance: Provenance) -> None:
    with BankWriter(directory, provenance) as writer:
        for start in range(0, len(pixels), COPY_ROWS):
            writer.write(pixels[start : start + COPY_ROWS])
        written = writer.finish(provenance).images_sha256
        if provenance.images_sha256 not in (None, written):
            raise DataError("the bank's images differ from its hash; it is damaged, generate it again")


def _export_folders(directory: Path, pixels: Pixels, provenance: Provenance) -> None:
    row = 0
    for name, count in zip(provenance.spec.class_names, provenance.counts, strict=True):
        if count:  # ImageFolder refuses empty folders
            (directory / name).mkdir()
        for number in range(count):
            (directory / name / f"{number:06d}.png").write_bytes(encode_png(pixels[row]))
            row += 1
    without_file = replace(provenance, images_sha256=None)
    write_json(directory / PROVENANCE, without_file.to_dict())  # by which an export is known, see `check_target`


def _export_parquet(directory: Path, pixels: Pixels, provenance: Provenance) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=list(provenance.spec.class_names))})
    schema = features.arrow_schema  # its metadata carries the features
    labels = np.repeat(np.arange(len(provenance.counts)), provenance.counts)
    with pq.ParquetWriter(directory / FILES["parquet"], schema) as writer:
        for start in range(0, len(pixels), COPY_ROWS):
            rows = slice(start, start + COPY_ROWS)
            images = [{"bytes": encode_png(image), "path": None} for image in pixels[rows]]
            writer.write_table(pa.table({"image": images, "label": labels[rows]}, schema=schema))


EXPORTS: dict[str, Callable[[Path, Pixels, Provenance], None]] = {
    "imagefolder": _export_folders,
    "bank": _export_bank,
    "parquet": _export_parquet,
}


def is_safe_folder(name: str) -> bool:
    r"""Return whether `name` can be one folder on every system, and one that data sets of folders do not skip.

    >>> is_safe_folder("golden retriever"), is_safe_folder(".."), is_safe_folder("a/b")
    (True, False, False)
    """
    return (
        not name.startswith(".")
        and name == name.strip()
        and not name.endswith(".")
        and name.isprintable()
        and not set(name) & set('/\\<>:"|?*')
        and not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name.lower())  # devices of Windows
        and len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    )


def encode_png(image: Pixels) -> bytes:
    """Return a uint8 image (C, H, W) of 1, 3 or 4 channels as the bytes of a PNG file."""
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


@contextmanager
def replacement(path: Path, *, format: str) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` when the block ends; of `FILES`, the file in it does.

    `path` is as `check_target` wants it. It is unchanged, and nothing is left beside it, if the block fails. An audit
    of the samples that were there goes with them.
    """
    if path.is_symlink() or path.name in ("", ".."):  # a link stays one, and "." has no name
        path = Path(os.path.realpath(path))
    if format not in FILES and not (path.is_dir() and any(path.iterdir())):
        with new_directory(path, last=PROVENANCE) as aside:
            yield aside
        return
    token = secrets.token_hex(4)
    staged, old = (path.with_name(f".{path.name}.{kind}-{token}") for kind in ("new", "old"))
    try:
        with new_directory(staged, last=PROVENANCE) as aside:
            yield aside
        with explain_write_errors(path):
            if format in FILES:
                audit_path(path, format=format).unlink(missing_ok=True)
            _swap(staged / FILES[format] if format in FILES else staged, path, old)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, path: Path, old: Path) -> None:
    if not path.is_dir():
        os.replace(new, path)
        return
    try:
        os.replace(path, old)  # a directory that is not empty cannot be replaced in one step
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


def _is_replaceable(path: Path) -> bool:
    """Tell whether a folder is empty, or holds what an export writes and nothing else."""
    entries = list(path.iterdir())
    return (not entries or (path / PROVENANCE).is_file()) and all(
        entry.name in (IMAGES, PROVENANCE, AUDIT)
        or (entry.is_dir() and all(re.fullmatch(r"\d{6,}\.png", file.name) for file in entry.iterdir()))
        for entry in entries
    )
