"""The nearest of many stored rows, against a loop over all pairs."""

import math

import pytest
import torch

from genaug.metrics import neighbors
from genaug.metrics.neighbors import nearest_rows


@pytest.mark.parametrize("chunk", [1, 7, 8192])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_distances_and_rows_are_those_of_a_loop(chunk, dtype, monkeypatch):
    monkeypatch.setattr(neighbors, "STORED_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    references, queries = (torch.randint(0, 9, (rows, 3), generator=generator).to(dtype) for rows in (60, 40))
    distances, rows = (found[:, 0] for found in nearest_rows(queries, references))
    for query, distance, row in zip(queries.tolist(), distances.tolist(), rows.tolist(), strict=True):
        every = [math.dist(query, reference) for reference in references.tolist()]
        assert distance == pytest.approx(min(every), abs=1e-12)
        assert every[row] == min(every)


@pytest.mark.parametrize("chunk", [2, 8192])
def test_stored_rows_are_not_their_own_neighbors(chunk, monkeypatch):
    monkeypatch.setattr(neighbors, "STORED_CHUNK", chunk)
    rows = torch.tensor([[0.0], [10.0], [10.0], [13.0]])
    chosen = torch.tensor([3, 0, 2])
    distances, nearest = (found[:, 0] for found in nearest_rows(rows[chosen], rows, exclude=chosen))
    assert distances.tolist() == [3, 10, 0]
    assert nearest.tolist()[2] == 1
    assert nearest_rows(rows[:1], rows[:1], exclude=torch.tensor([0]))[0].tolist() == [[math.inf]]


def test_copies_are_at_no_distance_wherever_they_lie():
    generator = torch.Generator().manual_seed(0)
    rows = 1e6 + torch.rand(200, 30, generator=generator, dtype=torch.float64)
    distances, nearest = nearest_rows(rows, rows)
    assert not distances.any()
    assert torch.equal(nearest[:, 0], torch.arange(200))


@pytest.mark.parametrize("chunk", [3, 16, 8192])
def test_of_references_equally_near_the_first_are_taken_whatever_the_chunks(chunk, monkeypatch):
    """Up to 8 more than are asked for: pixels repeat."""
    monkeypatch.setattr(neighbors, "STORED_CHUNK", chunk)
    rows = (torch.arange(60) % 10)[:, None].to(torch.uint8)
    distances, nearest = nearest_rows(rows[:10] + 0.0, rows, k=3)
    assert not distances.any()
    assert torch.equal(nearest, torch.arange(10)[:, None] + torch.tensor([0, 10, 20]))
