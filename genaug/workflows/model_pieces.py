"""Pieces of arms that bring in images: of a bank or a generator of ours, of SMOTE, copies, and noise."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from genaug.bank import SampleBank
from genaug.errors import GenaugError
from genaug.evaluate.arms import Arm
from genaug.evaluate.generators import LatentSmote, Trained, Variations
from genaug.evaluate.makers import Noise, Replay, Smote
from genaug.evaluate.pieces import Piece
from genaug.workflows.benchmarks import Benchmark

FILL: dict[str, Any] = {"target": "max", "cap": 1e6}  # to the largest class, as SMOTE is used
DEFAULT: dict[str, Any] = {"target": "median", "cap": 5.0}  # as `MixedDataset` has it
USES: tuple[dict[str, Any], ...] = (
    DEFAULT,
    {**DEFAULT, "weight": 0.3},
    {**DEFAULT, "until": 0.7},
    {"target": "max", "cap": 5.0, "replace": 0.2},
    {"target": "max", "cap": 5.0, "fraction": 0.2},
    {**DEFAULT, "cap": 2.0},
)
METHODS = {"genaug-jitter": ("vary",), "latent-smote": ("encode", "decode")}


def model_pieces(benchmark: Benchmark, *, bank: str | Path | None, cache: Path) -> dict[str, Piece]:
    """Return the pieces that bring in images, by name; those that need a generator only where there is one.

    Args:
        benchmark: names the recipe of the generator.
        bank: path of a bank for "genaug" to mix in, in place of a generator's samples.
        cache: folder where trained generators are kept.

    Raises:
        GenaugError: a bank that cannot be read, or a recipe that cannot be used.
    """
    pieces = {
        "smote": _source(Smote, FILL, DEFAULT),
        "replay": _source(Replay, DEFAULT, control=True),
        "noise": _source(Noise, DEFAULT, control=True),
    }
    if benchmark.generator is not None:
        start = benchmark.start and Trained(benchmark.start, cache=cache)
        trained = Trained(benchmark.generator, benchmark.overrides, cache=cache, start=start or None)
        filtered = replace(trained, filters=benchmark.filters)
        pieces["genaug"] = _source(lambda: filtered, *USES, synthetic=True)
        for name, maker in {"genaug-jitter": Variations, "latent-smote": LatentSmote}.items():
            if all(callable(getattr(trained.family, method, None)) for method in METHODS[name]):
                pieces[name] = _source(partial(maker, trained), *USES[:2], synthetic=name == "genaug-jitter")
    if bank is not None:
        opened = SampleBank.open(bank)
        pieces["genaug"] = _source(lambda: opened, *USES, synthetic=True)
    return pieces


def _source(make: Callable[[], Any], *uses: dict[str, Any], synthetic: bool = False, control: bool = False) -> Piece:
    def apply(arm: Arm, use: dict[str, Any]) -> Arm:
        if arm.source is not None:
            raise GenaugError("an arm mixes in images of one source, got two")
        return replace(arm, source=make(), **use)

    return Piece(apply, uses, synthetic=synthetic, control=control)
