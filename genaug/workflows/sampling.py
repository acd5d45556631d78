"""Write samples of a model: what filters accept of every class, and whether the samples copy training images."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from genaug.bank import SampleBank
from genaug.bank.drawing import check_request
from genaug.bank.exports import audit_path, check_format, check_target
from genaug.bank.sampling import write_samples
from genaug.bank.selection import MAX_DRAWS, Filter, Selection, Short, Tally, warn_of_short
from genaug.data import LabeledImages, load_data
from genaug.data.parts import MissingPart
from genaug.devices import choose_device
from genaug.errors import DataWarning, GenaugError
from genaug.evaluate import CopyAudit, audit_copies
from genaug.features import STEPS
from genaug.filters.choice import check_filters, fit_filters
from genaug.storage import expand
from genaug.workflows.parts import check_match, load_training_part
from genaug.workflows.reports import MAX_ROWS, make_table, say, with_versions
from genaug.zoo import load


def run_sampling(
    model: str,
    *,
    output: str | Path,
    format: str = "imagefolder",
    per_class: int = 100,
    classes: Sequence[str] = (),
    data: Any = None,
    filters: Sequence[str] = (),
    short: Short = "error",
    max_draws: int = MAX_DRAWS,
    audit: bool = True,
    split: str | None = None,
    reading: Mapping[str, Any] | None = None,
    limit_per_class: int | None = None,
    longtail: float | None = None,
    classifier_steps: int = STEPS,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Tally]:
    """Draw samples of a model, keep those that all filters accept, write them, and print what became of every class.

    Where there is `data`, the samples are then audited for copies of the training images (`audit_copies`), beside the
    part "test" or else the images that the model's recipe held out, and the figures written to `memorization.json` in
    the folder, or `NAME.memorization.json` beside a file. An audit that fails is a warning; the samples stay.

    Args:
        model: what `genaug.load` takes.
        output: where to write.
        format: "imagefolder", "bank" or "parquet".
        per_class: samples of each class.
        classes: names of classes; by default all.
        data: the images that the model was trained on, as `genaug.data.load_data` takes them.
        filters: names of filters; see `genaug.filters.choice.fit_filters`.
        short, max_draws: as `SampleBank.generate` takes them.
        audit: whether to audit the samples.
        split: the part of the data that the model was trained on; "train" where there are parts.
        reading: further arguments of `load_data`.
        limit_per_class, longtail: as in training; drawn with the seed of the model's recipe.
        classifier_steps: training steps of the filters' classifier, and of the audit's own.
        seed: of samples, filters and audit.
        device: where to compute; a GPU if there is one, else the CPU.
        overwrite: replace an earlier output.
        progress: show progress bars.

    Returns:
        What was wanted, found, drawn and accepted of each class.

    Raises:
        GenaugError: an unknown model, class or filter, filters without `data`, data that do not fit the model, filters
            that reject nearly all, an `output` that exists.
    """
    target, names = expand(output), list(dict.fromkeys(filters))
    check_target(target, format=format, overwrite=overwrite)  # before a model is fetched, which may take long
    _check_filters(names, data)
    Selection((), short, max_draws)  # the same
    where = choose_device(device)
    source = load(model, device=where)
    counts = dict.fromkeys(classes or source.spec.class_names, per_class)
    check_format(format, source.spec, check_request(source, counts, seed))
    reading = dict(reading or {})
    chosen: list[Filter] = []
    report: list[CopyAudit] = []
    inspect = None
    if data is not None and (names or audit):
        choice = {"split": split, "limit_per_class": limit_per_class, "longtail": longtail}
        train, held_out = _read(source, data=data, seed=seed, **choice, **reading)
        options: dict[str, Any] = {"classifier_steps": classifier_steps, "device": where, "progress": progress}
        chosen = fit_filters(names, source, train, held_out=held_out, seed=seed, **options)
        if audit:
            test = _find_test(data, reading, held_out)
            facts = {"model": model, "data": str(data)}

            def inspect(bank: SampleBank) -> dict[str, Any] | None:
                return _audit(bank, train, test, facts, report, seed=seed, **options)

    selection = Selection(chosen, short, max_draws)
    tallies = write_samples(
        target,
        source,
        counts,
        seed=seed,
        format=format,
        overwrite=overwrite,
        progress=progress,
        selection=selection,
        inspect=inspect,
    )
    warn_of_short(source.spec, names, tallies, stacklevel=2)
    if names:
        print_tallies(source.spec.class_names, names, tallies)
    lines = [f"{sum(tally.found for tally in tallies)} samples: {target}"]
    if report:
        lines += [*report[0].sentences(), f"Audit: {audit_path(target, format=format)}"]
    elif data is None:
        lines.append("Not audited for copies of training images, which --data gives.")
    say(*lines)
    return tallies


def print_tallies(classes: Sequence[str], filters: Sequence[str], tallies: Sequence[Tally]) -> None:
    """Print how many samples of each class were wanted, found and drawn, and the share that each filter accepts."""
    table = make_table("class", "wanted", "found", "drawn", "accepted", *filters)
    named = [(name, tally) for name, tally in zip(classes, tallies, strict=True) if tally.wanted]
    for name, tally in named[:MAX_ROWS]:
        shares = [tally.acceptance, *tally.rates]
        numbers = map(str, (tally.wanted, tally.found, tally.drawn))
        style = "bold" if tally.found < tally.wanted else None
        table.add_row(escape(name), *numbers, *(f"{100 * (share or 0):.1f} %" for share in shares), style=style)
    if len(named) > MAX_ROWS:
        table.add_row(f"... {len(named) - MAX_ROWS} more")
    Console().print(table)


def _check_filters(names: Sequence[str], data: Any) -> None:
    check_filters(names)
    if names and data is None:
        raise GenaugError(
            f"filters ({', '.join(names)}) need the images that the model was trained on; pass --data (data=)"
        )


def _read(source: Any, **options: Any) -> tuple[LabeledImages, LabeledImages | None]:
    """Return the images that `source` was trained on, and those that its recipe held out, if any."""
    part = load_training_part(source, **options)
    images = part.images
    check_match(images, source)
    if not part.share:
        return images, None
    kept, rest = part.split(part.share)
    return images.subset(kept), images.subset(rest) if len(rest) else None


def _find_test(data: Any, reading: Mapping[str, Any], held_out: LabeledImages | None) -> LabeledImages | str:
    """Return the part "test", or else what the model's recipe held out, or else why there is neither."""
    try:
        return load_data(data, split="test", **reading)
    except GenaugError as problem:
        if held_out is not None:
            if not isinstance(problem, MissingPart):
                said = "samples are compared with what the recipe held out: the part test cannot be read"
                warnings.warn(f"{said}: {problem}", DataWarning, stacklevel=3)
            return held_out
        return f"there are no held-out images to compare with: no part test ({problem}), and none of the recipe's"


def _audit(
    bank: SampleBank,
    train: LabeledImages,
    test: LabeledImages | str,
    facts: Mapping[str, Any],
    report: list[CopyAudit],
    **options: Any,
) -> dict[str, Any] | None:
    """Add the audit of `bank` to `report`, and return what to write of it; None, and a warning, where it fails."""
    try:
        if isinstance(test, str):
            raise GenaugError(test)
        found = audit_copies(bank, train=train, test=test, **options)
    except (GenaugError, MemoryError, torch.OutOfMemoryError) as problem:
        reason = str(problem) or "out of memory"
        warnings.warn(f"the samples were not audited for copies: {reason}", DataWarning, stacklevel=5)
        return None
    report.append(found)
    return with_versions({**facts, "images_sha256": bank.provenance.images_sha256, **found.to_dict()})
