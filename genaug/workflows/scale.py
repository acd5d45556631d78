"""How much memory many images take in training: held in memory, and on the disk, each in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from genaug.bank.exports import encode_png
from genaug.data import load_data
from genaug.errors import GenaugError, check_count, shorten
from genaug.images import to_uint8
from genaug.progress import progress_bar
from genaug.seeding import make_generator
from genaug.training import load_recipe, train
from genaug.workflows.timing import read_memory

CHUNK = 1000
SIDE = 64
CLASSES = tuple("0123456789")
LIMITS = {"in memory": float("inf"), "on disk": 0.5}  # GiB of pixels
RECIPE: dict[str, Any] = {
    "family": "vae",
    "model": {"width": 4, "hidden": 64, "latent_dim": 8},
    "training": {"batch_size": 64, "validation_fraction": 0.02, "sample_every": 15, "log_every": 10},
}


@dataclass(frozen=True)
class ScaleRun:
    """What one way to hold the images took; memory in GiB, None where the system does not tell."""

    way: str
    resident: float | None  # highest ever, pages of files included, which the system takes back where memory is short
    anonymous: float | None  # highest seen: what the process needs for itself
    load_seconds: float
    train_seconds: float
    images_per_second: float
    weights_sha256: str


def bench_scale(repeats: int) -> list[Any]:
    """Print what 100,000 color images of 64x64 take; one run of each kind, however many `repeats`."""
    print_scale(measure_scale())
    return []


def measure_scale(
    images: int = 100_000, *, limits: Mapping[str, float] = LIMITS, steps: int = 30, progress: bool = True
) -> list[ScaleRun]:
    """Load and train on color images of 64x64 under every limit, in processes of their own, and return what it took.

    The images are scikit-learn's digits in other colors, with light noise, as parquet files of PNG images in a
    temporary folder. Fitting and measuring after the steps are part of it.

    Args:
        images: how many, at least 100.
        limits: `memory_limit` of `load_data` by a name for it.
        steps: of the training, on batches of 64.
        progress: show progress bars.

    Raises:
        GenaugError: too few images, or a run that failed.

    >>> measure_scale(10)
    Traceback (most recent call last):
    ...
    genaug.errors.GenaugError: images must be an integer of at least 100, got 10; pass such as 100_000
    """
    images = check_count(images, name="images", least=100, advice="; pass such as 100_000")
    with tempfile.TemporaryDirectory(prefix="genaug-") as folder:
        with progress_bar("writing images", total=images, enabled=progress) as update:
            for written in _write_images(Path(folder, "images"), images):
                update(written)
        runs = []
        with progress_bar("training", total=len(limits), enabled=progress) as update:
            for way, limit in limits.items():
                runs.append(_run(way, limit, steps, Path(folder)))
                update()
        return runs


def print_scale(runs: list[ScaleRun]) -> None:
    """Print a table of `runs`, and whether they gave the same weights."""
    table = Table("images", "highest resident", "highest anonymous", "load", "train", "images/s")
    for run in runs:
        memory = ("n/a" if size is None else f"{size:.2f} GiB" for size in (run.resident, run.anonymous))
        seconds = (f"{value:.0f} s" for value in (run.load_seconds, run.train_seconds))
        table.add_row(run.way, *memory, *seconds, f"{run.images_per_second:.0f}")
    console = Console()
    console.print(table)
    same = len({run.weights_sha256 for run in runs}) == 1
    console.print("the weights are the same to the bit" if same else "the weights differ")


def _write_images(folder: Path, count: int) -> Iterator[int]:
    """Write parquet files, and yield how many images each of them has."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Image

    digits = load_data("digits", split="all")
    schema = Features({"image": Image(), "label": ClassLabel(names=list(CLASSES))}).arrow_schema
    folder.mkdir()
    for start in range(0, count, CHUNK):
        rows = torch.arange(start, min(start + CHUNK, count)) % len(digits)
        pixels = _color(digits.images[rows], make_generator(0, "scale", start)).numpy()
        cells = [{"bytes": encode_png(image), "path": None} for image in pixels]
        table = pa.table({"image": cells, "label": digits.labels[rows].numpy()}, schema=schema)
        pq.write_table(table, folder / f"{start:09d}.parquet")
        yield len(rows)


def _color(digits: Tensor, generator: torch.Generator) -> Tensor:
    """Return gray digits (N, 1, 8, 8) as color images (N, 3, 64, 64), each in two colors and noise of its own."""
    strokes = interpolate(digits / 255, size=(SIDE, SIDE), mode="bilinear")
    ink, paper = torch.rand(2, len(digits), 3, 1, 1, generator=generator)
    noise = 0.01 * torch.randn(len(digits), 3, SIDE, SIDE, generator=generator)
    return to_uint8((paper + strokes * (ink - paper) + noise).clamp(0, 1))


def _run(way: str, limit: float, steps: int, folder: Path) -> ScaleRun:
    code = "import sys; from genaug.workflows.scale import _measure; _measure(*sys.argv[1:])"
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "caches" / way)}  # so that each loads anew
    command = [sys.executable, "-c", code, way, str(limit), str(steps), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenaugError(f"the run with images {way} failed: {shorten(done.stderr[-600:], 700)}")
    return ScaleRun(**json.loads(done.stdout))


def _measure(way: str, limit: str, steps: str, folder: str) -> None:
    """Load, train, and print a `ScaleRun` as JSON; runs in a process of its own."""
    seen: dict[str, int] = {}
    threading.Thread(target=_watch, args=(seen,), daemon=True).start()
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the images are on the disk is what is wanted
        data = load_data(Path(folder, "images"), memory_limit=float(limit))
    loaded = time.perf_counter()
    recipe = load_recipe(RECIPE, overrides=[f"training.steps={steps}"])
    result = train(recipe, data=data, output=Path(folder, way), device="cpu", progress=False)
    trained = time.perf_counter()
    weights = hashlib.sha256((result.path / "model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    run = ScaleRun(
        way=way,
        resident=_in_gib(read_memory().get("VmHWM")),
        anonymous=_in_gib(seen.get("RssAnon")),
        load_seconds=loaded - began,
        train_seconds=trained - loaded,
        images_per_second=rates[-1],
        weights_sha256=weights,
    )
    sys.stdout.write(json.dumps(asdict(run)))


def _watch(seen: dict[str, int]) -> None:
    """Keep the highest values of `read_memory` in `seen`."""
    while True:
        for name, value in read_memory().items():
            seen[name] = max(value, seen.get(name, 0))
        time.sleep(0.01)


def _in_gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30
