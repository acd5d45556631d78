"""Nearest neighbors by exact distances, in bounded memory: among features, or the pixels of a data set."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genaug.errors import GenaugError, check_count

CHUNK = 2**22  # numbers held at once, 32 MiB
STORED_CHUNK = 8192  # references that are compared at once
SPARE = 8  # candidates beyond the nearest k
EPSILON = torch.finfo(torch.float64).eps


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
    check_k(k, rows=len(references) - exclude_self)
    return nearest_rows(queries, references, k=k, exclude=torch.arange(len(queries)) if exclude_self else None)


def nearest_rows(
    queries: Tensor, references: Tensor, *, k: int = 1, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `nearest_neighbors` does, of rows of any dtype, such as the pixels of a data set; unchecked.

    Args:
        queries: (N, F), on the device to compute on; the CPU takes over from others than CUDA, which lack float64.
        references: (M, F), on any device; some of them at a time are taken to float64.
        k: neighbors per query.
        exclude: row of the reference (N,) that each query is not compared with, for those that are references
            themselves; where no other is left, the distance is infinite.

    >>> rows = torch.tensor([[0, 0], [3, 4], [3, 5]])
    >>> nearest_rows(rows[2:], rows, exclude=torch.tensor([2]))
    (tensor([[1.]], dtype=torch.float64), tensor([[1]]))
    """
    queries = queries if queries.is_cuda else queries.cpu()
    shape = len(queries), k
    best = torch.full(shape, torch.inf, dtype=torch.float64, device=queries.device)
    rows = torch.zeros(shape, dtype=torch.int64, device=queries.device)
    for block in compare(queries, references, candidates=k + SPARE):
        own, columns, part, stored, estimates, slack = block
        if exclude is not None:
            places = exclude[own].to(queries.device) - columns.start
            inside = ((places >= 0) & (places < len(stored))).nonzero()[:, 0]
            estimates[inside, places[inside]] = torch.inf
        count = min(k + SPARE, len(stored))
        near = estimates.topk(count, largest=False).indices.sort().values
        values = estimates.gather(1, near)
        found = distances(part[:, None], stored[near]).masked_fill_(values.isinf(), torch.inf)
        least = torch.cat([best[own], found], 1).kthvalue(k).values
        unsure = (least.square() + 2 * slack[:, 0] >= values.amax(1)) & (least > 0)
        if count < len(stored) and unsure.any():
            every = torch.cdist(part[unsure], stored, compute_mode="donot_use_mm_for_euclid_dist")
            every.masked_fill_(estimates[unsure].isinf(), torch.inf)
            near[unsure] = every.topk(count, largest=False).indices.sort().values
            found[unsure] = distances(part[unsure][:, None], stored[near[unsure]])
        best[own], order = (each[:, :k] for each in torch.cat([best[own], found], 1).sort(dim=1, stable=True))
        rows[own] = torch.cat([rows[own], near + columns.start], 1).gather(1, order)
    return best, rows


class Block(NamedTuple):
    """Some queries (n, F), some references (m, F), which these are, and about what their squared distances are.

    The estimates (n, m), by a matrix product, are off by less than the slack (n, 1): that of sums of F products in
    float64 (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1), with a factor to spare.
    """

    rows: slice
    columns: slice
    queries: Tensor
    references: Tensor
    estimates: Tensor
    slack: Tensor


def compare(queries: Tensor, references: Tensor, *, candidates: int = 1) -> Iterator[Block]:
    """Yield blocks of all pairs, in float64 on the device of the queries, with room for `candidates` of each query."""
    width = references.shape[1]
    size = max(1, min(STORED_CHUNK, CHUNK // width))
    count = max(1, CHUNK // max(min(size, len(references)), candidates * width))
    for start in range(0, len(references), size):
        stored = references[start : start + size].detach().to(queries.device, torch.float64)
        center = stored.mean(0)
        centered = stored - center
        norms = centered.square().sum(1)
        for first in range(0, len(queries), count):
            part = queries[first : first + count].detach().to(torch.float64)
            moved = part - center
            own = moved.square().sum(1, keepdim=True)
            yield Block(
                rows=slice(first, first + len(part)),
                columns=slice(start, start + len(stored)),
                queries=part,
                references=stored,
                estimates=torch.addmm(norms, moved, centered.T, alpha=-2).add_(own),
                slack=(own + norms.max()) * (8 * (width + 8) * EPSILON),
            )


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the Euclidean distances between rows (..., F) of one and the other, which are exact for copies."""
    found: Tensor = torch.linalg.vector_norm(one - other, dim=-1)
    return found


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


def check_k(k: int, *, rows: int) -> None:
    """Raise a `GenaugError` unless `k` is an integer from 1 to the number of `rows` to choose from."""
    check_count(k, name="k")
    if k > rows:
        raise GenaugError(f"k must be at most {rows}, the rows to choose from, got {k}; pass more images or lower k")
