"""Speed against a rival in the same run, printed as ratios: the two sides take turns, medians are compared."""

import math
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import TensorDataset, default_collate

from genaug.bank import SampleBank
from genaug.data import load_data
from genaug.errors import GenaugError, shorten
from genaug.images import to_uint8
from genaug.mixing import MixedDataset
from genaug.models.running import draw_seeds
from genaug.seeding import make_generator
from genaug.transforms.operations import Vary
from genaug.workflows.bench_arms import bench_arms
from genaug.workflows.bench_denoise import bench_denoise
from genaug.workflows.bench_engine import bench_engine
from genaug.workflows.bench_loaders import NoiseSource, bench_loaders
from genaug.workflows.bench_pythae import BATCH, CONFIG, make_sides
from genaug.workflows.bench_sampling import bench_sampling
from genaug.workflows.bench_transforms import bench_transforms
from genaug.workflows.scale import bench_scale
from genaug.workflows.timing import Row, take_turns, time_call, time_process
from genaug.zoo import load


def run_benchmarks(name: str = "all", *, repeats: int = 15, data: Any = None) -> None:
    """Run one benchmark, or all, and print a table of medians and ratios.

    Args:
        name: of a benchmark, or "all".
        repeats: measurements of each side, but for `denoise`, which goes through its images once.
        data: clean images to measure denoisers on; see `bench_denoise`.

    Raises:
        GenaugError: an unknown name, or data for a benchmark that takes none.
    """
    chosen = list(BENCHMARKS) if name == "all" else [name]
    if name not in ("all", *BENCHMARKS):
        raise GenaugError(f"name must be one of {', '.join(BENCHMARKS)} or all, got {name!r}")
    if data is not None and name != "denoise":
        raise GenaugError(f"data are for the benchmark denoise alone, got {shorten(data)} for {name}; leave --data out")
    benchmarks: dict[str, Callable[[int], list[Row]]] = {**BENCHMARKS, "denoise": lambda repeats: bench_denoise(data)}
    table = Table("benchmark", "genaug", "rival", "ratio", "target")
    for benchmark in chosen:
        for title, ours, rivals, target in benchmarks[benchmark](repeats):
            ratio = f"{ours / rivals:.3f}" if not math.isnan(rivals) else "-"
            cells = [f"{1000 * value:.2f} ms" if not math.isnan(value) else "-" for value in (ours, rivals)]
            table.add_row(title, *cells, ratio, target)
    if table.row_count:
        Console().print(table)


def bench_import(repeats: int) -> list[Row]:
    """Time whole processes: `import genaug` against its two largest dependencies, and `genaug --help`."""
    ours, rivals, helps = take_turns(
        repeats,
        lambda: time_process("import genaug"),
        lambda: time_process("import torch, torchvision"),
        lambda: time_process("import sys; sys.argv = ['genaug', '--help']; from genaug.cli import main; main()"),
    )
    return [
        ("import genaug / import torch, torchvision", ours, rivals, "<= 1.1"),
        ("genaug --help", helps, float("nan"), "< 500 ms"),
    ]


def bench_bank(repeats: int) -> list[Row]:
    """Time a collated batch of 256 from real images and a bank against one from an in-memory `TensorDataset`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(5000) % 10
    real = TensorDataset(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        bank = SampleBank.generate(NoiseSource(), 500, seed=0, path=f"{folder}/bank", progress=False)
        mixed = MixedDataset(real, bank, target=1000, cap=1.0)
        everything: Any = TensorDataset(torch.cat([images, images]), torch.cat([labels, labels]))

        def draw(size: int) -> list[int]:
            return torch.randint(0, size, (256,), generator=generator).tolist()

        def ours() -> float:
            rows = draw(len(mixed))
            return time_call(lambda: default_collate(mixed.__getitems__(rows)))

        def rival() -> float:
            rows = draw(len(everything))
            return time_call(lambda: default_collate([everything[row] for row in rows]))

        mine, theirs = take_turns(20 * repeats, ours, rival)
    return [("batch of 256 with a bank / TensorDataset", mine, theirs, "<= 0.7")]


def bench_jitter(repeats: int) -> list[Row]:
    """Print how often `LatentJitter` keeps the class of a test digit, as an SVM trained on real digits sees it."""
    from sklearn.svm import SVC

    train_part, test = load_data("digits"), load_data("digits", split="test")
    judge = SVC(gamma=0.001).fit(train_part.images.flatten(1).numpy() / 16.0, train_part.targets)
    model = load("digits-vae")

    def share(images: torch.Tensor) -> str:
        found = judge.predict(to_uint8(images).flatten(1).numpy() / 16.0)
        return f"{100 * float((found == test.labels.numpy()).mean()):.1f} %"

    ways = {"with labels": (test.labels, False), "+ residual": (test.labels, True), "without": (None, False)}
    seeds = draw_seeds(len(test), make_generator(0, "jitter"))
    table = Table("strength", *ways, title=f"class kept (real images: {share(test.images)})")
    for strength in (0.0, 0.3, 0.5, 0.7, 1.0):
        changes = {keep: Vary(model, strength=strength, keep_residual=keep) for keep in (False, True)}
        shares = [share(changes[keep](test.images, labels, seeds)) for labels, keep in ways.values()]
        table.add_row(f"{strength:g}", *shares)
    Console().print(table)
    return []


def bench_training(repeats: int) -> list[Row]:
    """Time a training step against pythae's with the same layers; the speed in images a second is printed too."""
    sides = make_sides()
    seconds = dict(zip(sides, take_turns(max(3, repeats // 3), *sides.values()), strict=True))
    rates = [f"{name} {BATCH / value:.0f}" for name, value in seconds.items()]
    Console().print(f"images a second, 28x28, width {CONFIG.width}, batch {BATCH}: {', '.join(rates)}")
    rival = seconds["pythae"]
    return [
        ("training step / pythae VAE, same layers", seconds["genaug"], rival, "<= 0.5"),
        ("training step in float32 / pythae VAE", seconds["genaug, float32"], rival, ""),
    ]


BENCHMARKS: dict[str, Callable[[int], list[Row]]] = {
    "import": bench_import,
    "engine": bench_engine,
    "arms": bench_arms,
    "training": bench_training,
    "bank": bench_bank,
    "sampling": bench_sampling,
    "transforms": bench_transforms,
    "loaders": bench_loaders,
    "denoise": lambda repeats: bench_denoise(),
    "jitter": bench_jitter,
    "scale": bench_scale,
}
