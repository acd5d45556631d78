"""Arms by name: "class-balanced+flips+genaug" is put together from small pieces, each with values to try."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torchvision.transforms import v2

from genaug.errors import GenaugError, shorten
from genaug.evaluate.arms import Arm, Budget
from genaug.evaluate.losses import (
    ClassWeighted,
    CrossEntropy,
    Deferred,
    EffectiveNumber,
    Focal,
    LogitAdjusted,
    Loss,
)
from genaug.seeding import make_generator
from genaug.spec import DataSpec

PLAIN, RIVAL = "plain", "rival"
RATES = 1.0, 0.5, 2.0, 0.25, 4.0, 0.7, 1.4, 2.8  # of the budget's learning rate; the first is the default
PADDING = 8  # a crop moves by one in so many parts of the shorter side


@dataclass(frozen=True)
class Piece:
    """One thing that an arm does, with values to try; the first is that of the literature.

    Args:
        apply: makes an arm of an arm and a value.
        values: to try; the repr of the arms that they make must tell them apart.
        synthetic: whether it brings in images of a model of ours, so that the arm is no rival.
        control: whether it shows what the instrument sees, so that the arm is no rival either.
    """

    apply: Callable[[Arm, Any], Arm]
    values: tuple[Any, ...] = (None,)
    synthetic: bool = False
    control: bool = False


def rival_pieces(spec: DataSpec) -> dict[str, Piece]:
    """Return the pieces that need no model, by name, for images of `spec`.

    >>> sorted(rival_pieces(DataSpec(1, 8, 8, ("a", "b"))))[:3]
    ['balanced-softmax', 'both-flips', 'class-balanced']
    """
    side = min(spec.height or 32, spec.width or 32)
    crop = v2.RandomCrop((spec.height, spec.width), padding=max(1, side // PADDING))
    return {
        "class-balanced": Piece(lambda arm, _: replace(arm, balanced=True)),
        "class-weighted": _loss(lambda _: ClassWeighted()),
        "effective-number": _loss(lambda beta: EffectiveNumber(beta=beta), 0.9999, 0.999, 0.99, 0.9),
        "focal": _loss(lambda gamma: Focal(gamma=gamma), 2.0, 1.0, 0.5, 3.0),
        "logit-adjusted": _loss(lambda tau: LogitAdjusted(tau=tau), 1.0, 0.5, 1.5, 2.0),
        "balanced-softmax": _loss(lambda _: LogitAdjusted(tau=1.0)),
        "post-hoc": Piece(lambda arm, tau: replace(arm, adjustment=tau), (1.0, 0.5, 1.5, 2.0)),
        "deferred": Piece(_defer, (0.8, 0.6)),
        "flips": _transform(v2.RandomHorizontalFlip()),
        "both-flips": _transform(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])),
        "crops": _transform(crop),
        "trivial-augment": _transform(v2.TrivialAugmentWide()),
        "mixup": Piece(partial(_mix, kind=v2.MixUp), (1.0, 0.2, 0.4)),
        "cutmix": Piece(partial(_mix, kind=v2.CutMix), (1.0, 0.5)),
    }


def compose_arms(
    name: str, pieces: Mapping[str, Piece], *, trials: int, budget: Budget, seed: int = 0
) -> tuple[Arm, ...]:
    """Return the settings of an arm that are to be tried, the first with the default of every piece.

    Learning rates are the same for all arms, in one order: the first setting of each has the first of `RATES`, and so
    on. The other values are drawn at random from all combinations (Bergstra & Bengio 2012), so that every arm gets the
    same number of settings, however much there is to choose.

    Args:
        name: "plain", or names of pieces joined by "+", applied in this order.
        pieces: by name.
        trials: settings to return.
        budget: whose learning rate is varied.
        seed: of the choice.

    Raises:
        GenaugError: an unknown piece, one twice, pieces that exclude each other, or more trials than combinations.

    >>> pieces = rival_pieces(DataSpec(1, 8, 8, ("a", "b")))
    >>> [arm.learning_rate for arm in compose_arms("class-balanced", pieces, trials=2, budget=Budget())][0]
    0.002
    """
    names = [] if name == PLAIN else name.split("+")
    unknown = [part for part in names if part not in pieces]
    if unknown or len(set(names)) < len(names):
        raise GenaugError(
            f"arm must be {PLAIN!r} or pieces joined by '+', none twice, of {', '.join(pieces)}; got {shorten(name)}"
        )
    parts = [pieces[part] for part in names]
    usable: dict[str, tuple[Any, ...]] = {}  # by what they make: a later piece may set again what another one varies
    for values in itertools.product(*(piece.values for piece in parts)):
        if not usable:
            _build(parts, budget.learning_rate, values)  # the defaults must fit together
        arm = _try(parts, budget.learning_rate, values)
        if arm is not None:
            usable.setdefault(str(arm), values)
    choices = list(usable.values())
    if not 1 <= trials <= len(choices) * len(RATES):
        raise GenaugError(
            f"trials must be from 1 to {len(choices) * len(RATES)}, the combinations of arm {name!r}, got {trials}"
        )
    arms = []
    for trial in range(trials):
        turn, place = divmod(trial, len(RATES))
        order = torch.randperm(len(choices), generator=make_generator(seed, "trials", name, place)).tolist()
        if place == 0:
            order.insert(0, order.pop(order.index(0)))
        arms.append(_build(parts, budget.learning_rate * RATES[place], choices[order[turn]]))
    return tuple(arms)


def build_on(base: Arm) -> Piece:
    """Return the piece "rival", which an arm on top of `base` begins with; of that all stays but the learning rate.

    >>> build_on(Arm(balanced=True, learning_rate=1e-3)).apply(Arm(learning_rate=4e-3), None).learning_rate
    0.004
    """

    def apply(arm: Arm, value: Any) -> Arm:
        if arm != Arm(learning_rate=arm.learning_rate):
            raise GenaugError(f"{RIVAL!r} stands for all that the rival does, so it must be the first piece of an arm")
        return replace(base, learning_rate=arm.learning_rate)

    return Piece(apply)


def _try(parts: list[Piece], learning_rate: float, values: tuple[Any, ...]) -> Arm | None:
    try:
        return _build(parts, learning_rate, values)
    except GenaugError:
        return None


def _build(parts: list[Piece], learning_rate: float, values: tuple[Any, ...]) -> Arm:
    arm = Arm(learning_rate=learning_rate)
    for piece, value in zip(parts, values, strict=True):
        arm = piece.apply(arm, value)
    return arm


def _loss(make: Callable[[Any], Loss], *values: Any) -> Piece:
    def apply(arm: Arm, value: Any) -> Arm:
        if arm.loss != CrossEntropy():
            raise GenaugError(f"an arm has one loss, got {arm.loss} and {make(value)}")
        return replace(arm, loss=make(value))

    return Piece(apply, values or (None,))


def _defer(arm: Arm, start: float) -> Arm:
    """Defer the loss of the arm, or re-weighting by effective numbers where it has none of its own."""
    loss = EffectiveNumber() if arm.loss == CrossEntropy() else arm.loss
    return replace(arm, loss=Deferred(loss, start=start))


def _transform(transform: Any) -> Piece:
    def apply(arm: Arm, value: Any) -> Arm:
        return replace(arm, transform=transform if arm.transform is None else v2.Compose([arm.transform, transform]))

    return Piece(apply)


def _mix(arm: Arm, alpha: float, *, kind: Any) -> Arm:
    if arm.mix is not None:
        raise GenaugError("an arm mixes batches in one way, got mixup and cutmix")
    return replace(arm, mix=partial(kind, alpha=alpha))
