"""Arms by name, and the settings of each that are tried."""

import pickle
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from genaug import GenaugError
from genaug.evaluate import Arm, Budget
from genaug.evaluate.losses import Deferred, EffectiveNumber, Focal, LogitAdjusted
from genaug.evaluate.pieces import RATES, Piece, build_on, compose_arms, rival_pieces
from genaug.spec import DataSpec

PIECES = rival_pieces(DataSpec(3, 40, 24, ("a", "b")))
BUDGET = Budget(learning_rate=0.1)


def first(name: str) -> Arm:
    return compose_arms(name, PIECES, trials=1, budget=BUDGET)[0]


def test_the_first_setting_has_the_defaults_of_its_pieces() -> None:
    assert first("plain") == Arm(learning_rate=0.1)
    assert first("class-balanced+focal") == Arm(balanced=True, loss=Focal(gamma=2.0), learning_rate=0.1)
    assert first("logit-adjusted").loss == LogitAdjusted(tau=1.0)
    assert first("post-hoc").adjustment == 1.0
    assert first("deferred").loss == Deferred(EffectiveNumber(), start=0.8)
    assert first("logit-adjusted+deferred").loss == Deferred(LogitAdjusted(tau=1.0), start=0.8)
    mixup = first("mixup").mix(num_classes=2)
    assert (type(mixup), mixup.alpha, mixup.num_classes) == (v2.MixUp, 1.0, 2)
    assert isinstance(first("cutmix").mix(num_classes=2), v2.CutMix)


def test_transforms_are_applied_in_order() -> None:
    transform = first("both-flips+crops").transform
    both, crop = transform.transforms
    assert [type(step) for step in both.transforms] == [v2.RandomHorizontalFlip, v2.RandomVerticalFlip]
    assert (type(crop), tuple(crop.size)) == (v2.RandomCrop, (40, 24))
    image = torch.zeros(3, 40, 24, dtype=torch.uint8)
    with torch.random.fork_rng():
        for name in ("flips+crops", "trivial-augment"):
            assert first(name).transform(image).shape == image.shape
            assert first(name).transform(image).dtype == torch.uint8


@pytest.mark.parametrize("name", PIECES)
def test_every_arm_gets_as_many_different_settings_and_can_be_sent_to_a_process(name: str) -> None:
    arms = compose_arms(name, PIECES, trials=6, budget=BUDGET)
    assert len(arms) == 6
    assert len({str(arm) for arm in arms}) == 6
    assert str(arms[0]) == str(first(name))
    assert str(arms[:3]) == str(compose_arms(name, PIECES, trials=3, budget=BUDGET))
    assert {arm.learning_rate for arm in arms} <= {0.1 * factor for factor in RATES}
    assert len(pickle.loads(pickle.dumps(arms))) == 6


def test_settings_range_over_the_values_of_all_pieces() -> None:
    arms = compose_arms("logit-adjusted", PIECES, trials=32, budget=BUDGET)
    assert {(arm.learning_rate, arm.loss.tau) for arm in arms} == {
        (0.1 * factor, tau) for factor in RATES for tau in (0.5, 1.0, 1.5, 2.0)
    }
    others = compose_arms("logit-adjusted", PIECES, trials=4, budget=BUDGET, seed=1)
    assert others[0] == arms[0]
    assert others != arms[:4]


@pytest.mark.parametrize(
    ("name", "trials", "message"),
    [
        (
            "nothing",
            1,
            "arm must be 'plain' or pieces joined by '\\+', none twice, of class-balanced, .*; got 'nothing'",
        ),
        ("flips+flips", 1, "none twice"),
        ("plain+flips", 1, "got 'plain\\+flips'"),
        ("", 1, "got ''"),
        ("focal+class-weighted", 1, "an arm has one loss, got Focal.* and ClassWeighted"),
        ("mixup+cutmix", 1, "an arm mixes batches in one way"),
        ("plain", 9, "trials must be from 1 to 8, the combinations of arm 'plain', got 9"),
        ("plain", 0, "trials must be from 1 to 8"),
    ],
)
def test_names_that_make_no_arm(name: str, trials: int, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        compose_arms(name, PIECES, trials=trials, budget=BUDGET)


def test_a_piece_of_ones_own() -> None:
    invert = Piece(
        lambda arm, value: Arm(transform=v2.RandomInvert(value), learning_rate=arm.learning_rate), (0.5, 1.0)
    )
    arms = compose_arms("invert", {**PIECES, "invert": invert}, trials=16, budget=BUDGET)
    assert {arm.transform.p for arm in arms} == {0.5, 1.0}


def _share(arm: Arm, share: float | None) -> Arm:
    if share is not None and arm.mix is not None:
        raise GenaugError("no share with mix")
    return replace(arm, replace=share)


def test_values_that_do_not_fit_together_are_not_tried() -> None:
    light = Piece(_share, (None, 0.3))
    arms = compose_arms("mixup+light", {**PIECES, "light": light}, trials=24, budget=BUDGET)
    assert {arm.replace for arm in arms} == {None}
    with pytest.raises(GenaugError, match="trials must be from 1 to 24"):
        compose_arms("mixup+light", {**PIECES, "light": light}, trials=25, budget=BUDGET)


def test_a_setting_is_tried_once() -> None:
    vary = Piece(lambda arm, until: replace(arm, until=until), (1.0, 0.3, 0.1))
    fix = Piece(lambda arm, until: replace(arm, until=until), (0.5, 0.2))
    arms = compose_arms("mixup+flips+both-flips", PIECES, trials=24, budget=BUDGET)
    assert len({str(arm) for arm in arms}) == 24
    with pytest.raises(GenaugError, match="trials must be from 1 to 16"):
        compose_arms("vary+fix", {**PIECES, "vary": vary, "fix": fix}, trials=17, budget=BUDGET)


def test_all_arms_try_the_same_learning_rates() -> None:
    pieces = {**PIECES, "rival": build_on(Arm(balanced=True, learning_rate=4.0))}
    for name in ("plain", "focal", "class-balanced+mixup", "rival+mixup"):
        arms = compose_arms(name, pieces, trials=8, budget=BUDGET)
        assert [arm.learning_rate for arm in arms] == [0.1 * factor for factor in RATES]
    arms = compose_arms("rival+mixup", pieces, trials=8 * 3, budget=BUDGET)
    assert all(arm.balanced and arm.mix is not None for arm in arms)
    assert {(arm.learning_rate, arm.mix(num_classes=2).alpha) for arm in arms} == {
        (0.1 * factor, alpha) for factor in RATES for alpha in (1.0, 0.2, 0.4)
    }
