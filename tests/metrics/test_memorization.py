"""The C_T test, against SciPy, by hand, and on generators that copy, fit or miss."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm
from torch import Tensor

import genaug
from genaug import GenaugError
from genaug.metrics import data_copying_test


def draw(rows: int, width: int = 4, *, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


# --- the C_T test


def test_statistic_by_hand():
    """One training row at 0, so d(x) = |x|; test 1, 3, 5 and generated 2, 3.

    d(q) > d(p): 2 > 1, 3 > 1, and 3 = 3 counts half: U = 2.5; m n / 2 = 3. One pair of equal distances among 5:
    variance = 2 * 3 / 12 * (6 - (2^3 - 2) / (5 * 4)) = 2.85.
    """
    result = data_copying_test(
        train=column(0), test=column(1, 3, -5), synthetic=column(-2, 3), seed=0, least_synthetic=1
    )
    assert result.statistic == pytest.approx(-0.5 / math.sqrt(2.85))
    assert result.scores == (result.statistic,)
    assert result.weights == (1.0,)


@pytest.mark.parametrize("rounded", [False, True], ids=["no-ties", "ties"])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
def test_one_cell_is_the_mann_whitney_test_of_scipy(rounded, scale):
    train, test, synthetic = draw(80, 2, seed=0), draw(60, 2, seed=1), draw(50, 2, seed=2, scale=scale)
    if rounded:
        train, test, synthetic = ((2 * rows).round() for rows in (train, test, synthetic))
    found = data_copying_test(train=train, test=test, synthetic=synthetic, seed=0, cells=1).statistic
    tested, drawn = ((rows[:, None] - train).norm(dim=2).min(1).values.numpy() for rows in (test, synthetic))
    if rounded:
        tested, drawn = tested.round(6), drawn.round(6)
        assert len(np.unique(np.concatenate([tested, drawn]))) < 30
    p = mannwhitneyu(drawn, tested, alternative="greater", method="asymptotic", use_continuity=False).pvalue
    assert found == pytest.approx(norm.isf(p), rel=1e-9, abs=1e-9)


def two_groups(rows: int, *, seed: int, far: float = 0.5) -> Tensor:
    """A share `far` of the rows around (100, 0), the others around the origin."""
    group = (torch.arange(rows) < far * rows).double()
    return draw(rows, 2, seed=seed) + 100.0 * torch.stack([group, torch.zeros(rows)], 1)


def test_cells_are_weighted_with_their_shares_of_the_test_rows():
    """Copies in one group and fresh rows in the other."""
    train, test, fresh = two_groups(100, seed=0), two_groups(120, seed=1, far=0.25), two_groups(80, seed=2)
    synthetic = torch.cat([train[:50] + 1e-3, fresh[40:]])
    result = data_copying_test(train=train, test=test, synthetic=synthetic, seed=0, cells=2)
    scores = dict(zip(result.weights, result.scores, strict=True))
    assert set(scores) == {0.25, 0.75}
    for share, rows in ((0.25, slice(0, 30)), (0.75, slice(30, None))):
        own = synthetic[:50] if share == 0.25 else synthetic[50:]
        alone = data_copying_test(train=train, test=test[rows], synthetic=own, seed=0, cells=1)
        assert scores[share] == pytest.approx(alone.statistic)
    assert scores[0.25] < -5 < -3 < scores[0.75]
    assert result.statistic == pytest.approx(0.25 * scores[0.25] + 0.75 * scores[0.75])


def test_cells_with_few_synthetic_rows_are_left_out():
    train, test = two_groups(100, seed=0), two_groups(120, seed=1, far=0.25)
    synthetic = two_groups(60, seed=2, far=20 / 60)
    sets = {"train": train, "test": test, "synthetic": synthetic, "seed": 0, "cells": 2}
    assert len(data_copying_test(**sets, least_synthetic=20).scores) == 2
    result = data_copying_test(**sets, least_synthetic=21)
    assert result.weights == (0.75,)
    assert result.statistic == pytest.approx(result.scores[0])  # as if the weights left were all
    with pytest.raises(GenaugError, match="synthetic must have at least 41 rows in some cell"):
        data_copying_test(**sets, least_synthetic=41)


def test_cells_without_test_rows_are_left_out():
    train, synthetic = two_groups(100, seed=0), two_groups(100, seed=2)
    result = data_copying_test(train=train, test=draw(50, 2, seed=1), synthetic=synthetic, seed=0, cells=2)
    assert result.weights == (1.0,)


def test_the_nearest_training_row_may_lie_in_another_cell():
    """The cells have the centers -1 and 10: what is above 4.5 belongs to that of 10, and may be nearest to 4."""
    train = column(*range(-6, 5), *[10] * 40)
    result = data_copying_test(
        train=train, test=column(4.8, -4.1), synthetic=column(4.6, 10.1), seed=0, cells=2, least_synthetic=1
    )
    # d is 0.8 for the test row, 0.6 and 0.1 for the synthetic ones; to the rows of the cell, 5.2, 5.4 and 0.1.
    assert result.weights == (0.5,)
    assert result.scores == (pytest.approx((0 - 1) / math.sqrt(2 / 12 * 4)),)


def score(train: Tensor, test: Tensor, synthetic: Tensor, **options: int) -> float:
    return data_copying_test(train=train, test=test, synthetic=synthetic, **{"seed": 0, **options}).statistic


@pytest.mark.parametrize("cells", [1, 4])
def test_copies_are_far_below_zero(cells):
    train, test = draw(300, seed=0), draw(300, seed=1)
    assert score(train, test, train.clone(), cells=cells) < -5
    assert score(train, test, train + 0.02 * draw(300, seed=2), cells=cells) < -5


@pytest.mark.parametrize("cells", [1, 4])
def test_a_generator_that_fits_is_near_zero(cells):
    values = [score(*(draw(200, seed=3 * s + k) for k in range(3)), cells=cells) for s in range(20)]
    assert max(map(abs, values)) < 3.5
    assert abs(np.mean(values)) < 4 / math.sqrt(20)
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize("cells", [1, 4])
def test_a_generator_that_underfits_is_far_above_zero(cells):
    train, test = draw(300, seed=0), draw(300, seed=1)
    assert score(train, test, draw(300, seed=2, scale=2.0), cells=cells) > 3


def test_half_of_copies_is_between():
    train, test, fresh = draw(300, seed=0), draw(300, seed=1), draw(300, seed=2)
    half = torch.cat([train[:150], fresh[:150]])
    assert score(train, test, train) < score(train, test, half) < -3 < score(train, test, fresh)


def test_distances_that_are_all_equal_say_nothing():
    assert score(column(0), column(1, -1), column(1), least_synthetic=1) == 0.0


@pytest.mark.parametrize(
    ("rows", "cells"), [((1000, 1000, 1000), 5), ((1000, 1000, 399), 1), ((400, 999, 999), 2), ((50, 50, 50), 1)]
)
def test_the_default_is_a_cell_per_200_rows_of_the_smallest_set(rows, cells):
    train, test, synthetic = (draw(n, 1, seed=k) for k, n in enumerate(rows))
    sets = {"train": train, "test": test, "synthetic": synthetic, "seed": 0, "least_synthetic": 1}
    found = data_copying_test(**sets)
    assert found == data_copying_test(**sets, cells=cells)
    assert len(found.scores) == cells


def test_the_result_depends_on_the_seed_alone():
    train, test, synthetic = (draw(200, seed=k) for k in range(3))
    first = score(train, test, synthetic, seed=7, cells=6)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(123)
        assert score(train, test, synthetic, seed=7, cells=6) == first
    assert len({score(train, test, synthetic, seed=seed, cells=6) for seed in range(5)}) > 1


def test_training_rows_that_repeat_leave_cells_empty():
    train = column(*[0.0] * 10, *[9.0] * 10)
    result = data_copying_test(
        train=train, test=column(1, 8, 10), synthetic=column(0.5, 9.5), seed=0, cells=5, least_synthetic=1
    )
    assert sum(result.weights) == pytest.approx(1.0)
    assert result.statistic < 0


def test_features_in_single_precision_that_need_a_gradient():
    train, test, synthetic = (draw(100, seed=k).float() for k in range(3))
    expected = score(train.double(), test.double(), synthetic.double())
    assert score(train, test, synthetic.requires_grad_()) == expected


@pytest.mark.parametrize("name", ["train", "test", "synthetic"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:0], "at least 1 row"),
        (lambda rows: rows[:, :3], "must be as wide"),
        (lambda rows: rows.long(), "must be a tensor of floats"),
        (lambda rows: rows / 0, "must be finite"),
    ],
    ids=["no-row", "narrow", "integers", "infinite"],
)
def test_features_that_are_refused(name, change, words):
    sets = {key: draw(30, seed=k) for k, key in enumerate(["train", "test", "synthetic"])}
    sets[name] = change(sets[name])
    with pytest.raises(GenaugError, match=words) as caught:
        data_copying_test(**sets, seed=0)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": 0}, "cells must be an integer from 1 to 30, the rows of train, got 0"),
        ({"cells": 31}, "cells must be an integer from 1 to 30, the rows of train, got 31"),
        ({"cells": 2.0}, "cells must be an integer from 1 to 30"),
        ({"least_synthetic": 0}, "least_synthetic must be an integer of at least 1, got 0"),
        ({"least_synthetic": 31}, "synthetic must have at least 31 rows in some cell"),
        ({"seed": "0"}, "seed must be an integer"),
    ],
)
def test_numbers_that_are_refused(options, words):
    with pytest.raises(GenaugError, match=words):
        score(*(draw(30, seed=k) for k in range(3)), **options)


def test_scikit_learn_is_imported_only_where_it_computes():
    code = "import sys, genaug.metrics; assert not {'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(genaug.__file__).parents[1], check=True)
