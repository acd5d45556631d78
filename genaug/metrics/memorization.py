"""Whether synthetic features copy training ones: the C_T test."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from genaug.errors import GenaugError, check_count, shorten
from genaug.metrics.neighbors import check_features, nearest_neighbors
from genaug.seeding import derive_seed

ROWS_PER_CELL = 200
LEAST_SYNTHETIC = 20


@dataclass(frozen=True)
class DataCopyingTest:
    """The statistic C_T of `data_copying_test`, and the cells that it is the weighted mean of.

    Attributes:
        statistic: C_T; far below 0 where synthetic rows are copied, far above 0 where they miss the training rows.
        scores: z-score of each cell that counts; a cell far below 0 is copied even if C_T is not.
        weights: share of all test rows in each of these cells; their sum is below 1 where cells were left out.

    >>> DataCopyingTest(statistic=-1.0, scores=(-2.0, 0.0), weights=(0.5, 0.5)).statistic
    -1.0
    """

    statistic: float
    scores: tuple[float, ...]
    weights: tuple[float, ...]


def data_copying_test(
    *,
    train: Tensor,
    test: Tensor,
    synthetic: Tensor,
    seed: int,
    cells: int | None = None,
    least_synthetic: int = LEAST_SYNTHETIC,
) -> DataCopyingTest:
    """Return the C_T test of data copying: are synthetic rows nearer to the training rows than test rows are?

    By Meehan, Chaudhuri & Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models". With d(x)
    the distance of x to its nearest training row, and cells by k-means of the training rows, a cell with n test rows p
    and m synthetic rows q has the z-score of Mann and Whitney

        U = number of pairs with d(q) > d(p), those with d(q) = d(p) counted half
        Z = (U - m n / 2) / sqrt(m n (m + n + 1) / 12)

    and C_T is the mean of Z over the cells with enough synthetic rows, weighted with the share of the test rows in
    them. Z is about standard normal in a cell where test and synthetic rows follow one distribution; C_T then deviates
    by at most as much. Hence C_T << 0 (below -3, say) says that the model copies, C_T >> 0 that it underfits, and C_T
    near 0 neither: it says nothing of what the model leaves out, see `manifold_scores` for that.

    Other than in the authors' program, the nearest training row may lie in another cell, as in their definition of d;
    ties reduce the variance of U, by sum(t^3 - t) / ((m + n) (m + n - 1)) within the brackets for groups of t equal
    distances (Z is 0 if all are equal); and no continuity correction is added.

    Args:
        train: features (L, F) of the images that the model learned from.
        test: features (N, F) of real images that it did not, of the same distribution.
        synthetic: features (M, F).
        seed: of the initial centers of k-means.
        cells: number of cells, at most the number of training rows; by default one per 200 rows of the smallest set,
            and at least 1, which gives 5 and 50 in the authors' experiments, as there.
        least_synthetic: cells with fewer synthetic rows are left out, as are those without test rows.

    Raises:
        GenaugError: other shapes, different widths, values that are not finite, numbers out of range, or no cell left.

    >>> generator = torch.Generator().manual_seed(0)
    >>> train, test, fresh = (torch.randn(200, 2, generator=generator) for _ in range(3))
    >>> data_copying_test(train=train, test=test, synthetic=train + 0.001, seed=0).statistic < -10
    True
    >>> abs(data_copying_test(train=train, test=test, synthetic=fresh, seed=0).statistic) < 3
    True
    """
    train, test, synthetic = check_features(train=train, test=test, synthetic=synthetic)
    if cells is None:
        cells = max(1, min(len(train), len(test), len(synthetic)) // ROWS_PER_CELL)
    if type(cells) is not int or not 1 <= cells <= len(train):
        raise GenaugError(
            f"cells must be an integer from 1 to {len(train)}, the rows of train, got {shorten(cells)}; lower it"
        )
    check_count(least_synthetic, name="least_synthetic")
    centers = cell_centers(train, cells=cells, seed=seed)
    (test_distances, test_cells), (distances, own_cells) = (
        (nearest_neighbors(rows, train)[0].flatten(), nearest_neighbors(rows, centers)[1].flatten())
        for rows in (test, synthetic)
    )
    scores, weights = cell_scores(
        test_distances, test_cells, distances, own_cells, cells=cells, least_synthetic=least_synthetic
    )
    if not scores:
        raise GenaugError(
            f"synthetic must have at least {least_synthetic} rows in some cell with test rows, got none such among "
            f"{cells} cells and {len(synthetic)} rows; pass more images or lower cells or least_synthetic"
        )
    weighted = math.fsum(score * weight for score, weight in zip(scores, weights, strict=True))
    return DataCopyingTest(weighted / math.fsum(weights), tuple(scores), tuple(weights))


def cell_scores(
    test_distances: Tensor,
    test_cells: Tensor,
    distances: Tensor,
    own_cells: Tensor,
    *,
    cells: int,
    least_synthetic: int = LEAST_SYNTHETIC,
) -> tuple[list[float], list[float]]:
    """Return z-scores and weights of `DataCopyingTest`, of the cells that count, from distances to training rows.

    Args:
        test_distances, test_cells: distance of each test row to the nearest training row, and its cell, (N,).
        distances, own_cells: the same of synthetic rows, (M,).
        cells: number of cells.
        least_synthetic: as in `data_copying_test`.

    >>> zeros = torch.zeros(3, dtype=torch.int64)
    >>> cell_scores(torch.arange(3.0), zeros, torch.arange(3.0), zeros, cells=1, least_synthetic=1)
    ([0.0], [1.0])
    """
    scores, weights = [], []
    for cell in range(cells):
        tested, drawn = test_distances[test_cells == cell], distances[own_cells == cell]
        if len(tested) and len(drawn) >= least_synthetic:
            scores.append(_mann_whitney_score(drawn, tested))
            weights.append(len(tested) / len(test_distances))
    return scores, weights


def _mann_whitney_score(larger: Tensor, smaller: Tensor) -> float:
    """Return the z-score of the number of pairs in which the value of `larger` is the larger one."""
    m, n = len(larger), len(smaller)
    ordered = smaller.sort().values
    below = torch.searchsorted(ordered, larger) + torch.searchsorted(ordered, larger, right=True)
    ties = torch.cat([larger, smaller]).unique(return_counts=True)[1].double()
    variance = m * n / 12 * (m + n + 1 - float((ties**3 - ties).sum()) / ((m + n) * (m + n - 1)))
    return (float(below.sum()) / 2 - m * n / 2) / math.sqrt(variance) if len(ties) > 1 else 0.0


def cell_centers(train: Tensor, *, cells: int, seed: int) -> Tensor:
    """Return centers (cells, F) of training rows (L, F) by k-means: the cells of `data_copying_test`.

    >>> cell_centers(torch.tensor([[0.0], [2.0]]), cells=1, seed=0)
    tensor([[1.]])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(cells, n_init=1, random_state=derive_seed(seed, "data copying") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than cells: some stay empty
        means.fit(train.cpu().numpy())
    return torch.from_numpy(means.cluster_centers_).to(train)
