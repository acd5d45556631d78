"""Drawing the samples of a bank from a source: seeded, filtered, and handed on in bounded memory."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genaug import __version__
from genaug.bank.files import PROVENANCE, BankWriter, Pixels, Provenance
from genaug.errors import DataError
from genaug.images import to_uint8
from genaug.progress import Update, progress_bar
from genaug.seeding import check_seed, make_generator
from genaug.spec import DataSpec, resolve_counts
from genaug.storage import new_directory

FIRST_CHUNK, LAST_CHUNK = 8, 128  # labels a draw: 8, 8, 16, 32, 64, 128, 128, ...
MAX_DRAWS = 100  # for each sample asked for, before the filters are taken to reject nearly all

Counts = int | Mapping[str, int] | list[int] | tuple[int, ...]
Filter = Callable[[Tensor, Tensor], Tensor]


def draw_bank(
    source: Any, counts: Counts, *, seed: int, filters: Sequence[Filter], progress: bool
) -> tuple[Tensor, Provenance]:
    """Return accepted samples of `source` in memory, sorted by class, and their provenance; see `SampleBank.generate`.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
    """
    provenance = _describe(source, check_request(source, counts, seed), seed, filters)
    pixels, filled = torch.empty(provenance.shape, dtype=torch.uint8), 0

    def keep(images: Pixels) -> None:
        nonlocal filled
        pixels[filled : filled + len(images)] = torch.from_numpy(images)
        filled += len(images)

    return pixels, replace(provenance, acceptance=_draw(source, provenance, filters, keep, progress))


def write_bank(
    path: Path, source: Any, counts: Counts, *, seed: int, filters: Sequence[Filter], progress: bool
) -> None:
    """Draw as `draw_bank` does, straight into a new directory `path`; only one chunk is in memory at a time.

    Raises:
        DataError: a source without classes or with unusable images, wrong counts, filters that reject nearly all.
        GenaugError: `path` exists, or the disk is full or not writable; shown before anything is drawn.
    """
    resolved = check_request(source, counts, seed)
    with new_directory(path, last=PROVENANCE) as aside:
        fill_bank(aside, source, resolved, seed=seed, filters=filters, progress=progress)


def fill_bank(
    directory: Path,
    source: Any,
    counts: list[int],
    *,
    seed: int,
    filters: Sequence[Filter],
    progress: bool,
    between: Callable[[], None] | None = None,
) -> None:
    """Draw the files of a bank into an empty `directory`; `counts` as `check_request` returns them.

    `between` is called before each chunk of samples is written; what it raises ends the drawing.
    """
    provenance = _describe(source, counts, seed, filters)
    with BankWriter(directory, provenance) as writer:

        def keep(images: Pixels) -> None:
            if between is not None:
                between()
            writer.write(images)

        writer.finish(_draw(source, provenance, filters, keep, progress))


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
    source: Any, provenance: Provenance, filters: Sequence[Filter], keep: Callable[[Pixels], None], progress: bool
) -> tuple[float | None, ...]:
    """Hand accepted images to `keep`, class after class, and return the acceptance of every class."""
    rates: list[float | None] = []
    total = sum(provenance.counts)
    with progress_bar("drawing samples", total=total, enabled=progress) as update:
        for index, count in enumerate(provenance.counts):
            rates.append(_draw_class(source, provenance, index, filters, keep, update) if count else None)
    return tuple(rates)


def _draw_class(
    source: Any,
    provenance: Provenance,
    index: int,
    filters: Sequence[Filter],
    keep: Callable[[Pixels], None],
    update: Update,
) -> float:
    count, chunk, drawn, accepted = provenance.counts[index], 0, 0, 0
    while accepted < count:
        if drawn >= MAX_DRAWS * count:
            raise DataError(
                f"filters accept too few samples of class {provenance.spec.class_names[index]!r}: {accepted} of "
                f"{drawn} drawn, {count} wanted; loosen the filters, train the model longer, or ask for fewer"
            )
        images, labels = _draw_chunk(source, index, chunk, provenance.seed)
        provenance.spec.check_images(images, name="images of source")
        mask = _accept(images, labels, filters)
        chosen = images[mask][: count - accepted]  # the surplus only counts for the acceptance
        if len(chosen):
            keep(chosen.numpy())
        chunk, drawn, accepted = chunk + 1, drawn + len(images), accepted + int(mask.sum())
        update(len(chosen))
    return accepted / drawn


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


def _accept(images: Tensor, labels: Tensor, filters: Sequence[Filter]) -> Tensor:
    mask = torch.ones(len(labels), dtype=torch.bool)
    for check in filters:
        passed = check(images, labels)
        if not isinstance(passed, Tensor) or passed.dtype != torch.bool or passed.shape != mask.shape:
            got = f"{passed.dtype} {tuple(passed.shape)}" if isinstance(passed, Tensor) else type(passed).__name__
            raise DataError(f"filters must return a bool tensor of shape ({len(mask)},), got {got}")
        mask &= passed.cpu()
    return mask
