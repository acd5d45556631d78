"""Drawing the samples of a bank from a source: seeded, filtered, and handed on in bounded memory."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genaug import __version__
from genaug.bank.files import IMAGES, PROVENANCE, BankWriter, Pixels, Provenance
from genaug.checkpoint import make_header
from genaug.errors import DataError, shorten
from genaug.images import to_uint8
from genaug.progress import Update, progress_bar
from genaug.seeding import check_seed, make_generator
from genaug.spec import DataSpec, resolve_counts
from genaug.storage import new_directory

FIRST_CHUNK, LAST_CHUNK = 8, 128  # labels a draw: 8, 8, 16, 32, 64, 128, 128, ...
MAX_DRAWS = 100  # for each sample asked for, before the filters are taken to reject nearly all
COPY_BYTES = 1 << 20

Counts = int | Mapping[str, int] | list[int] | tuple[int, ...]
Filter = Callable[[Tensor, Tensor], Tensor]
Keep = Callable[[Pixels], None]
Short = Literal["error", "fewer"]


@dataclass(frozen=True)
class Tally:
    """Samples of one class: how many were wanted, put in the bank, drawn, and accepted by the filters."""

    wanted: int
    found: int = 0
    drawn: int = 0
    accepted: int = 0


def draw_bank(
    source: Any, counts: Counts, *, seed: int, filters: Sequence[Filter], progress: bool, short: Short = "error"
) -> tuple[Tensor, Provenance, list[Tally]]:
    """Return accepted samples of `source` in memory, sorted by class, where they come from, and what was drawn.

    See `SampleBank.generate`.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
    """
    _check_short(short)
    provenance = _describe(source, check_request(source, counts, seed), seed, filters)
    pixels, filled = torch.empty(provenance.shape, dtype=torch.uint8), 0

    def keep(images: Pixels) -> None:
        nonlocal filled
        pixels[filled : filled + len(images)] = torch.from_numpy(images)
        filled += len(images)

    tallies = _draw(source, provenance, filters, keep, progress, short)
    if filled < len(pixels):
        pixels = pixels[:filled].clone()  # gives back what was reserved for the rest
    return pixels, _settle(provenance, tallies), tallies


def write_bank(
    path: Path,
    source: Any,
    counts: Counts,
    *,
    seed: int,
    filters: Sequence[Filter],
    progress: bool,
    short: Short = "error",
) -> list[Tally]:
    """Draw as `draw_bank` does, straight into a new directory `path`; only one chunk is in memory at a time.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
        GenaugError: `path` exists, or the disk is full or not writable; shown before anything is drawn.
    """
    _check_short(short)
    resolved = check_request(source, counts, seed)
    with new_directory(path, last=PROVENANCE) as aside:
        return fill_bank(aside, source, resolved, seed=seed, filters=filters, progress=progress, short=short)


def fill_bank(
    directory: Path,
    source: Any,
    counts: list[int],
    *,
    seed: int,
    filters: Sequence[Filter],
    progress: bool,
    between: Callable[[], None] | None = None,
    short: Short = "error",
) -> list[Tally]:
    """Draw the files of a bank into an empty `directory`; `counts` as `check_request` returns them.

    `between` is called before each chunk of samples is written; what it raises ends the drawing.
    """
    provenance = _describe(source, counts, seed, filters)
    with BankWriter(directory, provenance) as writer:

        def keep(images: Pixels) -> None:
            if between is not None:
                between()
            if len(images):  # none, where the filters reject a whole chunk
                writer.write(images)

        tallies = _draw(source, provenance, filters, keep, progress, short)
        settled = _settle(provenance, tallies)
        if settled.counts == provenance.counts:
            writer.finish(settled.acceptance)
    if settled.counts != provenance.counts:
        _write_again(directory, provenance, settled)
    return tallies


def check_request(source: Any, counts: Counts, seed: int) -> list[int]:
    """Return the number of samples wanted of every class, checked without drawing any.

    Raises:
        DataError: a source without classes, wrong counts.
        GenaugError: a seed that is no integer.
    """
    spec = check_source(source)
    check_seed(seed)
    resolved = resolve_counts(counts, spec)
    if not sum(resolved):
        raise DataError("counts must ask for at least one sample, got 0 for every class")
    return resolved


def chunk_size(chunk: int) -> int:
    """Return the number of samples in a chunk of a class: 8, 8, 16, 32, 64, 128, and 128 from there on.

    Fixed, since a model's samples depend on the size of the batch. Chunks drawn together hold fewer samples than twice
    what is wanted, plus 8.

    >>> [chunk_size(chunk) for chunk in range(8)]
    [8, 8, 16, 32, 64, 128, 128, 128]
    """
    return LAST_CHUNK if chunk > 4 else max(FIRST_CHUNK, FIRST_CHUNK << chunk >> 1)


def check_source(source: Any) -> DataSpec:
    """Return the specification of a source of samples: a model with classes, or a bank.

    Raises:
        DataError: an object without `spec` and `sample`, or whose classes have no names.
    """
    spec = getattr(source, "spec", None)
    if not isinstance(spec, DataSpec) or not callable(getattr(source, "sample", None)):
        raise DataError(
            f"source must be a bank or a model that can sample (have `spec` and `sample`), got {type(source).__name__}"
        )
    if not spec.num_classes:
        raise DataError("source must know the names of its classes, got a spec without class_names")
    return spec


def _describe(source: Any, counts: list[int], seed: int, filters: Sequence[Filter]) -> Provenance:
    spec: DataSpec = source.spec
    for check in filters:
        judged = getattr(check, "spec", None)
        if isinstance(judged, DataSpec) and judged.class_names != spec.class_names:
            raise DataError(
                f"filters must know the classes of source in the same order, {shorten(spec.class_names)}, got "
                f"{type(check).__name__} of {shorten(judged.class_names)}; fit it on data with these classes"
            )
    if spec.height is None or spec.width is None:
        first = next(index for index, count in enumerate(counts) if count)
        height, width = _draw_chunk(source, first, 0, seed)[0].shape[-2:]
        spec = replace(spec, height=height, width=width)
    return Provenance(
        spec=spec,
        source=str(getattr(source, "family", None) or type(source).__name__),
        source_sha256=_hash_source(source),
        seed=check_seed(seed),
        counts=tuple(counts),
        filters=tuple(str(getattr(check, "__name__", type(check).__name__)) for check in filters),
        acceptance=(None,) * len(counts),
        versions={"genaug": __version__, "torch": torch.__version__},
    )


def _hash_source(source: Any) -> str | None:
    """Return the hash of a bank's images, or that which a model's weights have as a file of a checkpoint."""
    if isinstance(getattr(source, "provenance", None), Provenance):
        return source.provenance.images_sha256  # type: ignore[no-any-return]
    if not isinstance(source, nn.Module):
        return None
    from safetensors.torch import save

    # copies, since safetensors refuses tensors that share memory, or that are not contiguous
    tensors = {
        name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in source.state_dict().items()
    }
    return hashlib.sha256(save(tensors)).hexdigest()


def _draw(
    source: Any, provenance: Provenance, filters: Sequence[Filter], keep: Keep, progress: bool, short: Short
) -> list[Tally]:
    """Hand accepted images to `keep`, class after class, and return what was drawn of every class."""
    total = sum(provenance.counts)
    with progress_bar("drawing samples", total=total, enabled=progress) as update:
        tallies = [
            _draw_class(source, provenance, index, filters, keep, short, update) if count else Tally(0)
            for index, count in enumerate(provenance.counts)
        ]
    if not any(tally.found for tally in tallies):
        raise DataError(
            f"filters accept no sample of any class: 0 of {sum(tally.drawn for tally in tallies)} drawn, {total} "
            "wanted; loosen the filters, or train the model longer"
        )
    return tallies


def _draw_class(
    source: Any, provenance: Provenance, index: int, filters: Sequence[Filter], keep: Keep, short: Short, update: Update
) -> Tally:
    count, chunk, drawn, accepted = provenance.counts[index], 0, 0, 0
    passed = torch.zeros(len(filters), dtype=torch.int64)
    while accepted < count:
        if drawn >= MAX_DRAWS * count:
            if short == "fewer":
                break
            shares = zip(provenance.filters, (passed / drawn).tolist(), strict=True)
            raise DataError(
                f"filters accept too few samples of class {provenance.spec.class_names[index]!r}: {accepted} of "
                f"{drawn} drawn, {count} wanted; loosen the filters, train the model longer, ask for fewer, or take "
                f"those found (short='fewer'); accepted by each: {', '.join(f'{name} {x:.1%}' for name, x in shares)}"
            )
        images, labels = _draw_chunk(source, index, chunk, provenance.seed)
        provenance.spec.check_images(images, name="images of source")
        verdicts = _judge(images, labels, filters)
        mask = verdicts.all(0)
        chosen = images[mask][: count - accepted]  # the surplus only counts for the acceptance
        if len(chosen):
            keep(chosen.numpy())
        chunk, drawn, accepted = chunk + 1, drawn + len(images), accepted + int(mask.sum())
        passed += verdicts.sum(1)
        update(len(chosen))
    return Tally(count, min(accepted, count), drawn, accepted)


def _settle(provenance: Provenance, tallies: Sequence[Tally]) -> Provenance:
    """Return the provenance with what was found, and the acceptance of every class."""
    rates = tuple(tally.accepted / tally.drawn if tally.drawn else None for tally in tallies)
    return replace(provenance, counts=tuple(tally.found for tally in tallies), acceptance=rates)


def _write_again(directory: Path, reserved: Provenance, found: Provenance) -> None:
    """Replace the tensor file in `directory`, which has room for more samples than were found, by one without it."""
    draft, places = directory / "draft", make_header(reserved.layout)[1]
    os.replace(directory / IMAGES, draft)
    start = places["images"].start
    os.truncate(draft, start + int(np.prod(found.shape)))
    with draft.open("rb") as file, BankWriter(directory, found) as writer:
        file.seek(start)
        while block := file.read(COPY_BYTES):
            writer.write(np.frombuffer(block, dtype=np.uint8))
        writer.finish(found.acceptance)
    draft.unlink()


def _check_short(short: str) -> None:
    if short not in ("error", "fewer"):
        raise DataError(f"short must be 'error' or 'fewer', got {shorten(short)}")


def _draw_chunk(source: Any, index: int, chunk: int, seed: int) -> tuple[Tensor, Tensor]:
    # always whole chunks: a model's samples, drawn with one generator, depend on the size of the batch
    count = chunk_size(chunk)
    labels = torch.full((count,), index)
    with torch.no_grad():
        images = source.sample(labels, generator=make_generator(seed, "bank", index, chunk))
    source.spec.check_images(images, name="images of source")
    if images.ndim != 4 or len(images) != count:
        raise DataError(f"images of source must be as many as the labels ({count}), got shape {tuple(images.shape)}")
    return to_uint8(images).cpu(), labels


def _judge(images: Tensor, labels: Tensor, filters: Sequence[Filter]) -> Tensor:
    """Return which of n images each filter accepts: bool (len(filters), n)."""
    verdicts = torch.ones(len(filters), len(labels), dtype=torch.bool)
    for verdict, check in zip(verdicts, filters, strict=True):
        passed = check(images, labels)
        if not isinstance(passed, Tensor) or passed.dtype != torch.bool or passed.shape != verdict.shape:
            got = f"{passed.dtype} {tuple(passed.shape)}" if isinstance(passed, Tensor) else type(passed).__name__
            raise DataError(f"filters must return a bool tensor of shape ({len(verdict)},), got {got}")
        verdict.copy_(passed)
    return verdicts
