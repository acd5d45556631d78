"""Samples of a source straight into a format of other tools, in bounded memory."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genaug.bank.drawing import Counts, check_request, fill_bank
from genaug.bank.exports import EXPORTS, check_format, check_target, replacement
from genaug.bank.files import read_bank


def write_samples(
    path: Path, source: Any, counts: Counts, *, seed: int, format: str, overwrite: bool, progress: bool
) -> int:
    """Draw as `SampleBank.generate` does, write to `path` as `SampleBank.export` does, and return how many samples.

    All is checked before anything is drawn. Samples lie on the disk meanwhile, in a temporary bank beside `path`.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, a format that cannot hold them.
        GenaugError: `path` exists and `overwrite` is not set, or the disk is full or not writable.
    """
    resolved = check_request(source, counts, seed)
    check_format(format, source.spec, resolved)
    check_target(path, format=format, overwrite=overwrite)
    with replacement(path, format=format) as directory:
        if format == "bank":
            fill_bank(directory, source, resolved, seed=seed, filters=(), progress=progress)
        else:
            with TemporaryDirectory(prefix=".bank-", dir=directory) as scratch:
                fill_bank(Path(scratch), source, resolved, seed=seed, filters=(), progress=progress)
                EXPORTS[format](directory, *read_bank(Path(scratch), verify=False))
    return sum(resolved)
