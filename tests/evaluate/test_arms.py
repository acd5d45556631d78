"""Fields of an arm and of a budget: what is out of range, and what excludes each other."""

import numpy as np
import pytest

from genaug import GenaugError
from genaug.evaluate import Arm, Budget


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"adjustment": -1.0}, "adjustment must be from 0 to 10, got -1.0"),
        ({"replace": 0.0}, "replace must be from 0.001 to 0.999, got 0.0"),
        ({"until": 2.0}, "until must be from 0 to 1, got 2.0"),
        ({"until": float("nan")}, "until must be"),
        ({"every": 0}, r"every must be from 0\.01 to 1000, got 0"),
        ({"every": float("nan")}, "every must be from"),
        ({"every": 1, "cap": 2.0}, "every takes the place of target and cap"),
        ({"every": 1, "target": 7}, "every takes the place of target and cap"),
        ({"learning_rate": 0.0}, "learning_rate must be from 1e-12 to 10, got 0.0"),
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
    with pytest.raises(GenaugError, match="until must be from 0 to 1, got 'a'"):
        Arm(until="a")
    with pytest.raises(GenaugError, match="learning_rate must be from 1e-12 to 10, got 'x'"):
        Budget(learning_rate="x")
