"""Fields of an arm and of a budget: what is out of range, and what excludes each other."""

from functools import partial

import numpy as np
import pytest
from torchvision.transforms import v2

from genaug import GenaugError
from genaug.evaluate import Arm, Budget

MIXUP = partial(v2.MixUp, alpha=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": 1.5}, "weight must be from 0 to 1, got 1.5"),
        ({"weight": float("nan")}, "weight must be"),
        ({"adjustment": -1.0}, "adjustment must be from 0 to 10, got -1.0"),
        ({"fraction": 1.0}, "fraction must be from 0.001 to 0.999, got 1.0"),
        ({"replace": 0.0}, "replace must be from 0.001 to 0.999, got 0.0"),
        ({"fraction": 0.2, "replace": 0.2}, "two ways to use synthetic images; give one of them"),
        ({"until": 2.0}, "until must be"),
        ({"every": 0}, r"every must be from 0\.01 to 1000, got 0"),
        ({"every": float("nan")}, "every must be from"),
        ({"every": 1, "cap": 2.0}, "every takes the place of target and cap"),
        ({"every": 1, "target": 7}, "every takes the place of target and cap"),
        ({"learning_rate": 0.0}, "learning_rate must be from 1e-12 to 10, got 0.0"),
        ({"mix": MIXUP, "weight": 0.5}, "weight must be 1 with mix, .* got 0.5"),
    ],
)
def test_wrong_fields_of_an_arm(fields: dict, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        Arm(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": True}, "steps must be an integer of at least 1, got True"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'"),
        ({"schedule": "linear"}, "schedule must be one of cosine, steps, got 'linear'"),
        ({"weight_decay": -0.1}, "weight_decay must be from 0 to 1, got -0.1"),
        ({"weight_decay": np.float32(0.1)}, r"weight_decay must be from 0 to 1, got .*0\.1.* \(take \.item\(\)"),
    ],
)
def test_wrong_fields_of_a_budget(fields: dict, message: str) -> None:
    with pytest.raises(GenaugError, match=message):
        Budget(**fields)


def test_text_is_no_number() -> None:
    with pytest.raises(GenaugError, match="weight must be from 0 to 1, got 'a'"):
        Arm(weight="a")
    with pytest.raises(GenaugError, match="learning_rate must be from 1e-12 to 10, got 'x'"):
        Budget(learning_rate="x")
    with pytest.raises(GenaugError, match="weight must be above 0 with fraction"):
        Arm(fraction=0.2, weight=0.0)
