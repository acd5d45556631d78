"""Samples of a source straight into a format of other tools, in bounded memory."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genaug.bank.drawing import Counts, check_request, fill_bank
from genaug.bank.exports import EXPORTS, FILES, audit_path, check_format, check_target, replacement
from genaug.bank.files import read_bank
from genaug.bank.sample_bank import SampleBank
from genaug.bank.selection import Selection, Tally
from genaug.storage import write_json

Inspect = Callable[[SampleBank], dict[str, Any] | None]


def write_samples(
    path: Path,
    source: Any,
    counts: Counts,
    *,
    seed: int,
    format: str,
    overwrite: bool,
    progress: bool,
    selection: Selection | None = None,
    inspect: Inspect | None = None,
) -> list[Tally]:
    """Draw as `SampleBank.generate` does, write to `path` as `SampleBank.export` does, and return what was drawn.

    All is checked before anything is drawn. Samples lie on the disk meanwhile, in a temporary bank beside `path`.

    Args:
        path: where to write.
        source: what to draw from.
        counts: how many of every class.
        seed: of all draws.
        format: a key of `EXPORTS`.
        overwrite: replace an earlier export.
        progress: show a progress bar.
        selection: filters and tries; by default all is taken.
        inspect: called with the samples as a bank; where it returns a dict, that is kept beside the samples as JSON
            (`audit_path`).

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, a format that cannot hold them,
            filters that reject nearly all.
        GenaugError: `path` exists and `overwrite` is not set, or the disk is full or not writable.
    """
    resolved = check_request(source, counts, seed)
    check_format(format, source.spec, resolved)
    check_target(path, format=format, overwrite=overwrite)
    drawing: dict[str, Any] = {"seed": seed, "selection": selection or Selection(), "progress": progress}
    with replacement(path, format=format) as directory, TemporaryDirectory(prefix=".bank-", dir=directory) as scratch:
        place = directory if format == "bank" else Path(scratch)
        tallies = fill_bank(place, source, resolved, **drawing)
        pixels, provenance = read_bank(place, verify=False)
        if format != "bank":
            EXPORTS[format](directory, pixels, provenance)
        report = inspect(SampleBank(pixels, provenance, path=place)) if inspect else None
        if report is not None and format not in FILES:
            write_json(audit_path(directory, format=format), report)
    if report is not None and format in FILES:
        write_json(audit_path(path, format=format), report)
    return tallies
