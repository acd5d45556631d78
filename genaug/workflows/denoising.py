"""Restore image files, one or a folder of them, into a folder of files of the same names and kinds."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from genaug.data.pictures import Picture, PictureFile, find_pictures, open_picture
from genaug.devices import choose_device
from genaug.errors import DataError, GenaugError
from genaug.images import cast_like, to_float
from genaug.models.base import require
from genaug.progress import progress_bar
from genaug.storage import check_folder, expand
from genaug.transforms.operations import Channels, Restore
from genaug.workflows.reports import say
from genaug.zoo import load

SHOWN = 10  # names of skipped files


@dataclass(frozen=True)
class Outcome:
    """How many files were restored, skipped since their output exists, failed, and ignored as no pictures."""

    restored: int
    skipped: int
    failed: int
    ignored: int


def run_denoising(
    model: Any,
    *,
    input: str | Path,
    output: str | Path = "denoised",
    noise_level: float | None = None,
    strength: float = 1.0,
    tile: int | None = None,
    channels: Channels = "match",
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Restore the pictures of a file or a folder with a model, and print how many.

    The results have the relative paths, names, kinds, depths and metadata of the originals (see
    `genaug.data.pictures`). A file that cannot be read is told of in a line on the standard error stream and counted;
    so is one whose output exists, which stays without `overwrite`.

    Args:
        model: what `genaug.load` takes, or a model, which stays on its device.
        input: a PNG, JPEG or TIFF file, or a folder that is searched for such files.
        output: folder to write to; not the one of the input, nor one in it.
        noise_level: standard deviation of the noise on the [0, 1] scale; by default the model judges it.
        strength: from 0 (the picture as it was) to 1 (what the model makes of it).
        tile: side of the square parts, in pixels, that the model restores one after another, to save memory.
        channels: "match", or "convert": a gray model restores each channel of color pictures by itself, a color model
            gray pictures as three equal channels.
        overwrite: replace output files that exist.
        device: where to load the model; a GPU if there is one, else the CPU.
        progress: show a progress bar.

    Raises:
        GenaugError: a model that cannot `restore`, or not such pictures; no pictures; an `output` that would mix with
            the input; two files that would get one name; a disk that is full.
    """
    source, target = expand(input), expand(output)
    jobs, ignored = plan_outputs(source, target)
    existing = [] if overwrite else [place for _, place in jobs if os.path.lexists(place)]
    done = set(existing)
    waiting = [job for job in jobs if job[1] not in done]
    network = load(model, device=choose_device(device)) if isinstance(model, str | Path) else model
    _check_model(network, tile)
    operation = Restore(network, noise_level=noise_level, strength=strength, tile=tile, channels=channels)
    _tell_skipped(existing)
    failed = _restore_all(waiting, partial(restore_picture, operation), progress=progress)
    outcome = Outcome(len(waiting) - failed, len(existing), failed, ignored)
    others = f"; {ignored} other files ignored" if ignored else ""
    say(f"{outcome.restored} restored, {outcome.skipped} skipped, {failed} failed: {target}{others}")
    return outcome


def _check_model(model: Any, tile: int | None) -> None:
    restore = require(model, "restore")
    if tile is not None and "tile" not in inspect.signature(restore).parameters:
        name = getattr(model, "family", type(model).__name__)
        raise GenaugError(f"tile: {name} restores pictures as a whole, got {tile}; leave --tile (tile=) out")


def restore_picture(operation: Restore, pixels: Tensor) -> Tensor:
    """Return pixels (C, H, W) restored, on the CPU and in their dtype.

    Args:
        operation: with a model of gray or RGB images.
        pixels: gray or RGB; uint8 in [0, 255], uint16 in [0, 65535] or float32 in [0, 1], which noise may lead out of.

    Raises:
        GenaugError: pixels of other channels than the model's where the operation does not convert them.
        DataError: a picture that the model cannot take, or that does not fit in memory.
    """
    _check_channels(len(pixels), operation)
    try:
        restored = operation(to_float(pixels)[None], None, torch.zeros(1, dtype=torch.int64))
    except torch.OutOfMemoryError:
        raise DataError("does not fit in the memory of the device; restore it in parts with --tile 256") from None
    if not restored.isfinite().all():
        raise DataError("the model must give finite values, got NaN or infinite ones; train it again")
    return cast_like(restored[0], pixels)


def _check_channels(present: int, operation: Restore) -> None:
    wanted = operation.spec.channels
    if wanted == present or ({present, wanted} == {1, 3} and operation.channels == "convert"):
        return
    advice = 'pass --channels convert (channels="convert")' if {present, wanted} == {1, 3} else "use another model"
    kinds = {1: "gray", 3: "color"}
    raise GenaugError(
        f"the model restores images of {wanted} channels ({kinds.get(wanted, 'neither gray nor color')}), and the "
        f"picture has {present} ({kinds[present]}); {advice}"
    )


def plan_outputs(source: Path, target: Path) -> tuple[list[tuple[Path, Path]], int]:
    """Return (input, output) for each picture that `source` is or holds, and how many other files it holds.

    Raises:
        GenaugError: no pictures, outputs among the inputs, or two of one name, where upper and lower case are one.
    """
    check_folder(target, overwrite=True)
    if source.is_dir():
        files, ignored = find_pictures(source)
        _check_apart(source, target)
    elif os.path.lexists(source):
        files, ignored = [source], 0
    else:
        raise GenaugError(f"{source}: no such file or folder")
    if not files:
        raise GenaugError(f"{source}: holds no PNG, JPEG or TIFF files, but {ignored} others")
    root = source if source.is_dir() else source.parent
    jobs = [(file, target / file.relative_to(root)) for file in files]
    inputs = {_locate(file) for file in files}
    for _, place in jobs:
        if _locate(place) in inputs:
            raise GenaugError(f"{place}: would replace a picture of the input; choose another output folder")
    _check_names(jobs)
    return jobs, ignored


def _check_apart(source: Path, target: Path) -> None:
    place = target.resolve()
    if any(above.exists() and above.samefile(source) for above in (place, *place.parents)):
        raise GenaugError(f"{target}: must lie outside the input folder {source}; choose another output folder")


def _locate(path: Path) -> Path:
    """Return the name of a file itself, be it a link, in the real folder that it is in."""
    return path.parent.resolve() / path.name


def _check_names(jobs: Sequence[tuple[Path, Path]]) -> None:
    taken: dict[str, Path] = {}
    for file, place in jobs:
        other = taken.setdefault(str(place).casefold(), file)
        if other != file:
            raise GenaugError(f"{file}: has the name of {other} where upper and lower case are one; rename one of them")


def _restore_all(jobs: Sequence[tuple[Path, Path]], restore: Callable[[Tensor], Tensor], *, progress: bool) -> int:
    """Restore (input, output) one after another; tell of those that fail, and return their number."""
    failed = 0
    with progress_bar("denoising", total=len(jobs), enabled=progress) as update:
        for source, place in jobs:
            try:
                file = open_picture(source)
                file.save(place, _restore_pages(file, restore))
            except DataError as problem:
                _tell(f"error: {problem}")
                failed += 1
            update()
    return failed


def _restore_pages(file: PictureFile, restore: Callable[[Tensor], Tensor]) -> Iterator[Picture]:
    for picture in file.read():
        try:
            pixels = restore(picture.pixels)
        except GenaugError as problem:
            raise type(problem)(f"{file.path}: {problem}") from None
        yield picture.with_pixels(pixels)


def _tell_skipped(places: Sequence[Path]) -> None:
    for place in places[:SHOWN]:
        _tell(f"{place}: exists already, skipped; --overwrite replaces it")
    if len(places) > SHOWN:
        _tell(f"... and {len(places) - SHOWN} more")


def _tell(line: str) -> None:
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
