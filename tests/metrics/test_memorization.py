"""Near copies and the C_T test, against SciPy, by hand, and on generators that copy, fit or miss."""

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
from genaug.metrics import CopyScores, copy_scores, copy_threshold, data_copying_test, near_copies


def draw(rows: int, width: int = 4, *, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


# --- near copies


def test_threshold_by_hand():
    """Distances to the nearest other: 1, 1, 2, 3, 3."""
    real = column(0, 1, 3, 6, 9)
    assert [copy_threshold(real, quantile=q) for q in (0, 0.25, 0.5, 0.75, 1)] == [1, 1, 2, 3, 3]
    assert copy_threshold(real, quantile=0.375) == 1.5


def test_threshold_of_repeated_images_is_zero_and_finds_exact_copies():
    real = column(0, 0, 5, 9)
    assert copy_threshold(real) == 0.0
    assert near_copies(column(5, 5.001, 0), real, threshold=0.0).tolist() == [True, False, True]


def test_near_copies_are_those_within_the_radius():
    real = column(0, 10)
    found = near_copies(column(-2, -1, 0, 1, 2, 8, 11.5), real, threshold=1)
    assert found.dtype == torch.bool
    assert found.tolist() == [False, True, True, True, False, False, False]


def test_copies_with_small_changes_are_found_and_fresh_images_are_not():
    real, fresh = draw(200, seed=0), draw(200, seed=1)
    threshold = copy_threshold(real)
    copies = real[:50] + 0.01 * draw(50, seed=2)
    mask = near_copies(torch.cat([copies, fresh]), real, threshold=threshold)
    assert mask[:50].all()
    assert mask[50:].double().mean() < 0.15


@pytest.mark.parametrize("quantile", [0.05, 0.3])
def test_the_quantile_is_the_share_that_a_perfect_generator_loses(quantile):
    shares = []
    for number in range(60):
        real, fresh = draw(100, seed=2 * number), draw(100, seed=2 * number + 1)
        mask = near_copies(fresh, real, threshold=copy_threshold(real, quantile=quantile))
        shares.append(float(mask.double().mean()))
    error = np.std(shares) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - quantile) < 4 * error + 0.01  # of 100 rows a quantile is this coarse


def test_scores_agree_with_the_functions_they_join():
    real, synthetic = draw(50, seed=0), torch.cat([draw(30, seed=1), draw(50, seed=0)[:10]])
    scores = copy_scores(synthetic, real, quantile=0.1)
    assert scores.threshold == copy_threshold(real, quantile=0.1)
    assert scores.near_copies == near_copies(synthetic, real, threshold=scores.threshold).double().mean() >= 0.25
    pairs = (real[:, None] - real).square().sum(2).sqrt() + torch.diag(torch.full((50,), math.inf))
    assert scores.real_median_distance == pytest.approx(float(np.median(pairs.min(1).values.numpy())))
    assert scores.median_distance == pytest.approx(float(np.median((synthetic[:, None] - real).norm(dim=2).min(1)[0])))


def test_scores_of_copies_and_of_images_far_away():
    real = draw(50, seed=0)
    copied, away = copy_scores(real.clone(), real), copy_scores(real + 100.0, real)
    assert (copied.near_copies, copied.median_distance) == (1.0, 0.0)
    assert away.near_copies == 0.0
    assert away.median_distance > 100 > away.real_median_distance == copied.real_median_distance
    assert isinstance(away, CopyScores)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), "0.1", True, None])
def test_thresholds_that_are_refused(threshold):
    with pytest.raises(GenaugError, match="threshold must be a finite number of at least 0"):
        near_copies(draw(3, seed=0), draw(3, seed=1), threshold=threshold)


@pytest.mark.parametrize("threshold", [1, np.float32(1), np.int64(1)])
def test_thresholds_of_numpy(threshold):
    assert near_copies(column(1), column(0), threshold=threshold).all()


@pytest.mark.parametrize("quantile", [-0.1, 1.1, float("nan"), "0.1"])
def test_quantiles_that_are_refused(quantile):
    real = draw(5, seed=0)
    with pytest.raises(GenaugError, match="quantile must be from 0 to 1"):
        copy_threshold(real, quantile=quantile)
    with pytest.raises(GenaugError, match="quantile must be from 0 to 1"):
        copy_scores(real, real, quantile=quantile)


def test_one_real_image_has_no_distances():
    for call in (lambda real: copy_threshold(real), lambda real: copy_scores(real, real)):
        with pytest.raises(GenaugError, match="real must have at least 2 rows"):
            call(draw(1, seed=0))


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
