"""Nearest neighbors among features, and the scores that count them: precision, recall, density and coverage."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten

CHUNK = 2**22  # numbers held at once, 32 MiB
SPARE = 8  # candidates beyond the nearest k
EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class ManifoldScores:
    """How far synthetic features lie where real ones do, and the other way round; see `manifold_scores`.

    Attributes:
        precision: share of the synthetic rows near a real one, 0 to 1.
        recall: share of the real rows near a synthetic one, 0 to 1.
        density: real rows that a synthetic one is near to, on average, over k; at least 0, and 1 on average for two
            sets of one distribution.
        coverage: share of the real rows that have a synthetic row near them, 0 to 1.

    >>> ManifoldScores(precision=1.0, recall=0.5, density=0.9, coverage=0.5).recall
    0.5
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: Tensor, synthetic: Tensor, *, k: int = 5) -> ManifoldScores:
    """Return precision, recall, density and coverage of synthetic features.

    With r(x) the distance of a row x to its k-th nearest neighbor in its own set, itself left out, and the ball B(x)
    of all points within r(x) of x, for N real rows x and M synthetic rows y:

        precision = share of all y that lie in some B(x)              (Kynkaanniemi et al. 2019, eq. 1 and 2)
        recall    = share of all x that lie in some B(y)              (the same)
        density   = number of pairs (x, y) with y in B(x), / (k M)    (Naeem et al. 2020, section 3)
        coverage  = share of all x with some y in B(x)                (the same)

    Balls are closed, as in eq. 2 of Kynkaanniemi et al. Naeem et al. leave that open, and their program `prdc` takes
    open ones: it differs where a distance equals a radius, which only copies and repeated images bring about. The
    density of a set of copies of the real rows is 1 + 1 / k here.

    All four depend on k and on the numbers of rows; compare them at equal ones. The distances are Euclidean, in
    float64, on the device of `real`; memory grows with N + M, time with (N + M)^2. Ten thousand rows of each take
    about 15 seconds on one core with 128 features, two minutes with 2048.

    Args:
        real: features (N, F), at least k + 1 rows.
        synthetic: features (M, F), at least k + 1 rows.
        k: neighbors; 5 in Naeem et al., 3 in Kynkaanniemi et al.

    Raises:
        GenaugError: fewer rows, other shapes, different widths, values that are not finite, or a k below 1.

    >>> real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> synthetic = torch.tensor([[0.5], [1.0], [9.0]])
    >>> manifold_scores(real, synthetic, k=1)
    ManifoldScores(precision=0.6666666666666666, recall=1.0, density=1.6666666666666667, coverage=0.75)
    """
    real, synthetic = check_features(real=real, synthetic=synthetic)
    _check_k(k, rows=min(len(real), len(synthetic)) - 1)
    real_radii = nearest_neighbors(real, real, k=k, exclude_self=True)[0][:, -1]
    synthetic_radii = nearest_neighbors(synthetic, synthetic, k=k, exclude_self=True)[0][:, -1]
    precise = torch.zeros(len(synthetic), dtype=torch.bool, device=real.device)
    recalled = covered = pairs = 0
    for start, part, estimates, slack in _chunks(real, synthetic):
        radii = real_radii[start : start + len(part), None]
        in_real = _within(radii, part, synthetic, estimates, slack)
        precise |= in_real.any(0)
        pairs += int(in_real.sum())
        covered += int(in_real.any(1).sum())
        recalled += int(_within(synthetic_radii, part, synthetic, estimates, slack).any(1).sum())
    return ManifoldScores(
        precision=int(precise.sum()) / len(synthetic),
        recall=recalled / len(real),
        density=pairs / (k * len(synthetic)),
        coverage=covered / len(real),
    )


def nearest_neighbors(
    queries: Tensor, references: Tensor, *, k: int = 1, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the distances (N, k), float64, and rows (N, k), int64, of the k references nearest to each query.

    Nearest first; of references equally near any is taken. All pairs are compared, in Euclidean distance. A matrix
    product, which is fast and rounds small distances away, chooses candidates alone: that of a copy is exactly 0.
    Memory grows with N + M.

    Args:
        queries: features (N, F), at least 1 row.
        references: features (M, F), at least k rows; k + 1 with `exclude_self`.
        k: neighbors per query.
        exclude_self: query i is not compared with reference i; for the neighbors of a set within itself, passed twice.

    Raises:
        GenaugError: fewer rows, other shapes, different widths, values that are not finite, a k below 1, or
            `exclude_self` with unequal numbers of rows.

    >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    >>> distances, rows = nearest_neighbors(features, features, exclude_self=True)
    >>> distances.flatten().tolist(), rows.flatten().tolist()
    ([5.0, 1.0, 1.0], [1, 2, 1])
    """
    queries, references = check_features(queries=queries, references=references)
    if exclude_self and len(queries) != len(references):
        raise GenaugError(
            f"exclude_self needs as many queries as references, got {len(queries)} and {len(references)}; "
            "pass one set twice"
        )
    _check_k(k, rows=len(references) - exclude_self)
    found = []
    for start, part, estimates, slack in _chunks(queries, references):
        if exclude_self:
            estimates.diagonal(start).fill_(torch.inf)
        found.append(_nearest(part, references, estimates, slack, k=k))
    return torch.cat([distances for distances, _ in found]), torch.cat([rows for _, rows in found])


def check_features(**features: Tensor) -> list[Tensor]:
    """Return sets of features in float64, detached, on the device of the first; errors call them by their keywords.

    Raises:
        GenaugError: what is no tensor of floats (N, F), has no row or column, is not finite, or is not as wide as the
            first.

    >>> [rows.dtype for rows in check_features(train=torch.zeros(3, 2), test=torch.ones(1, 2))]
    [torch.float64, torch.float64]
    """
    first_name, first = next(iter(features.items()))
    for name, rows in features.items():
        if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
            got = f"{rows.dtype} {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise GenaugError(f"{name} must be a tensor of floats (N, F), got {got}; flatten features with .flatten(1)")
        if not rows.numel():
            raise GenaugError(f"{name} must have at least 1 row and 1 column, got {tuple(rows.shape)}; pass images")
        if not rows.isfinite().all():
            raise GenaugError(f"{name} must be finite, got NaN or infinite values; look for them in the images")
        if rows.shape[1] != first.shape[1]:
            raise GenaugError(
                f"{first_name} and {name} must be as wide, got {first.shape[1]} and {rows.shape[1]} features; "
                "take both from one extractor"
            )
    return [rows.detach().to(device=first.device, dtype=torch.float64) for rows in features.values()]


def _check_k(k: int, *, rows: int) -> None:
    if type(k) is not int or k < 1:
        raise GenaugError(f"k must be an integer of at least 1, got {shorten(k)}")
    if k > rows:
        raise GenaugError(f"k must be at most {rows}, the rows to choose from, got {k}; pass more images or lower k")


def _chunks(queries: Tensor, references: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield some queries after others: the number of the first, the queries (n, F), estimates (n, M), slack (n, M).

    The estimates are squared distances to the references by a matrix product, which are off by less than the slack:
    that of sums of F products in float64 (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1),
    with a factor to spare.
    """
    rows, width = references.shape
    center = references.mean(0)
    centered = references - center
    norms = centered.square().sum(1)
    start = 0
    for part in queries.split(max(1, CHUNK // max(rows, SPARE * width))):
        moved = part - center
        scale = moved.square().sum(1, keepdim=True) + norms
        yield start, part, torch.addmm(scale, moved, centered.T, alpha=-2), scale * (8 * (width + 8) * EPSILON)
        start += len(part)


def _nearest(part: Tensor, references: Tensor, estimates: Tensor, slack: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Return distances and rows of the k nearest references, certain in spite of the slack of the estimates."""
    count = min(k + SPARE, estimates.shape[1])
    near = estimates.topk(count, largest=False)
    exact = _distances(part[:, None], references[near.indices]).masked_fill_(near.values.isinf(), torch.inf)
    distances, places = exact.topk(k, largest=False)
    rows = near.indices.gather(1, places)
    unsure = (distances[:, -1].square() + 2 * slack.amax(1) >= near.values[:, -1]) & (distances[:, -1] > 0)
    if count < estimates.shape[1] and unsure.any():
        part, left_out = part[unsure], estimates[unsure].isinf()
        exact = torch.cdist(part, references, compute_mode="donot_use_mm_for_euclid_dist")
        rows[unsure] = exact.masked_fill_(left_out, torch.inf).topk(k, largest=False).indices
        distances[unsure] = _distances(part[:, None], references[rows[unsure]])
    return distances, rows


def _within(radii: Tensor, part: Tensor, references: Tensor, estimates: Tensor, slack: Tensor) -> Tensor:
    """Return which distances (n, M) are at most the radii, which broadcast to them, whatever the slack of estimates."""
    squares = radii.square().expand_as(estimates)
    inside = estimates <= squares
    close = ((estimates - squares).abs() <= slack).nonzero()
    for rows, columns in (some.T for some in close.split(max(1, CHUNK // part.shape[1]))):
        inside[rows, columns] = _distances(part[rows], references[columns]) <= radii.expand_as(estimates)[rows, columns]
    return inside


def _distances(one: Tensor, other: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(one - other, dim=-1)
    return distances
