"""Nearest neighbors among many stored rows, such as the pixels of a data set, in bounded memory."""

import torch
from torch import Tensor

STORED_CHUNK = 8192  # rows that are compared at once


def nearest_rows(
    queries: Tensor, references: Tensor, *, exclude: Tensor | None = None, chunk: int = STORED_CHUNK
) -> tuple[Tensor, Tensor]:
    """Return the distance (N,), float64, of each query to the nearest reference, and the row (N,), int64, of that one.

    For many references, of any dtype, such as the pixels of a data set: they are compared in chunks, by matrix
    products. The row is therefore only the nearest up to rounding (1e-8 of the length of the rows), whole numbers
    aside; its distance is exact, and that of a copy is 0.

    Args:
        queries: (N, F), on the device to compute on, which must have float64.
        references: (M, F).
        exclude: row of the reference (N,) that each query is not compared with, for those that are references
            themselves; with a single reference the distance is then infinite.
        chunk: references that are compared at once; N x `chunk` distances and `chunk` rows are held in float64.

    >>> rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    >>> nearest_rows(torch.tensor([[0.0, 1.0], [3.0, 5.0]]), rows)
    (tensor([1., 0.], dtype=torch.float64), tensor([0, 2]))
    >>> nearest_rows(rows[2:], rows, exclude=torch.tensor([2]))
    (tensor([1.], dtype=torch.float64), tensor([1]))
    """
    queries = queries.detach().to(torch.float64)
    best = queries.new_full((len(queries),), torch.inf)
    rows = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), chunk):
        part = references[start : start + chunk].detach().to(queries.device, torch.float64)
        distances = torch.cdist(queries, part)
        if exclude is not None:
            places = exclude.to(queries.device) - start
            inside = (places >= 0) & (places < len(part))
            distances[inside.nonzero()[:, 0], places[inside]] = torch.inf
        least, places = distances.min(1)
        exact = torch.linalg.vector_norm(queries - part[places], dim=1).masked_fill_(least.isinf(), torch.inf)
        rows = torch.where(exact < best, places + start, rows)
        best = torch.minimum(best, exact)
    return best, rows
