"""Drawing the samples of a bank from a source: seeded, filtered, and handed on in bounded memory."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genaug import __version__
from genaug.bank.files import IMAGES, PROVENANCE, BankWriter, FilterAcceptance, Pixels, Provenance
from genaug.bank.selection import Selection, Tally
from genaug.checkpoint import make_header
from genaug.errors import DataError, shorten
from genaug.images import to_uint8
from genaug.progress import Update, progress_bar
from genaug.seeding import check_seed, make_generator
from genaug.spec import DataSpec, resolve_counts
from genaug.storage import new_directory

FIRST_CHUNK, LAST_CHUNK = 8, 128  # labels a draw: 8, 8, 16, 32, 64, 128, 128, ...
COPY_BYTES = 1 << 20

Counts = int | Mapping[str, int] | list[int] | tuple[int, ...]
Keep = Callable[[Pixels], None]


def draw_bank(
    source: Any, counts: Counts, *, seed: int, selection: Selection, progress: bool
) -> tuple[Tensor, Provenance, list[Tally]]:
    """Return accepted samples of `source` in memory, sorted by class, where they come from, and what was drawn.

    See `SampleBank.generate`.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
    """
    provenance = _describe(source, check_request(source, counts, seed), seed, selection)
    pixels, filled = torch.empty(provenance.shape, dtype=torch.uint8), 0

    def keep(images: Pixels) -> None:
        nonlocal filled
        pixels[filled : filled + len(images)] = torch.from_numpy(images)
        filled += len(images)

    tallies = _draw(source, provenance, selection, keep, progress)
    if filled < len(pixels):
        pixels = pixels[:filled].clone()  # gives back what was reserved for the rest
    return pixels, _settle(provenance, tallies), tallies


def write_bank(
    path: Path, source: Any, counts: Counts, *, seed: int, selection: Selection, progress: bool
) -> list[Tally]:
    """Draw as `draw_bank` does, straight into a new directory `path`; only one chunk is in memory at a time.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
        GenaugError: `path` exists, or the disk is full or not writable; shown before anything is drawn.
    """
    resolved = check_request(source, counts, seed)
    with new_directory(path, overwrite=None, last=PROVENANCE) as aside:
        return fill_bank(aside, source, resolved, seed=seed, selection=selection, progress=progress)


def fill_bank(
    directory: Path,
    source: Any,
    counts: list[int],
    *,
    seed: int,
    selection: Selection,
    progress: bool,
    between: Callable[[], None] | None = None,
) -> list[Tally]:
    """Draw the files of a bank into an empty `directory`; `counts` as `check_request` returns them.

    `between` is called before each chunk of samples is written; what it raises ends the drawing.
    """
    provenance = _describe(source, counts, seed, selection)
    with BankWriter(directory, provenance) as writer:

        def keep(images: Pixels) -> None:
            if between is not None:
                between()
            if len(images):  # none, where the filters reject a whole chunk
                writer.write(images)

        tallies = _draw(source, provenance, selection, keep, progress)
        settled = _settle(provenance, tallies)
        if settled.counts == provenance.counts:
            writer.finish(settled)
    if settled.counts != provenance.counts:
        _write_again(directory, provenance, settled)
    return tallies


def check_request(source: Any, counts: Counts, seed: int) -> list[int]:
    """Return the number of samples wanted of every class, checked without drawing any.

    Raises:
        DataError: a source without classes, wrong counts, or of a class that it has no samples of.
        GenaugError: a seed that is no integer.
    """
    spec = check_source(source)
    check_seed(seed)
    resolved = resolve_counts(counts, spec)
    if not sum(resolved):
        raise DataError("counts must ask for at least one sample, got 0 for every class")
    wanted = {index for index, count in enumerate(resolved) if count}
    if missing := sorted(wanted.difference(known_classes(source))):
        names = [spec.class_names[index] for index in missing]
        raise DataError(f"counts must be 0 for classes that the source has no samples of, {shorten(names)}")
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
        named = isinstance(source, (str, os.PathLike))
        hint = "; open it first, with genaug.load(...) or SampleBank.open(...)" if named else ""
        raise DataError(
            "source must be a bank or a model that can sample (have `spec` and `sample`), got "
            f"{shorten(source) if named else type(source).__name__}{hint}"
        )
    if not spec.num_classes:
        raise DataError("source must know the names of its classes, got a spec without class_names")
    return spec


def known_classes(source: Any) -> list[int]:
    """Return the class indices that a source has samples of: a bank by its counts, a GAN by its training images."""
    counts = getattr(source, "counts", None)
    if counts is not None:
        return [index for index, count in enumerate(counts) if count]
    return list(getattr(source, "known_classes", range(source.spec.num_classes)))


def name_source(source: Any) -> str:
    """Return the family of a model, or what kind of source it is."""
    return str(getattr(source, "family", None) or type(source).__name__)


def _describe(source: Any, counts: list[int], seed: int, selection: Selection) -> Provenance:
    spec: DataSpec = source.spec
    selection.check(spec, counts)
    if spec.height is None or spec.width is None:
        first = next(index for index, count in enumerate(counts) if count)
        height, width = _draw_chunk(source, first, 0, seed)[0].shape[-2:]
        spec = replace(spec, height=height, width=width)
    return Provenance(
        spec=spec,
        source=name_source(source),
        source_sha256=hash_source(source),
        seed=check_seed(seed),
        counts=tuple(counts),
        filters=selection.names,
        acceptance=(None,) * len(counts),
        versions={"genaug": __version__, "torch": torch.__version__},
    )


def hash_source(source: Any) -> str | None:
    """Return the hash of a bank's images, or that of a model's weights as `model.save` writes them, in 32 bits."""
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


def _draw(source: Any, provenance: Provenance, selection: Selection, keep: Keep, progress: bool) -> list[Tally]:
    """Hand accepted images to `keep`, class after class, and return what was drawn of every class."""
    total, none = sum(provenance.counts), Tally(0, passed=(0,) * len(selection.filters))
    with progress_bar("drawing samples", total=total, enabled=progress) as update:
        tallies = [
            _draw_class(source, provenance, index, selection, keep, update) if count else none
            for index, count in enumerate(provenance.counts)
        ]
    if not any(tally.found for tally in tallies):
        raise DataError(
            f"filters accept no sample of any class: 0 of {sum(tally.drawn for tally in tallies)} drawn, {total} "
            "wanted; loosen the filters, or train the model longer"
        )
    return tallies


def _draw_class(
    source: Any, provenance: Provenance, index: int, selection: Selection, keep: Keep, update: Update
) -> Tally:
    count, chunk, drawn, accepted = provenance.counts[index], 0, 0, 0
    passed = torch.zeros(len(selection.filters), dtype=torch.int64)
    while accepted < count and drawn < selection.max_draws * count:
        images, labels = _draw_chunk(source, index, chunk, provenance.seed)
        provenance.spec.check_images(images, name="images of source")
        verdicts = selection.judge(images, labels)
        mask = verdicts.all(0)
        chosen = images[mask][: count - accepted]  # the surplus only counts for the acceptance
        keep(chosen.numpy())
        chunk, drawn, accepted = chunk + 1, drawn + len(images), accepted + int(mask.sum())
        passed += verdicts.sum(1)
        update(len(chosen))
    tally = Tally(count, min(accepted, count), drawn, accepted, tuple(passed.tolist()))
    if tally.found < count and selection.short == "error":
        raise selection.refuse(provenance.spec.class_names[index], tally)
    return tally


def _settle(provenance: Provenance, tallies: Sequence[Tally]) -> Provenance:
    """Return the provenance with what was found, and the acceptance of every class."""
    by_filter = zip(*(tally.rates for tally in tallies), strict=True)
    return replace(
        provenance,
        counts=tuple(tally.found for tally in tallies),
        acceptance=tuple(tally.acceptance for tally in tallies),
        filter_acceptance=tuple(map(FilterAcceptance, provenance.filters, by_filter)),
    )


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
        writer.finish(found)
    draft.unlink()


def _draw_chunk(source: Any, index: int, chunk: int, seed: int) -> tuple[Tensor, Tensor]:
    # always whole chunks: a model's samples, drawn with one generator, depend on the size of the batch
    count = chunk_size(chunk)
    labels = torch.full((count,), index)
    with torch.no_grad():
        images = source.sample(labels, generator=make_generator(seed, "bank", index, chunk))
    return take_samples(source, images, count=count), labels


def take_samples(source: Any, images: Tensor, *, count: int) -> Tensor:
    """Return images (count, C, H, W) that a source has drawn, as uint8 on the CPU.

    Raises:
        DataError: images of another number, size or range.
    """
    source.spec.check_images(images, name="images of source")
    if images.ndim != 4 or len(images) != count:
        raise DataError(f"images of source must be as many as the labels ({count}), got shape {tuple(images.shape)}")
    return to_uint8(images).cpu()
