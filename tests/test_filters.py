"""Filters: every verdict against a computation of its own, in any batch and order, and what is refused."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import genaug
from genaug import DataError, DataSpec, GenaugError, RefreshingBank, SampleBank
from genaug.data import LabeledImages, load_data
from genaug.features import ClassifierFeatures, fit_features
from genaug.filters import (
    ClassifierAgreement,
    DiscriminatorRejection,
    NotACopy,
    PrototypeBand,
    SampleFilter,
)
from genaug.filters.base import class_quantiles
from genaug.images import to_uint8
from genaug.metrics import neighbors
from genaug.models import GAN, GANConfig

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ROUNDING = 1e-4  # how far rounding moves a distance between batches of other sizes


@pytest.fixture(scope="module")
def train_part() -> LabeledImages:
    return load_data("digits")


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test")


@pytest.fixture(scope="module", params=DEVICES)
def features(request: pytest.FixtureRequest, train_part: LabeledImages) -> ClassifierFeatures:
    return fit_features(train_part, seed=0, steps=150, device=request.param)


@pytest.fixture(scope="module")
def scarce_part(train_part: LabeledImages) -> LabeledImages:
    """All images of classes 0 to 5, four of class 6, two of class 7, one of class 8 and none of class 9."""
    keep = dict(zip(range(10), [1000] * 6 + [4, 2, 1, 0], strict=True))
    rows = [np.flatnonzero(train_part.labels.numpy() == index)[:count] for index, count in keep.items()]
    return train_part.subset(np.concatenate(rows).tolist())


@pytest.fixture(scope="module")
def model() -> Any:
    return genaug.load("digits-vae", device="cpu")


@pytest.fixture(scope="module")
def samples(model: Any) -> tuple[Tensor, Tensor]:
    """Samples of a model, and images of noise among them, in mixed order."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(10, (400,), generator=generator)
    images = (model.sample(labels, generator=generator) * 255).round().to(torch.uint8)
    images[::10] = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return images, labels


def contrast(images: Tensor, labels: Tensor) -> Tensor:
    """Mean difference of neighboring pixels, which is lower in samples of a VAE than in real images."""
    return images.float().diff(dim=3).abs().mean((1, 2, 3))


class Bright(SampleFilter):
    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert len(images) <= 256
        return images.float().mean((1, 2, 3)) > 127


def all_filters(features: ClassifierFeatures, data: LabeledImages, model: Any, held_out: LabeledImages) -> list[Any]:
    return [
        ClassifierAgreement(features, margin=0.2),
        PrototypeBand(features, data),
        NotACopy(features, data),
        DiscriminatorRejection(contrast, model, held_out=held_out, seed=0, burn_in=100),
    ]


# --- what all do


def gray_levels(levels: list[int]) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)


def test_many_images_are_judged_in_chunks() -> None:
    bright = Bright(DataSpec(1, 4, 4, ("a",)))
    levels = [index % 256 for index in range(1000)]
    mask = bright(gray_levels(levels), torch.zeros(1000, dtype=torch.int64))
    assert mask.tolist() == [level > 127 for level in levels]


def test_images_of_floats_are_judged_as_the_uint8_ones_that_they_round_to() -> None:
    bright = Bright(DataSpec(1, 4, 4, ("a",)))
    levels = gray_levels([127, 128])
    assert bright(levels.float() / 255, torch.zeros(2, dtype=torch.int64)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), "must have 1 channels"),
        (torch.zeros(2, 1, 5, 4), torch.zeros(2).long(), "of size 1x4x4"),
        (torch.zeros(1, 4, 4), torch.zeros(1).long(), r"shape \(n, C, H, W\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(1).long(), "as many as images"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 2]), "from 0 to 1"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), "int64"),
    ],
)
def test_images_and_labels_of_another_kind(images: Tensor, labels: Tensor, message: str) -> None:
    bright = Bright(DataSpec(1, 4, 4, ("a", "b")))
    with pytest.raises(DataError, match=message):
        bright(images, labels)


def test_classes_must_have_names() -> None:
    with pytest.raises(DataError, match="spec must have class names"):
        Bright(DataSpec(1, 4, 4))


def test_verdicts_do_not_depend_on_batches_or_order(features, train_part, test_part, model, samples) -> None:
    images, labels = (part.clone() for part in samples)
    images[1], labels[1] = train_part.images[0], train_part.labels[0]  # whatever the features, this is a copy
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    for check in all_filters(features, train_part, model, test_part):
        whole = check(images, labels)
        assert 0 < int(whole.sum()) < len(whole)
        assert (whole.dtype, whole.device.type) == (torch.bool, "cpu")
        pieces = torch.cat([check(images[at : at + 7], labels[at : at + 7]) for at in range(0, len(labels), 7)])
        # none of these samples is as near to a bound as rounding goes; see the tests of the bounds
        assert torch.equal(pieces, whole)
        assert torch.equal(check(images[order], labels[order]), whole[order])
        assert torch.equal(check(images.float() / 255, labels), whole)
        assert check(images[:0], labels[:0]).shape == (0,)


def test_filters_can_be_pickled(features, train_part, test_part, samples) -> None:
    images, labels = samples
    for check in all_filters(features, train_part, genaug.load("digits-vae", device="cpu"), test_part)[:3]:
        assert torch.equal(pickle.loads(pickle.dumps(check))(images, labels), check(images, labels))


# --- quantiles of classes with few values


@pytest.mark.parametrize("shrinkage", [0.0, 3.0, 1e6])
def test_quantiles_of_classes(shrinkage: float) -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(5, 60, p=[0.5, 0.3, 0.15, 0.05, 0])
    labels[:2] = [3, 0]
    values = generator.normal(size=60) + labels
    found = class_quantiles(
        torch.tensor(values), torch.tensor(labels), num_classes=5, quantiles=[0.1, 0.8], shrinkage=shrinkage
    )
    assert found.shape == (2, 5)
    for row, quantile in zip(found.tolist(), (0.1, 0.8), strict=True):
        common = np.quantile(values, quantile)
        assert row[4] == pytest.approx(common)
        for index in range(4):
            own = values[labels == index]
            expected = (len(own) * np.quantile(own, quantile) + shrinkage * common) / (len(own) + shrinkage)
            assert row[index] == pytest.approx(expected)


# --- agreement of the classifier


@pytest.mark.parametrize("margin", [-0.9, 0.0, 0.3, 0.95])
def test_agreement_is_the_lead_of_the_own_class(features, samples, margin) -> None:
    images, labels = samples
    agreement = ClassifierAgreement(features, margin=margin)
    with torch.no_grad():
        logits = features.net(images.to(features.net.head.weight.device)).cpu().double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    leads = [own[label] - np.delete(own, label).max() for own, label in zip(shares, labels.tolist(), strict=True)]
    mask = agreement(images, labels)
    assert mask.tolist() == [lead >= margin for lead in leads]
    assert 0 < int(mask.sum()) < len(mask)


def test_agreement_without_margin_is_that_of_the_best_class(features, samples) -> None:
    images, labels = samples
    expected = features.classify(features.extract(images)) == labels
    assert torch.equal(ClassifierAgreement(features)(images, labels), expected)


def test_real_images_agree_and_those_with_wrong_labels_do_not(features, test_part) -> None:
    agreement = ClassifierAgreement(features)
    assert float(agreement(test_part.images, test_part.labels).double().mean()) > 0.95
    assert float(agreement(test_part.images, (test_part.labels + 1) % 10).double().mean()) < 0.05


@pytest.mark.parametrize("margin", [1.1, -2, float("nan"), float("inf"), "0.5", None, True])
def test_a_margin_that_is_none(features, margin) -> None:
    with pytest.raises(GenaugError, match="margin must be from -1 to 1, got"):
        ClassifierAgreement(features, margin=margin)


# --- the band around prototypes


def leave_one_out(found: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[list[float], list[int]]:
    """Distances from images to the mean of the others of their class, where there are others."""
    distances, classes = [], []
    for row, label in enumerate(labels):
        others = [other for other in np.flatnonzero(labels == label) if other != row]
        if others:
            distances.append(float(np.linalg.norm(found[row] - found[others].mean(0))))
            classes.append(int(label))
    return distances, classes


@pytest.mark.parametrize(("lower", "upper", "shrinkage"), [(0.05, 0.95, 10.0), (0.2, 0.6, 0.0), (0, 1, 3)])
def test_the_band_is_that_of_real_images(features, scarce_part, samples, lower, upper, shrinkage) -> None:
    band = PrototypeBand(features, scarce_part, lower=lower, upper=upper, shrinkage=shrinkage)
    found, labels = features.extract(scarce_part.images).double().numpy(), scarce_part.labels.numpy()
    distances, classes = map(np.array, leave_one_out(found, labels))
    common = np.quantile(distances, [lower, upper])
    images, wanted = samples[0][samples[1] < 9], samples[1][samples[1] < 9]
    bounds = []
    for index in range(9):
        own = distances[classes == index]
        quantiles = np.quantile(own, [lower, upper]) if len(own) else np.zeros(2)
        total = len(own) + shrinkage
        bounds.append((len(own) * quantiles + shrinkage * common) / total if total else common)
    low, high = np.array(bounds).T
    assert np.allclose(band.low[:9], low, atol=ROUNDING)
    assert np.allclose(band.high[:9], high, atol=ROUNDING)
    prototypes = np.array([found[labels == index].mean(0) for index in range(9)])
    drawn = np.linalg.norm(features.extract(images).double().numpy() - prototypes[wanted], axis=1)
    near = np.minimum(np.abs(drawn - low[wanted]), np.abs(drawn - high[wanted])) < ROUNDING
    assert near.mean() < 0.05
    expected = (low[wanted] <= drawn) & (drawn <= high[wanted])
    assert np.array_equal(band(images, wanted).numpy()[~near], expected[~near])
    if lower > 0:  # both sides reject some
        assert (drawn < low[wanted]).any()
        assert (drawn > high[wanted]).any()


def test_the_band_accepts_about_as_many_real_images_as_asked_for(features, test_part) -> None:
    band = PrototypeBand(features, test_part, lower=0.1, upper=0.7, shrinkage=0)
    found, labels = features.extract(test_part.images).double().numpy(), test_part.labels.numpy()
    distances, classes = map(np.array, leave_one_out(found, labels))  # as far as new images of these classes are
    inside = (band.low.numpy()[classes] <= distances) & (distances <= band.high.numpy()[classes])
    rates = np.bincount(classes, inside) / np.bincount(classes)
    assert rates == pytest.approx(np.full(10, 0.6), abs=0.03)


def test_a_class_of_one_image_has_the_common_band(features, scarce_part) -> None:
    band = PrototypeBand(features, scarce_part)
    found, labels = features.extract(scarce_part.images).double().numpy(), scarce_part.labels.numpy()
    common = np.quantile(leave_one_out(found, labels)[0], [0.05, 0.95])
    assert [float(band.low[8]), float(band.high[8])] == pytest.approx(common.tolist(), abs=ROUNDING)


def test_a_class_without_real_images_cannot_be_judged(features, scarce_part, test_part) -> None:
    band = PrototypeBand(features, scarce_part)
    with pytest.raises(DataError, match=r"data must have images of every class that is judged, got none of \['9'\]"):
        band(test_part.images, test_part.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lower": -0.1}, "lower must be from 0 to 1"),
        ({"upper": 1.1}, "upper must be from 0 to 1"),
        ({"lower": 0.5, "upper": 0.5}, "lower must be below upper, got 0.5 and 0.5"),
        ({"lower": "0.1"}, "lower must be from 0 to 1, got '0.1'"),
        ({"shrinkage": -1}, "shrinkage must be a finite number of at least 0"),
        ({"shrinkage": float("inf")}, "shrinkage must be a finite number"),
        ({"shrinkage": float("nan")}, "shrinkage must be a finite number"),
    ],
)
def test_a_band_that_is_none(features, scarce_part, options, message) -> None:
    with pytest.raises(GenaugError, match=message):
        PrototypeBand(features, scarce_part, **options)


def test_data_that_the_features_do_not_fit(features, train_part) -> None:
    spec = DataSpec(1, 8, 8, tuple("abcdefghij"))
    other = LabeledImages(train_part.images, train_part.labels, spec)
    one = train_part.subset([int((train_part.labels == index).nonzero()[0]) for index in range(10)])
    for make in (PrototypeBand, NotACopy):
        with pytest.raises(DataError, match="features must be of the images in data"):
            make(features, other)
        with pytest.raises(DataError, match="data must hold at least two images"):
            make(features, train_part.subset([]))
    with pytest.raises(DataError, match="two images of one class, got at most 1"):
        PrototypeBand(features, one)
    with pytest.raises(DataError, match="at least two images to compare, got 1"):
        NotACopy(features, one.subset([3]))


# --- copies


@pytest.mark.parametrize("stored_chunk", [100, 8192])
@pytest.mark.parametrize(("quantile", "shrinkage"), [(0.01, 10.0), (0.5, 0.0)])
def test_copies_are_nearer_than_real_images_are(
    features, scarce_part, samples, quantile, shrinkage, stored_chunk, monkeypatch
) -> None:
    monkeypatch.setattr(neighbors, "STORED_CHUNK", stored_chunk)
    copies = NotACopy(features, scarce_part, quantile=quantile, shrinkage=shrinkage)
    found, labels = features.extract(scarce_part.images).double().numpy(), scarce_part.labels.numpy()
    between = np.sqrt(((found[:, None] - found[None]) ** 2).sum(2))
    np.fill_diagonal(between, np.inf)
    nearest = between.min(1)
    common = np.quantile(nearest, quantile)
    radius = np.full(10, common)
    for index in range(9):
        own = nearest[labels == index]
        radius[index] = (len(own) * np.quantile(own, quantile) + shrinkage * common) / (len(own) + shrinkage)
    assert np.allclose(copies.radius, radius, atol=ROUNDING)
    images = torch.cat([samples[0], (scarce_part.images[::20].int() + 3).clamp(max=255).to(torch.uint8)])
    wanted = torch.arange(len(images)) % 10
    distances = np.sqrt(((features.extract(images).double().numpy()[:, None] - found[None]) ** 2).sum(2))
    limits = radius[labels[distances.argmin(1)]]
    near = np.abs(distances.min(1) - limits) < ROUNDING
    assert near.mean() < 0.05
    expected = distances.min(1) > limits
    assert not expected.all()
    assert np.array_equal(copies(images, wanted).numpy()[~near], expected[~near])


def test_copies_are_rejected_whatever_their_label_and_batch(features, train_part) -> None:
    copies = NotACopy(features, train_part, quantile=0, shrinkage=0)
    assert not copies(train_part.images, (train_part.labels + 3) % 10).any()
    assert not any(copies(train_part.images[row : row + 1], train_part.labels[row : row + 1]) for row in range(30))
    changed = train_part.images.clone()
    changed[:, 0, 3, 3] = (changed[:, 0, 3, 3].int() - 1).clamp(min=0).to(torch.uint8)  # by one level of 256
    assert float(copies(changed, train_part.labels).double().mean()) < 0.01


def test_a_duplicate_among_the_real_images_does_not_let_copies_through(features, train_part) -> None:
    twice = train_part.subset([*range(50), *range(50)])
    copies = NotACopy(features, twice)
    assert float(copies.radius.min()) > 0
    assert not copies(twice.images, twice.labels).any()


def test_new_real_images_are_no_copies(features, train_part, test_part) -> None:
    copies = NotACopy(features, train_part)
    assert 0.95 < float(copies(test_part.images, test_part.labels).double().mean()) < 1


@pytest.mark.parametrize("quantile", [-0.1, 1.5, None])
def test_a_quantile_that_is_none(features, train_part, quantile) -> None:
    with pytest.raises(GenaugError, match="quantile must be from 0 to 1, got"):
        NotACopy(features, train_part, quantile=quantile)


def test_memory_stays_bounded() -> None:
    """All 20,000 x 20,000 distances would take 1.5 GiB, and all images at once in the network 318 MiB."""
    script = """
import resource, torch
from pathlib import Path
from genaug import DataSpec
from genaug.data import LabeledImages
from genaug.features import fit_features
from genaug.filters import ClassifierAgreement, NotACopy, PrototypeBand

def part(count, seed):
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return LabeledImages(images, torch.arange(count) % 2, DataSpec(1, 8, 8, ("a", "b")))

data, small = part(20_000, 0), part(600, 1)
features = fit_features(small, seed=0, steps=2, device="cpu")
for make in (ClassifierAgreement, lambda *kind: PrototypeBand(*kind, small), lambda *kind: NotACopy(*kind, small)):
    make(features)(small.images, small.labels)
heap = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, ((heap + 128 * 1024) * 1024,) * 2)
for check in (ClassifierAgreement(features), PrototypeBand(features, data), NotACopy(features, data)):
    check(data.images, data.labels)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# --- rejection with a discriminator


LEVELS = 8  # of the first pixel, the only one that tells real images from samples
REAL_SHARES = np.array([1, 2, 3, 4, 5, 6, 7, 8]) / 36  # of real images; samples have all levels equally often
LOG_RATIOS = torch.tensor(np.log(REAL_SHARES * LEVELS))
TOY = DataSpec(1, 4, 4, ("a", "b"))


def toy_images(levels: Tensor, generator: torch.Generator) -> Tensor:
    images = torch.randint(0, 256, (len(levels), 1, 4, 4), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = levels.to(torch.uint8)
    return images


def toy_sample(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    return toy_images(torch.randint(LEVELS, labels.shape, generator=generator), generator)


TOY_SOURCE = SimpleNamespace(spec=TOY, sample=toy_sample)


def toy_real(count: int = 4000, *, share: float = 0.5) -> LabeledImages:
    """Real images, of which a `share` is of the second class."""
    generator = torch.Generator().manual_seed(11)
    levels = torch.multinomial(torch.tensor(REAL_SHARES), count, replacement=True, generator=generator)
    labels = (torch.rand(count, generator=generator) < share).long()
    return LabeledImages(toy_images(levels, generator), labels, TOY)


def toy_score(images: Tensor, labels: Tensor) -> Tensor:
    """Three times the true log ratio, and 2: as a discriminator that is too sure of itself."""
    return 3 * LOG_RATIOS[images[:, 0, 0, 0].long()] + 2


@pytest.fixture(scope="module")
def toy() -> DiscriminatorRejection:
    return DiscriminatorRejection(toy_score, TOY_SOURCE, held_out=toy_real(), seed=3, burn_in=2000)


def test_calibration_finds_the_true_ratio(toy) -> None:
    assert toy.slope == pytest.approx(1 / 3, rel=0.1)
    assert toy.offset == pytest.approx(float(LOG_RATIOS.mean()), abs=0.1)
    assert toy.centers.tolist() == pytest.approx([3 * float(LOG_RATIOS.mean()) + 2] * 2, abs=0.2)


def test_calibration_does_not_depend_on_levels_and_shares_of_the_classes(toy) -> None:
    """Samples are drawn equally often of each class, held-out images are not; the classes' scores differ by 60."""

    def score(images: Tensor, labels: Tensor) -> Tensor:
        return toy_score(images, labels) + 60 * labels

    for share in (0.5, 0.05):
        check = DiscriminatorRejection(score, TOY_SOURCE, held_out=toy_real(share=share), seed=3, burn_in=2000)
        assert check.slope == pytest.approx(toy.slope, rel=0.1)
        assert check.offset == pytest.approx(toy.offset, abs=0.1)
        assert check.centers.tolist() == pytest.approx((toy.centers + torch.tensor([0, 60])).tolist(), rel=1e-5)
        assert check.gamma.tolist() == pytest.approx(toy.gamma.tolist(), abs=0.2)


def test_calibration_is_that_of_logistic_regression(toy) -> None:
    """Of scikit-learn, which takes soft targets as two rows with weights."""
    real = toy_real()
    drawn = [toy._score_source(TOY_SOURCE, index, 2000, 3).numpy() for index in (0, 1)]
    centers = np.array([scores.mean() for scores in drawn])
    assert toy.centers.tolist() == pytest.approx(centers.tolist())
    of_real = toy_score(real.images, real.labels).numpy() - centers[real.labels]
    scores = np.concatenate([of_real, *(own - center for own, center in zip(drawn, centers, strict=True))])
    weights = np.concatenate([np.ones(4000), *(np.full(2000, count / 2000) for count in real.counts)])
    targets = np.concatenate([np.full(4000, 4001 / 4002), np.full(4000, 1 / 4002)])
    line = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        np.tile(scores, 2)[:, None],
        np.repeat([1, 0], 8000),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    assert toy.slope == pytest.approx(float(line.coef_[0, 0]), rel=1e-3)
    assert toy.offset == pytest.approx(float(line.intercept_[0]), abs=1e-3)


@pytest.mark.parametrize("percentile", [0, 50, 80.0, 100])
def test_probabilities_are_those_of_the_paper(percentile) -> None:
    check = DiscriminatorRejection(
        toy_score, TOY_SOURCE, held_out=toy_real(), seed=3, burn_in=300, percentile=percentile
    )
    for index in (0, 1):
        scores = check._score_source(TOY_SOURCE, index, 300, 3).numpy()
        logits = check.slope * (scores - scores.mean()) + check.offset
        highest = logits.max()
        below = np.minimum(logits, highest) - highest
        values = below - np.log(1 - np.exp(below - 1e-6))
        assert float(check.highest[index]) == pytest.approx(highest)
        assert float(check.gamma[index]) == pytest.approx(np.percentile(values, percentile), rel=1e-6)
    images = toy_images(torch.arange(LEVELS), torch.Generator().manual_seed(0))
    labels = torch.ones(LEVELS, dtype=torch.int64)
    logits = check.slope * (3 * LOG_RATIOS.numpy() + 2 - float(check.centers[1])) + check.offset
    below = logits - float(check.highest[1])
    expected = expit(below - np.log(1 - np.exp(below - 1e-6)) - float(check.gamma[1]))
    assert np.allclose(check.probabilities(images, labels), expected, rtol=1e-6)
    assert (np.diff(expected) > 0).all()


def test_the_coin_falls_as_often_as_it_should(toy) -> None:
    generator = torch.Generator().manual_seed(2)
    levels = torch.randint(LEVELS, (8000,), generator=generator)
    images, labels = toy_images(levels, generator), torch.zeros(8000, dtype=torch.int64)
    mask = toy(images, labels)
    probabilities = torch.cat([toy.probabilities(part, labels[:250]) for part in images.split(250)])
    for level in range(LEVELS):
        own = levels == level
        deviation = float((probabilities[own] * (1 - probabilities[own])).mean() / int(own.sum())) ** 0.5
        assert abs(float(mask[own].double().mean() - probabilities[own].mean())) < 4 * deviation + 1e-9


def test_without_gamma_kept_samples_are_as_real_images_are() -> None:
    """The level in the middle has half the greatest ratio, so that F is 0; the shares of samples were all the same."""
    check = DiscriminatorRejection(toy_score, TOY_SOURCE, held_out=toy_real(), seed=3, burn_in=2000, percentile=44)
    assert check.gamma.tolist() == pytest.approx([0, 0], abs=0.15)
    images = toy_sample(torch.zeros(20_000).long(), generator=torch.Generator().manual_seed(4))
    kept = images[check(images, torch.zeros(20_000, dtype=torch.int64)), 0, 0, 0]
    shares = np.bincount(kept.numpy(), minlength=LEVELS) / len(kept)
    assert shares == pytest.approx(REAL_SHARES, abs=0.025)


def test_the_coin_depends_on_seed_pixels_and_label(toy) -> None:
    images = toy_sample(torch.zeros(500).long(), generator=torch.Generator().manual_seed(4))
    labels = torch.zeros(500, dtype=torch.int64)
    again = DiscriminatorRejection(toy_score, TOY_SOURCE, held_out=toy_real(), seed=3, burn_in=2000)
    assert (again.slope, again.offset) == (toy.slope, toy.offset)
    assert torch.equal(again(images, labels), toy(images, labels))
    tosses = [toy._toss(image.numpy().tobytes(), 0) for image in images]
    assert len(set(tosses)) == 500
    assert all(0 <= toss < 1 for toss in tosses)
    assert np.mean(tosses) == pytest.approx(0.5, abs=0.05)
    assert tosses != [toy._toss(image.numpy().tobytes(), 1) for image in images]
    other = DiscriminatorRejection(toy_score, TOY_SOURCE, held_out=toy_real(), seed=4, burn_in=2000)
    assert tosses != [other._toss(image.numpy().tobytes(), 0) for image in images]


def test_scores_that_tell_all_images_apart_can_be_calibrated() -> None:
    def sample(labels: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.zeros(len(labels), 1, 4, 4)

    def score(images: Tensor, labels: Tensor) -> Tensor:
        return images.float().mean((1, 2, 3))

    source = SimpleNamespace(spec=TOY, sample=sample)
    ones = LabeledImages(torch.full((50, 1, 4, 4), 255, dtype=torch.uint8), torch.arange(50) % 2, TOY)
    check = DiscriminatorRejection(score, source, held_out=ones, seed=0, burn_in=20)
    assert np.isfinite([check.slope, check.offset]).all()
    assert check.probabilities(ones.images, ones.labels) == pytest.approx(np.full(50, 0.5))  # all count as the highest


class Discriminator(nn.Module):
    """A network whose output is another one in training mode."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1, device=device))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        assert images.device == labels.device == self.scale.device
        assert not self.training
        return contrast(images, labels) * self.scale


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_runs_where_it_is_and_in_evaluation_mode(device, model, test_part, samples) -> None:
    net = Discriminator(device).train()
    check = DiscriminatorRejection(net, model, held_out=test_part, seed=0, burn_in=50)
    mask = check(*samples)
    assert net.training
    plain = DiscriminatorRejection(
        lambda images, labels: contrast(images, labels) * 0.1, model, held_out=test_part, seed=0, burn_in=50
    )
    assert torch.equal(mask, plain(*samples))
    assert not check.probabilities(*(part[:5] for part in samples)).requires_grad


@pytest.fixture(scope="module")
def gan(train_part) -> GAN:
    """A GAN whose generator has not learned anything, and whose discriminator somewhat."""
    config = GANConfig(width=4, discriminator_width=4, latent_dim=4, style_dim=8, minibatch_std=0)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GAN(train_part.spec, config)
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=3e-3)
    for _ in range(20):
        rows = torch.randint(len(train_part), (32,), generator=generator)
        draws = model.draw_for_training(32, generator=generator)
        losses, _ = model.training_loss(train_part.images[rows], train_part.labels[rows], draws)
        optimizer.zero_grad()
        losses["discriminator"].backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("device", DEVICES)
def test_the_discriminator_of_a_gan_judges_its_samples(device, gan, test_part) -> None:
    model = copy.deepcopy(gan).to(device).train()
    check = DiscriminatorRejection(model, model, held_out=test_part, seed=0, burn_in=60)
    plain = DiscriminatorRejection(
        lambda images, labels: model.discriminate(images, labels), model, held_out=test_part, seed=0, burn_in=60
    )
    bank = SampleBank.generate(model, 8, seed=1, filters=[check], progress=False)
    (rates,) = (one.rates for one in bank.provenance.filter_acceptance)
    assert all(0 < rate < 1 for rate in rates)
    images, labels = bank.images(range(80)), bank.labels
    assert plain(images, labels).all()
    assert check(images, labels).all()
    assert check(images.flip(0), labels.flip(0)).all()  # each image is judged alone
    assert model.training
    for index in range(10):  # the likelier a sample is to be kept, the higher its logit
        labels = torch.full((40,), index)
        own = to_uint8(model.sample(labels, generator=torch.Generator().manual_seed(index))).cpu()
        logits = model.discriminate(own, labels).cpu()
        assert (check.probabilities(own, labels)[logits.argsort()].diff() >= -1e-6).all()


def test_a_score_that_is_no_discriminator(model, test_part) -> None:
    with pytest.raises(GenaugError, match="discriminate: vae cannot do this; it can: sample"):
        DiscriminatorRejection(model, model, held_out=test_part, seed=0)
    with pytest.raises(GenaugError, match="score must be a model that can discriminate, or a function .* got 3"):
        DiscriminatorRejection(3, model, held_out=test_part, seed=0)


def test_a_bank_as_source_may_lack_classes(model, test_part) -> None:
    bank = SampleBank.generate(model, {"3": 60, "5": 60}, seed=0, progress=False)
    check = DiscriminatorRejection(contrast, bank, held_out=test_part, seed=0, burn_in=50)
    assert SampleBank.generate(bank, {"3": 5, "5": 5}, seed=0, filters=[check], progress=False).counts[3] == 5
    with pytest.raises(DataError, match=r"source must have images of every class that is judged, got none of \['4'\]"):
        check(test_part.images[:1], torch.tensor([4]))
    others = test_part.subset((test_part.labels == 4).nonzero().flatten())
    with pytest.raises(DataError, match="held_out must hold images of the classes that source has samples of"):
        DiscriminatorRejection(contrast, bank, held_out=others, seed=0, burn_in=50)


def test_a_gan_as_source_may_lack_classes(gan, train_part, test_part) -> None:
    model = copy.deepcopy(gan)
    model.fit_after_training(train_part.images, train_part.labels, rows=(train_part.labels != 4).nonzero().flatten())
    check = DiscriminatorRejection(model, model, held_out=test_part, seed=0, burn_in=30)
    with pytest.raises(DataError, match=r"source must have images of every class that is judged, got none of \['4'\]"):
        check(test_part.images[:1], torch.tensor([4]))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            lambda images, labels: contrast(images, labels)[:, None],
            "score must return a floating point tensor of shape",
        ),
        (lambda images, labels: labels, "score must return a floating point tensor .* got torch.int64"),
        (lambda images, labels: contrast(images, labels).tolist(), "score must return a floating point .* got list"),
        (lambda images, labels: contrast(images, labels) / 0, "score must return finite logits"),
        (lambda images, labels: -contrast(images, labels), "score must be higher on held-out real images"),
        (lambda images, labels: torch.zeros(len(images)), "score must be higher on held-out real images"),
    ],
)
def test_scores_that_cannot_be_used(score, message, model, test_part) -> None:
    with pytest.raises(DataError, match=message):
        DiscriminatorRejection(score, model, held_out=test_part, seed=0, burn_in=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"burn_in": 1}, "burn_in must be an integer of at least 2, got 1"),
        ({"burn_in": 9.0}, "burn_in must be an integer"),
        ({"percentile": 101}, "percentile must be from 0 to 100"),
        ({"percentile": None}, "percentile must be from 0 to 100"),
        ({"seed": "a"}, "seed must be an integer"),
        ({"device": "cuda:99"}, "device: cuda:99 cannot be used"),
    ],
)
def test_options_that_cannot_be_used(options, message, model, test_part) -> None:
    with pytest.raises(GenaugError, match=message):
        DiscriminatorRejection(contrast, model, **{"held_out": test_part, "seed": 0, "burn_in": 5, **options})


def test_sources_that_cannot_be_used(model, test_part) -> None:
    with pytest.raises(DataError, match="source must be a bank or a model"):
        DiscriminatorRejection(contrast, object(), held_out=test_part, seed=0)
    with pytest.raises(DataError, match="held_out must have the classes of source in the same order"):
        DiscriminatorRejection(contrast, model, held_out=toy_real(10), seed=0)


# --- in banks


def test_a_bank_holds_what_all_filters_accept(features, train_part, test_part, model, tmp_path: Path) -> None:
    filters = all_filters(features, train_part, model, test_part)
    wanted = {"1": 40, "8": 20}
    bank = SampleBank.generate(model, wanted, seed=0, filters=filters, path=tmp_path / "bank", progress=False)
    rates = [one.rates for one in bank.provenance.filter_acceptance]
    images = bank.images(range(len(bank)))
    assert len(bank) == 60
    for check in filters:
        assert check(images, bank.labels).all()
    for index in range(10):
        common = bank.provenance.acceptance[index]
        own = [rate[index] for rate in rates]
        if common is None:
            assert own == [None] * 4
        else:
            assert sum(own) - 3 - 1e-9 <= common <= min(own)
            assert min(own) < 1
    assert bank.provenance.filters == ("ClassifierAgreement", "PrototypeBand", "NotACopy", "DiscriminatorRejection")
    again = SampleBank.generate(model, wanted, seed=0, filters=filters[::-1], progress=False)
    assert torch.equal(again.images(range(60)), images)
    larger = SampleBank.generate(model, {"1": 70, "8": 20}, seed=0, filters=filters, progress=False)
    assert torch.equal(larger.images(range(40)), images[:40])


def test_a_bank_that_is_refreshed_takes_filters(features, model, tmp_path: Path) -> None:
    agreement = ClassifierAgreement(features)
    bank = RefreshingBank.generate(model, 10, seed=0, filters=[agreement], path=tmp_path / "bank", progress=False)
    bank.refresh()
    bank.swap()
    assert bank.version == 1
    assert agreement(bank.images(range(100)), bank.labels).all()


def test_a_class_that_a_filter_does_not_know_is_refused_before_any_sample_is_drawn(
    features, scarce_part, model
) -> None:
    drawn = []

    def sample(labels: Tensor, *, generator: torch.Generator) -> Tensor:
        drawn.append(len(labels))
        return model.sample(labels, generator=generator)

    source, band = SimpleNamespace(spec=model.spec, sample=sample), PrototypeBand(features, scarce_part)
    with pytest.raises(DataError, match=r"got none of \['9'\]"):
        SampleBank.generate(source, 2, seed=0, filters=[band], progress=False)
    assert not drawn
    bank = SampleBank.generate(source, [2] * 9 + [0], seed=0, filters=[band], progress=False)
    assert bank.counts == [2] * 9 + [0]


def test_filters_of_other_classes_are_refused(features, model) -> None:
    source = SimpleNamespace(spec=DataSpec(1, 8, 8, tuple("9876543210")), sample=model.sample)
    with pytest.raises(DataError, match="filters must know the classes of source in the same order"):
        SampleBank.generate(source, 1, seed=0, filters=[ClassifierAgreement(features)], progress=False)


def test_numbers_of_numpy_are_taken(features, train_part) -> None:
    assert ClassifierAgreement(features, margin=np.float32(0.25)).margin == 0.25
    PrototypeBand(features, train_part, shrinkage=np.int64(10))
