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
USES: dict[str, tuple[dict[str, Any], ...]] = {  # field of an `Arm` -> what is set, and what else to try
    "until": ({"until": 0.7}, {"until": 0.5}),
    "replace": ({"replace": 0.2}, {"replace": 0.5}, {"replace": 0.1}),
    "every": ({**DEFAULT, "every": 2.0},),
}
STRENGTHS = 0.6, 1.0, 0.3  # of variations


def model_pieces(benchmark: Benchmark, *, bank: str | Path | None, cache: Path) -> dict[str, Piece]:
    """Return the pieces that bring in images, by name, and those that say how they are used.

    Pieces that need a generator are among them only where the benchmark has one: "genaug", its samples;
    "genaug-residual", real images that it varies, with what it cannot draw kept; "latent-smote". What a GAN cannot do,
    since it has no encoder, the VAE does that it starts from.

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
        **{name: Piece(_use, values) for name, values in USES.items()},
    }
    # what "genaug" alone tries; "every" changes what is drawn, so it has to be asked for
    own = [DEFAULT, *({**DEFAULT, **values[0]} for name, values in USES.items() if name != "every")]
    if benchmark.generator is not None:
        start = None
        if benchmark.start is not None:
            start = Trained(benchmark.start, overrides=benchmark.start_overrides, cache=cache)
        trained = Trained(benchmark.generator, overrides=benchmark.overrides, cache=cache, start=start)
        filtered = replace(trained, filters=benchmark.filters)
        pieces["genaug"] = _source(lambda: filtered, *own, synthetic=True)
        models = [trained] if start is None else [trained, start]
        varied = next((model for model in models if _can(model, "vary")), None)
        if varied is not None:
            pieces["genaug-residual"] = Piece(partial(_vary, varied), STRENGTHS, synthetic=True)
        coder = next((model for model in models if _can(model, "encode", "decode")), None)
        if coder is not None:
            pieces["latent-smote"] = _source(lambda: LatentSmote(coder), FILL, DEFAULT, {**DEFAULT, "replace": 0.2})
    if bank is not None:
        opened = SampleBank.open(bank)
        pieces["genaug"] = _source(lambda: opened, *own, synthetic=True)
    return pieces


def _can(trained: Trained, *methods: str) -> bool:
    return all(callable(getattr(trained.family, method, None)) for method in methods)


def _source(make: Callable[[], Any], *uses: dict[str, Any], **kind: bool) -> Piece:
    return Piece(lambda arm, use: _add(arm, make(), use), uses, **kind)


def _vary(trained: Trained, arm: Arm, strength: float) -> Arm:
    return _add(arm, Variations(trained, strength, keep_residual=True), DEFAULT)


def _add(arm: Arm, source: Any, use: dict[str, Any]) -> Arm:
    if arm.source is not None:
        raise GenaugError("an arm mixes in images of one source, got two")
    return replace(arm, source=source, **use)


def _use(arm: Arm, use: dict[str, Any]) -> Arm:
    if arm.source is None:
        name = list(use)[-1]
        raise GenaugError(f"{name} says how images are mixed in; what brings them in, such as genaug, goes before it")
    return replace(arm, **use)
