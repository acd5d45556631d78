"""Nearest neighbors against sorting all pairs; precision, recall, density and coverage against `prdc` and by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genaug import GenaugError
from genaug.metrics import ManifoldScores, manifold, manifold_scores, nearest_neighbors, neighbors


def draw(rows: int, width: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) + shift


def clusters(rows: int, width: int, *, seed: int, count: int) -> Tensor:
    """Of the same centers whatever the seed and count are."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.randint(count, (rows,), generator=generator)
    return draw(20, width, seed=1000, scale=5.0)[cluster] + draw(rows, width, seed=seed, scale=0.3)


def all_pairs(queries: Tensor, references: Tensor) -> Tensor:
    return (queries[:, None].double() - references[None].double()).square().sum(2).sqrt()


# --- nearest neighbors


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(2, 20), st.integers(1, 6), st.data())
def test_neighbors_are_those_of_sorting_all_pairs(rows, others, width, data):
    k = data.draw(st.integers(1, others))
    queries, references = draw(rows, width, seed=rows), draw(others, width, seed=100 + others)
    distances, indices = nearest_neighbors(queries, references, k=k)
    expected = all_pairs(queries, references).sort(1)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected.indices[:, :k])
    torch.testing.assert_close(distances, expected.values[:, :k], rtol=1e-12, atol=0)


def test_neighbors_within_a_set_leave_out_the_row_itself_but_not_its_copies():
    features = torch.tensor([[0.0], [5.0], [5.0], [7.0]])
    distances, indices = nearest_neighbors(features, features, k=2, exclude_self=True)
    assert distances.tolist() == [[5.0, 5.0], [0.0, 2.0], [0.0, 2.0], [2.0, 2.0]]
    assert indices[1:3].tolist() == [[2, 3], [1, 3]]
    assert nearest_neighbors(features, features)[0].flatten().tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [1, 7, 29, 30, 31, 64, 10**6])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_the_size_of_chunks_does_not_matter(monkeypatch, size, exclude_self):
    """Also where a row of distances is larger than a chunk."""
    features, synthetic = draw(30, 3, seed=0), draw(17, 3, seed=1)
    expected = nearest_neighbors(features, features, k=4, exclude_self=exclude_self)
    scores = manifold_scores(features, synthetic, k=2)
    monkeypatch.setattr(neighbors, "CHUNK", size)
    monkeypatch.setattr(manifold, "CHUNK", size)
    found = nearest_neighbors(features, features, k=4, exclude_self=exclude_self)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert manifold_scores(features, synthetic, k=2) == scores


def test_distances_of_more_pairs_than_a_chunk_are_never_held_at_once(monkeypatch):
    monkeypatch.setattr(neighbors, "CHUNK", 100)
    sizes = []
    addmm = torch.addmm

    def count(*args: Any, **options: Any) -> Tensor:
        found = addmm(*args, **options)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(torch, "addmm", count)
    manifold_scores(draw(30, 3, seed=0), draw(17, 3, seed=1), k=2)
    assert sum(sizes) == 30 * 30 + 17 * 17 + 30 * 17
    assert max(sizes) <= 100


def test_small_distances_far_from_the_origin_are_exact():
    """The matrix product would lose them: |x|^2 + |y|^2 - 2 x.y is all rounding here."""
    queries = draw(40, 16, seed=0).round() + 2.0**30
    step = torch.zeros(16, dtype=torch.float64)
    step[3] = 2.0**-20
    assert (nearest_neighbors(queries, queries)[0] == 0).all()
    assert (nearest_neighbors(queries + step, queries)[0] == 2.0**-20).all()


def tight(rows: int, *, seed: int) -> Tensor:
    """Clusters far apart, of rows so near to each other that a matrix product tells them from no other."""
    generator = torch.Generator().manual_seed(seed)
    places = 1e3 * draw(3, 5, seed=0)[torch.randint(3, (rows,), generator=generator)]
    return places + 1e-9 * torch.randint(-4, 5, (rows, 5), generator=generator).double()


@pytest.mark.parametrize("k", [1, 4, 15])
def test_ties_and_near_ties_are_decided_by_exact_distances(k):
    one, other = tight(90, seed=1), torch.cat([tight(70, seed=2), tight(90, seed=1)[:20]])
    within, across = all_pairs(one, one), all_pairs(one, other)
    distances, rows = nearest_neighbors(one, other, k=k)
    torch.testing.assert_close(distances, across.sort(1).values[:, :k], rtol=1e-12, atol=0)
    torch.testing.assert_close(across.gather(1, rows), distances, rtol=1e-12, atol=0)
    assert (nearest_neighbors(one, one)[0] == 0).all()
    radii = within.fill_diagonal_(torch.inf).sort(1).values[:, k - 1, None]
    other_radii = all_pairs(other, other).fill_diagonal_(torch.inf).sort(1).values[:, k - 1]
    inside = across <= radii * (1 + 1e-12)  # a tie stays one
    assert manifold_scores(one, other, k=k) == ManifoldScores(
        precision=float(inside.any(0).double().mean()),
        recall=float((across <= other_radii * (1 + 1e-12)).any(1).double().mean()),
        density=int(inside.sum()) / (k * 90),
        coverage=float(inside.any(1).double().mean()),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_distances_are_in_float64_whatever_the_features_are(dtype):
    one, other = draw(20, 4, seed=0).to(dtype), draw(20, 4, seed=1).to(dtype)
    distances = nearest_neighbors(one, other)[0]
    assert distances.dtype == torch.float64
    assert torch.equal(distances, nearest_neighbors(one.double(), other.double())[0])
    assert manifold_scores(one, other) == manifold_scores(one.double(), other.double())


def test_features_that_need_a_gradient():
    one, other = draw(20, 4, seed=0).requires_grad_(), draw(20, 4, seed=1)
    assert not nearest_neighbors(one, other)[0].requires_grad
    assert manifold_scores(one, other) == manifold_scores(one.detach(), other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_neighbors_and_scores_on_a_gpu_are_those_on_the_cpu():
    one, other = draw(60, 8, seed=0), draw(50, 8, seed=1)
    distances, indices = nearest_neighbors(one.cuda(), other.cuda(), k=3)
    expected = nearest_neighbors(one, other, k=3)
    assert distances.device.type == "cuda"
    assert torch.equal(indices.cpu(), expected[1])
    torch.testing.assert_close(distances.cpu(), expected[0], rtol=1e-12, atol=0)
    assert manifold_scores(one.cuda(), other.cuda()) == manifold_scores(one, other)


# --- precision, recall, density and coverage


CASES = {
    "same": (draw(120, 8, seed=0), draw(100, 8, seed=1)),
    "one-dimensional": (draw(60, 1, seed=2), draw(90, 1, seed=3)),
    "narrower": (draw(100, 4, seed=4), draw(100, 4, seed=5, scale=0.5)),
    "wider": (draw(100, 4, seed=6), draw(80, 4, seed=7, scale=2.0)),
    "shifted": (draw(100, 4, seed=8), draw(100, 4, seed=9, shift=1.0)),
    "clusters": (clusters(120, 6, seed=10, count=6), clusters(90, 6, seed=11, count=6)),
    "a-cluster-missing": (clusters(120, 6, seed=12, count=6), clusters(90, 6, seed=13, count=3)),
    "few": (draw(13, 3, seed=14), draw(12, 3, seed=15)),
}


@pytest.mark.parametrize("k", [1, 3, 5, 10])
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_authors_program(name, k):
    prdc = pytest.importorskip("prdc")
    real, synthetic = CASES[name]
    expected = prdc.compute_prdc(real_features=real.numpy(), fake_features=synthetic.numpy(), nearest_k=k)
    found = manifold_scores(real, synthetic, k=k)
    assert vars(found) == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-12)


def test_scores_of_cases_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [6.0]])
    # k = 2: real balls [-3, 3], [-1, 3], [0, 6], [1, 11]; synthetic ones [-2, 6], [0, 6], [2, 10].
    near = torch.tensor([[2.0], [3.0], [6.0]])
    assert manifold_scores(real, near, k=2) == ManifoldScores(1.0, 1.0, density=(4 + 4 + 2) / 6, coverage=1.0)
    # k = 1: real balls [-1, 1], [0, 2], [1, 5], [3, 9]; synthetic ones [1, 3], [2, 4], [3, 117].
    far = torch.tensor([[2.0], [3.0], [60.0]])
    assert manifold_scores(real, far, k=1) == ManifoldScores(2 / 3, 3 / 4, density=(2 + 2) / 3, coverage=3 / 4)


@pytest.mark.parametrize("k", [1, 5, 49])
def test_a_set_and_its_copy(k):
    """Each ball holds its own row and, being closed, its k neighbors."""
    features = draw(50, 8, seed=0)
    expected = ManifoldScores(precision=1.0, recall=1.0, density=(k + 1) / k, coverage=1.0)
    assert manifold_scores(features, features.flip(0), k=k) == expected


def test_sets_far_away_score_zero():
    features = draw(50, 8, seed=0)
    assert manifold_scores(features, features + 1000.0) == ManifoldScores(0.0, 0.0, 0.0, 0.0)


def test_copies_of_repeated_images_count():
    """Their balls have no extent, but are closed."""
    real = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    assert manifold_scores(real, real.clone(), k=1) == ManifoldScores(1.0, 1.0, 2.0, 1.0)
    assert manifold_scores(real, real + 0.001, k=1) == ManifoldScores(0.0, 0.0, 0.0, 0.0)


def test_modes_that_are_missing_lower_recall_and_modes_made_up_lower_precision():
    some, more = clusters(200, 6, seed=0, count=3), clusters(200, 6, seed=1, count=6)
    dropped, invented = manifold_scores(more, some), manifold_scores(some, more)
    assert dropped.precision > 0.9 > 0.6 > dropped.recall
    assert dropped.coverage < 0.6
    assert invented.recall > 0.9 > 0.6 > invented.precision
    assert invented.density < 0.6


def test_density_of_one_distribution_is_one_on_average():
    values = [manifold_scores(draw(60, 3, seed=2 * s), draw(60, 3, seed=2 * s + 1)).density for s in range(60)]
    mean = torch.tensor(values)
    assert abs(mean.mean() - 1) < 4 * mean.std() / 60**0.5


# --- errors


@pytest.mark.parametrize("function", [nearest_neighbors, manifold_scores])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda features: features[:0], ["at least 1 row", "(0, 4)"]),
        (lambda features: features[:, :0], ["at least 1 row and 1 column", "(20, 0)"]),
        (lambda features: features[:, :3], ["must be as wide", "3", "4"]),
        (lambda features: features[:, :, None], ["must be a tensor of floats (N, F)", "(20, 4, 1)"]),
        (lambda features: features.long(), ["must be a tensor of floats", "int64"]),
        (lambda features: features.tolist(), ["must be a tensor of floats", "list"]),
        (lambda features: features / 0, ["must be finite"]),
        (lambda features: features * float("nan"), ["must be finite"]),
    ],
    ids=["no-row", "no-column", "narrow", "three-dimensional", "integers", "list", "infinite", "nan"],
)
def test_features_that_are_refused(function: Callable[..., Any], change, words):
    features = draw(20, 4, seed=0)
    names = ("queries", "references") if function is nearest_neighbors else ("real", "synthetic")
    for pair, name in (((change(features), features), names[0]), ((features, change(features)), names[1])):
        with pytest.raises(GenaugError) as caught:
            function(*pair)
        for word in (name, *words):
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "k", "words"),
    [
        ((20, 5), 5, "k must be at most 4, the rows to choose from, got 5"),
        ((5, 20), 5, "k must be at most 4, the rows to choose from, got 5"),
        ((20, 1), 1, "k must be at most 0"),
        ((20, 20), 0, "k must be an integer of at least 1, got 0"),
        ((20, 20), 2.0, "k must be an integer of at least 1, got 2.0"),
        ((20, 20), True, "k must be an integer of at least 1, got True"),
    ],
)
def test_neighbors_that_are_refused(rows, k, words):
    with pytest.raises(GenaugError, match=words):
        manifold_scores(draw(rows[0], 4, seed=0), draw(rows[1], 4, seed=1), k=k)


def test_neighbors_of_too_few_references():
    features = draw(5, 4, seed=0)
    assert nearest_neighbors(features, features, k=5)[0].shape == (5, 5)
    assert nearest_neighbors(features, features, k=4, exclude_self=True)[0].shape == (5, 4)
    with pytest.raises(GenaugError, match="k must be at most 5"):
        nearest_neighbors(features, features, k=6)
    with pytest.raises(GenaugError, match="k must be at most 4"):
        nearest_neighbors(features, features, k=5, exclude_self=True)
    with pytest.raises(GenaugError, match="as many queries as references, got 3 and 5"):
        nearest_neighbors(features[:3], features, exclude_self=True)
