"""Rivals and controls that an arm mixes in: exact counts and members, SMOTE beside the library's own, errors."""

import pickle
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genaug import DataSpec, MixedDataset, balance
from genaug.bank import SampleBank
from genaug.data import LabeledImages, load_data
from genaug.errors import DataError, GenaugError
from genaug.evaluate.makers import Noise, Replay, Reserve, Smote, interpolate
from genaug.seeding import derive_seed

CPU = torch.device("cpu")
HELD = [40, 30, 12, 9, 6, 3, 2, 1, 0, 20]  # of digits 0 to 9: one class of one image, one of none


@pytest.fixture(scope="module")
def train() -> LabeledImages:
    digits = load_data("digits")
    rows = [torch.nonzero(digits.labels == index).flatten()[:count] for index, count in enumerate(HELD)]
    return digits.subset(torch.cat(rows)[torch.randperm(sum(HELD), generator=torch.Generator().manual_seed(0))])


@pytest.fixture(scope="module")
def wanted(train) -> list[int]:
    return balance(train.counts, target=20)


def make(maker: Any, train: LabeledImages, counts: list[int], *, seed: int = 0) -> SampleBank:
    return maker(train, counts, seed=seed, device=CPU)


def by_class(bank: SampleBank, index: int) -> torch.Tensor:
    return bank.images(range(*bank.rows(index)))


def of_class(data: LabeledImages, index: int) -> torch.Tensor:
    return data.images[data.labels == index]


def tally(images: torch.Tensor) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in images)


@pytest.fixture(params=["replay", "smote", "reserve", "noise"])
def maker(request, train) -> Any:
    if request.param == "smote":
        pytest.importorskip("imblearn")
        return Smote()
    if request.param == "reserve":
        return Reserve(load_data("digits", split="test"))
    return {"replay": Replay(), "noise": Noise()}[request.param]


# --- what all have in common


def test_a_bank_has_what_is_wanted_and_says_where_it_is_from(maker, train, wanted) -> None:
    assert wanted == [0, 0, 8, 11, 14, 15, 10, 5, 0, 0]
    bank = make(maker, train, wanted, seed=3)
    assert (bank.counts, bank.path) == (wanted, None)
    assert (bank.spec, bank.provenance.seed, bank.provenance.source) == (train.spec, 3, repr(maker))
    assert bank.provenance.acceptance == tuple(1.0 if count else None for count in wanted)
    mixed = MixedDataset(train, bank, target=20)
    assert mixed.counts == [40, 30, 20, 20, 20, 18, 12, 6, 0, 20]


def test_samples_depend_on_the_seed_alone(maker, train, wanted) -> None:
    rows = range(sum(wanted))
    first, again = (make(maker, train, wanted, seed=1).images(rows) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, make(pickle.loads(pickle.dumps(maker)), train, wanted, seed=1).images(rows))
    assert not torch.equal(first, make(maker, train, wanted, seed=2).images(rows))


def test_a_class_does_not_depend_on_the_others(maker, train, wanted) -> None:
    alone = make(maker, train, [0, 0, 0, 11, 0, 0, 0, 0, 0, 0])
    assert torch.equal(alone.images(range(11)), by_class(make(maker, train, wanted), 3))


def test_the_size_is_that_of_the_images_where_the_specification_gives_none(maker, train, wanted) -> None:
    spec = replace(train.spec, height=None, width=None)
    anew = LabeledImages(train.images, train.labels, spec)
    if isinstance(maker, Reserve):
        maker = Reserve(LabeledImages(maker.images.images, maker.images.labels, spec))
    assert (make(maker, anew, wanted).spec.height, make(maker, anew, wanted).spec.width) == (8, 8)


def test_the_representation_is_plain(maker) -> None:
    text = repr(maker)
    assert not [part for part in ("\n", "tensor", "0x") if part in text]
    assert len(text) < 60


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([0] * 10, "counts must ask for at least one sample"),
        ([1] * 9, "one number for each of 10 classes, got 9"),
        ([-1] + [1] * 9, "counts must be integers of at least 0"),
    ],
)
def test_counts_that_do_not_fit(maker, train, counts, message) -> None:
    with pytest.raises(DataError, match=message):
        make(maker, train, counts)


def test_a_seed_that_is_no_integer(maker, train, wanted) -> None:
    with pytest.raises(GenaugError, match="seed must be an integer"):
        make(maker, train, wanted, seed=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("known", [Replay, Smote])
def test_nothing_can_be_made_of_a_class_without_images(known, train) -> None:
    if known is Smote:
        pytest.importorskip("imblearn")
    with pytest.raises(DataError, match=r"counts must be 0 for classes that train has no images of, .* \['8'\]"):
        make(known(), train, [0] * 8 + [2, 0])


# --- copies, a reserve, noise


def test_copies_are_whole_passes_and_a_part_of_another_one(train) -> None:
    counts = [0, 65, 12, 0, 13, 7, 0, 5, 0, 0]
    bank = make(Replay(), train, counts)
    for index, count in enumerate(counts):
        if not count:
            continue
        own = of_class(train, index)
        copies = tally(by_class(bank, index))
        assert copies.keys() <= tally(own).keys()
        whole, part = divmod(count, len(own))
        assert Counter(copies.values()) == Counter({whole: len(own) - part, whole + 1: part}) - Counter({0: 10**6})
    orders = by_class(bank, 1).split(30)
    assert not torch.equal(orders[0], orders[1])  # the next pass has an order of its own


def test_the_reserve_gives_each_image_once(train) -> None:
    pool = load_data("digits", split="test")
    counts = [0, 7, *pool.counts[2:4], 0, 0, 0, 0, 4, 0]
    bank = make(Reserve(pool), train, counts)
    for index in (1, 2, 3, 8):
        drawn, there = tally(by_class(bank, index)), tally(of_class(pool, index))
        assert drawn <= there
        assert index not in (2, 3) or drawn == there


def test_a_reserve_that_is_too_small_or_of_another_kind(train) -> None:
    pool = load_data("digits", split="test")
    few = Reserve(pool.subset(torch.nonzero(pool.labels == 3).flatten()[:4]))
    with pytest.raises(DataError, match=r"images must hold the 5 wanted of class '3', got 4; hold more"):
        make(few, train, [0, 0, 0, 5] + 6 * [0])
    others = LabeledImages(pool.images, pool.labels % 2, DataSpec(1, 8, 8, ("even", "odd")))
    with pytest.raises(DataError, match="images must be of the format and classes of train"):
        make(Reserve(others), train, [0, 0, 0, 5] + 6 * [0])


def test_noise_is_uniform(train) -> None:
    values = make(Noise(), train, [200] * 10).images(range(2000)).flatten().double()
    shares = torch.histc(values, bins=16, min=0, max=256) / len(values)
    assert (values.min(), values.max()) == (0, 255)
    # five standard deviations of a share of 1/16 among 128,000 values
    torch.testing.assert_close(shares, torch.full((16,), 1 / 16, dtype=torch.float64), atol=0.0034, rtol=0)


# --- SMOTE


def test_smote_is_that_of_the_library_on_all_classes_together(train) -> None:
    smote = pytest.importorskip("imblearn.over_sampling").SMOTE
    counts = [0, 0, 8, 11, 14, 0, 0, 0, 0, 6]
    bank = make(Smote(neighbors=3), train, counts, seed=7)
    points = train.images.flatten(1).numpy().astype(np.float32) / 255
    for index in (2, 3, 4, 9):
        sampler = smote(
            sampling_strategy={index: HELD[index] + counts[index]},
            k_neighbors=3,
            random_state=derive_seed(7, "smote", index) % 2**32,
        )
        grown, labels = sampler.fit_resample(points, train.labels.numpy())
        assert (labels[len(train) :] == index).all()
        expected = np.rint(grown[len(train) :] * 255).astype(np.uint8)
        assert np.array_equal(by_class(bank, index).flatten(1).numpy(), expected)


def distance_to_segments(point: np.ndarray, points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the largest difference of a pixel to the nearest point of each segment (n, m)."""
    start, way = points[:, None], ends - points[:, None]
    length = (way**2).sum(2)
    share = ((point - start) * way).sum(2) / np.where(length, length, 1)
    return np.abs(start + share.clip(0, 1)[..., None] * way - point).max(2)


def test_smote_lies_between_an_image_and_one_of_its_nearest(train) -> None:
    pytest.importorskip("imblearn")
    drawn = by_class(make(Smote(neighbors=2), train, [0, 0, 0, 40] + 6 * [0]), 3).flatten(1).numpy().astype(float)
    own = of_class(train, 3).flatten(1).numpy().astype(float)
    distances = ((own[:, None] - own[None]) ** 2).sum(2)
    nearest = distances.argsort(1, kind="stable")[:, 1:3]
    for point in drawn:
        # rounding to 8 bits moves a pixel by half a level, and the nearest point of the segment by less than as much
        assert distance_to_segments(point, own, own[nearest]).min() <= 1
    assert len(tally(torch.from_numpy(drawn))) == 40


def test_smote_of_few_images_takes_fewer_neighbors(train) -> None:
    pytest.importorskip("imblearn")
    pair = of_class(train, 6).flatten(1).numpy().astype(float)
    drawn = by_class(make(Smote(neighbors=5), train, [0, 0, 0, 0, 0, 0, 30, 0, 0, 0]), 6).flatten(1).numpy()
    for point in drawn.astype(float):
        assert distance_to_segments(point, pair[:1], pair[None, 1:]).min() <= 1
    assert len(tally(torch.from_numpy(drawn))) > 20


def test_smote_of_one_image_copies_it(train) -> None:
    pytest.importorskip("imblearn")
    drawn = by_class(make(Smote(), train, [0, 0, 0, 0, 0, 0, 0, 4, 0, 0]), 7)
    assert torch.equal(drawn, of_class(train, 7).repeat(4, 1, 1, 1))


def test_smote_of_the_only_class() -> None:
    pytest.importorskip("imblearn")
    points = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    drawn = interpolate(points, 50, neighbors=1, seed=derive_seed(0, "any"))
    assert (drawn.dtype, drawn.shape) == (np.float32, (50, 1))
    assert 0 <= drawn.min() < 1 < drawn.max() <= 2


@pytest.mark.parametrize("neighbors", [0, 2.0, True, None])
def test_neighbors_out_of_range(neighbors) -> None:
    with pytest.raises(GenaugError, match="neighbors must be an integer of at least 1, got"):
        Smote(neighbors=neighbors)


def test_without_the_library_its_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "imblearn", None)
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(GenaugError, match=r"SMOTE needs imbalanced-learn, .* pip install 'genaug\[imbalanced-learn\]'"):
        Smote()
