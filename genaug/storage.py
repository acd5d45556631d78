"""Files and directories that appear whole or not at all."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from genaug.errors import GenaugError, shorten

LOCK = ".lock"  # in a folder that one process at a time writes to
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # what a disk says of no file in particular


def expand(path: str | os.PathLike[str], *, error: type[GenaugError] = GenaugError) -> Path:
    """Return `path` with `~` expanded.

    Raises:
        GenaugError: (or `error`) a user who is not known, or what no file can be called.

    >>> expand("bank").name, expand("~/bank").is_absolute()
    ('bank', True)
    """
    try:
        expanded = Path(path).expanduser()
        usable = b"\0" not in os.fsencode(expanded)
    except RuntimeError as problem:
        raise error(f"{shorten(str(path), 300)[1:-1]}: cannot be expanded ({problem})") from None
    except (TypeError, ValueError):  # of another type, or with characters that names of files cannot have
        usable = False
    if not usable:
        raise error(
            f"path {shorten(path)} cannot be read: it must be a string or a Path, without null characters and in valid "
            "Unicode"
        )
    return expanded


@contextmanager
def explain_write_errors(path: Path, *, within: Path | None = None, kept: bool = False) -> Iterator[None]:
    """Turn a failure of the disk (full, read-only, not permitted) into a `GenaugError` that names `path`.

    Args:
        path: what is written.
        within: where other code runs in the block too, the folder it writes to: errors about other files are its own.
        kept: say that what was there is unchanged.
    """
    try:
        yield
    except OSError as problem:
        if within is not None and not _is_about(problem, within):
            raise
        reason = problem.strerror or str(problem)
        raise GenaugError(
            f"{path}: cannot be written ({reason}){'; what was there is unchanged' if kept else ''}. "
            "Free some space or choose another output folder"
        ) from problem


def _is_about(problem: OSError, folder: Path) -> bool:
    if problem.filename is None:
        return problem.errno in FULL
    return os.path.abspath(os.fsdecode(problem.filename)).startswith(os.path.abspath(folder))


def check_vacant(path: Path, *, overwrite: bool | None = False, resumable: bool = False) -> None:
    """Raise a `GenaugError` where `path` exists, is not an empty directory, and `overwrite` is not set.

    None says that there is no such option, and `resumable` that one can go on from what is there.
    """
    if "\0" in str(path):
        raise GenaugError(f"{shorten(str(path))}: must be a path without null characters")
    with explain_write_errors(path):
        if overwrite or not path.exists():
            return
        if path.is_dir() and not any(path.iterdir()):
            return
    other = "remove it first" if overwrite is None else "overwrite it (--overwrite, overwrite=True)"
    goes_on = "go on from it (--resume, resume=True), " if resumable else ""
    raise GenaugError(f"{path}: exists already; {goes_on}choose another output, or {other}")


def check_folder(path: Path, *, overwrite: bool = False, resumable: bool = False) -> None:
    """Raise a `GenaugError` where a folder of files cannot be written to `path`; see `check_vacant`."""
    check_vacant(path, overwrite=overwrite, resumable=resumable)
    with explain_write_errors(path):
        is_file = path.exists() and not path.is_dir()
    if is_file:
        raise GenaugError(f"{path}: is a file; choose a folder as output")


@contextmanager
def hold(path: Path, lock: Path) -> Iterator[None]:
    """Keep other processes from writing to `path` too while the block runs.

    Args:
        path: a folder or a file.
        lock: the file that stands for it, in a folder that is made if it is not there.

    Raises:
        GenaugError: `path` is held by another process, or cannot be written to.
    """
    with explain_write_errors(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise GenaugError(f"{path}: another process writes to it; wait, or choose another output") from None
    try:
        yield
    finally:
        try:
            lock.unlink(missing_ok=True)  # filelock makes a new one where it meets one that is gone
        finally:
            held.release()


@contextmanager
def own_folder(
    folder: Path, own: str, *, last: str, overwrite: bool = False, keep: bool | None = None
) -> Iterator[None]:
    """Make `folder` ready to be written to, and keep other processes out of it while the block runs.

    Args:
        folder: a new one, or one that is replaced; see `clear_own_files` for `own` and `last`.
        own: paths of files that may be removed.
        last: the file that is removed last.
        overwrite: replace what is there.
        keep: keep what is there; None says that there is no such option.

    Raises:
        GenaugError: `folder` exists and is neither replaced nor kept, holds other files, is held by another process, or
            cannot be written to.
    """
    if not keep and not (folder / LOCK).is_file():
        check_folder(folder, overwrite=overwrite, resumable=keep is not None)
    with hold(folder, folder / LOCK):
        if not keep and any(path.name != LOCK for path in folder.iterdir()):
            check_folder(folder, overwrite=overwrite, resumable=keep is not None)
            clear_own_files(folder, own, last=last)
        yield


def clear_own_files(directory: Path, own: str, *, last: str) -> None:
    """Remove the files in `directory` whose paths in it match the regular expression `own`, the one `last` at the end.

    What a killed process left (".NAME.tmp-...", ".NAME.lock") goes too; the lock of the directory stays.

    Raises:
        GenaugError: anything else is in the directory, or a part of it is held by another process; then nothing is
            removed.
    """
    leftover = r"(.*/)?\.[^/]*\.tmp-[^/]*(/.*)?|(.*/)?\.([^/]*\.)?lock"
    files = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    files = [path for path in files if _name_in(directory, path) != LOCK]
    names = [_name_in(directory, file) for file in files]
    strangers = [name for name in names if not re.fullmatch(f"{own}|{leftover}", name)]
    if strangers:
        raise GenaugError(f"{directory}: holds {min(strangers)}, which was not written by this; choose another output")
    for file in files:
        if file.name.endswith(LOCK):  # a live process may hold it, and write what is to be removed
            with hold(directory, file):
                pass
    with explain_write_errors(directory):
        for file in sorted(files, key=lambda file: _name_in(directory, file) == last):
            file.unlink(missing_ok=True)
        for folder in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()


def _name_in(directory: Path, file: Path) -> str:
    return file.relative_to(directory).as_posix()


@contextmanager
def new_directory(path: Path, *, overwrite: bool | None = False, last: str) -> Iterator[Path]:
    """Yield an empty directory beside `path` that takes its place when the block ends, and is removed if it fails.

    Everything written is flushed to the disk before the change. A directory that exists is kept (it may be a mount
    point, a symbolic link, or the current one): the new one is made inside it, and files are moved or replaced one by
    one, the file named `last` at the end, so that a torn replacement shows: `last` holds the hash of the others.

    Raises:
        GenaugError: `path` exists and `overwrite` is not set, or the disk is full or not writable.
    """
    path = Path(path)
    check_vacant(path, overwrite=overwrite)
    with explain_write_errors(path, kept=True):
        inside = path.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = (path if inside else path.parent) / f".{path.name}.tmp-{secrets.token_hex(4)}"
        aside.mkdir()
    try:
        with explain_write_errors(path, within=aside, kept=True):
            yield aside
        with explain_write_errors(path, kept=True):
            for file in sorted(aside.rglob("*"), reverse=True):  # what a folder holds before the folder
                _sync(file)
            for file in aside.iterdir():
                if inside and (path / file.name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{file.name} in it is a directory")
            _sync(aside)
        with explain_write_errors(path):
            if inside:
                for file in sorted(aside.iterdir(), key=lambda file: file.name == last):
                    os.replace(file, path / file.name)
                aside.rmdir()
                _sync(path)
            else:
                os.replace(aside, path)
            _sync(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty file, to write and read, that takes the place of `path` when the block ends, flushed to the disk.

    A reader of `path` sees the old content or the new one, never a part.

    Raises:
        GenaugError: the disk is full or not writable; then `path` is unchanged.
    """
    with explain_write_errors(path, kept=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        # not with the name of `path`, which may be as long as a name can be
        aside = path.parent / f".genaug.tmp-{secrets.token_hex(4)}"
        try:
            with aside.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with new_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, values: Any) -> None:
    """Write `values` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
