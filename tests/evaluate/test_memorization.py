"""The audit: copies are found and named, fresh real images are not; every figure is what its name says."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

import genaug
from genaug import DataError, DataSpec, GenaugError, SampleBank
from genaug.data import LabeledImages, load_data, stratified_split
from genaug.evaluate import ClassCopies, CopyAudit, CopyFigures, CopyPair, audit_copies, drawing, nearest
from genaug.evaluate.memorization import _excess_of_all
from genaug.evaluate.plots import plot_closest_pairs
from genaug.features import ClassifierFeatures, fit_features
from genaug.filters import NotACopy, copies
from genaug.metrics import data_copying_test, neighbors
from genaug.metrics.proportions import excess_interval


@pytest.fixture(scope="module")
def parts() -> list[LabeledImages]:
    """Three thirds of the digits: to train on, to hold out, and to deal as samples."""
    digits = load_data("digits", split="all")
    kept, rest = stratified_split(digits.labels, fraction=1 / 3, seed=1)
    pool = digits.subset(kept)
    return [*(pool.subset(rows) for rows in stratified_split(pool.labels, fraction=0.5, seed=0)), digits.subset(rest)]


@pytest.fixture(scope="module")
def features(parts: list[LabeledImages]) -> ClassifierFeatures:
    return fit_features(parts[0], seed=0, steps=120, device="cpu")


@pytest.fixture(scope="module")
def options(parts: list[LabeledImages], features: ClassifierFeatures) -> dict[str, Any]:
    return {"train": parts[0], "test": parts[1], "features": features, "samples": 55, "device": "cpu"}


def deal(data: LabeledImages, *, change: Any = None, spec: DataSpec | None = None) -> Any:
    """A source that gives the images of `data` by class, one after the other, and begins again at the end."""
    dealt = [0] * data.spec.num_classes
    own = [torch.nonzero(data.labels == label).flatten() for label in range(data.spec.num_classes)]

    def sample(labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        rows = []
        for label in labels.tolist():
            rows.append(int(own[label][dealt[label] % len(own[label])]))
            dealt[label] += 1
        images = data.images[rows]
        return images if change is None else change(images, labels)

    return SimpleNamespace(spec=spec or data.spec, sample=sample)


def flat(scale: float) -> Any:
    """Pixels as features."""
    return SimpleNamespace(
        name="flat", num_features=16, settings={}, extract=lambda images: images.flatten(1).float() / scale
    )


def jitter(images: Tensor, labels: Tensor) -> Tensor:
    noise = torch.randint(-2, 3, images.shape, generator=torch.Generator().manual_seed(0))
    noise[..., 0, 0] = 1  # so that none stays as it is
    return (images.int() + noise).abs().clamp(0, 255).to(torch.uint8)


# --- what it is for


@pytest.fixture(scope="module")
def copied(parts: list[LabeledImages], options: dict[str, Any]) -> CopyAudit:
    return audit_copies(deal(parts[0]), **options)


@pytest.fixture(scope="module")
def fresh(parts: list[LabeledImages], options: dict[str, Any]) -> CopyAudit:
    return audit_copies(deal(parts[2]), **options)


def test_copies_are_found(copied, parts):
    assert copied.overall.duplicates == copied.overall.samples == 550
    assert copied.spaces == ["classifier", "pixels"]
    for one in (copied.overall, *copied.classes):
        for found in one.figures.values():
            assert found.near_copies == 1
            assert found.distance_ratio == pytest.approx(0, abs=1e-3)
            assert found.statistic < -8
            assert found.verdict() == "more"
    assert copied.classes_above() == copied.classes_above(0.5) == parts[0].classes


def test_fresh_real_images_are_no_copies(fresh):
    assert fresh.overall.duplicates == 0
    assert fresh.classes_above() == []
    for found in fresh.overall.figures.values():
        assert found.excess_low < 0 < found.excess_high
        assert 0 < found.near_copies < 0.05
        assert abs(found.statistic) < 1  # the mean of ten z-scores has a deviation of about 0.3
        assert found.distance_ratio == pytest.approx(found.held_out_distance_ratio, rel=0.1)
        assert found.distance_ratio == pytest.approx(1, abs=0.2)


def test_a_class_that_is_copied_is_named(parts, options, copied, fresh):
    others, own = deal(parts[2]), deal(parts[0])

    def sample(labels: Tensor, **rest: Any) -> Tensor:
        mask = labels == 3
        images = others.sample(labels)
        images[mask] = own.sample(labels[mask])
        return images

    found = audit_copies(SimpleNamespace(spec=parts[0].spec, sample=sample), **options)
    assert found.classes_above() == ["3"]
    assert found.classes[3].duplicates == found.overall.duplicates == 55
    for space in found.spaces:
        assert found.classes[3].figures[space] == copied.classes[3].figures[space]
        assert found.overall.figures[space].worst_cell == copied.classes[3].figures[space].statistic
        assert [one for one in found.classes if one.name != "3"] == [one for one in fresh.classes if one.name != "3"]
    assert {pair.name for pair in found.pairs if not pair.held_out} == {"3"}
    assert "more than that in 3; at most" in found.sentences()[1]


def test_copies_with_a_little_noise_are_found(parts, options):
    found = audit_copies(deal(parts[0], change=jitter), **options)
    assert found.overall.duplicates == 0
    assert {figures.near_copies > 0.98 for figures in found.overall.figures.values()} == {True}
    assert found.classes_above() == parts[0].classes
    assert found.overall.figures["pixels"].statistic < -8


def test_copies_that_are_moved_show_in_features_and_not_in_pixels(parts, options):
    """Each space finds what the other may miss."""
    found = audit_copies(deal(parts[0], change=lambda images, labels: images.roll(1, 3)), **options)
    features, pixels = found.overall.figures.values()
    assert features.statistic < -1.5 < 5 < pixels.statistic
    assert features.distance_ratio < features.held_out_distance_ratio < 1.5 < pixels.distance_ratio


def test_images_that_a_classifier_takes_for_the_same_are_told_apart_in_pixels(parts, options):
    one_point = SimpleNamespace(
        name="blind", num_features=2, settings={"why": 1}, extract=lambda images: torch.ones(len(images), 2)
    )
    found = audit_copies(deal(parts[2]), **{**options, "features": one_point})
    assert found.features == {"name": "blind", "num_features": 2, "why": 1}
    blind, pixels = found.overall.figures.values()
    assert (blind.near_copies, blind.held_out_near_copies, blind.excess) == (1, 1, 0)
    assert blind.distance_ratio is None
    assert pixels.near_copies < 0.05
    json.dumps(found.to_dict(), allow_nan=False)


# --- each figure


def test_figures_agree_with_a_computation_of_their_own(fresh, parts, options):
    """In pixels, where nothing is learned."""
    train, test, others = ([part.images.flatten(1).double().numpy() / 255, part.labels.numpy()] for part in parts)
    samples = [np.concatenate([others[0][others[1] == label][:55] for label in range(10)]), np.arange(10).repeat(55)]

    def nearest_images(images: Any, *, itself: bool = False) -> tuple[Any, Any]:
        between = np.sqrt(((images[:, None] - train[0][None]) ** 2).mean(2))
        if itself:
            np.fill_diagonal(between, np.inf)
        return between.min(1), train[1][between.argmin(1)]

    among = nearest_images(train[0], itself=True)[0]
    common, radius = np.quantile(among, 0.01), np.zeros(10)
    for label in range(10):
        own = among[train[1] == label]
        radius[label] = (len(own) * np.quantile(own, 0.01) + 10 * common) / (len(own) + 10)
    (far, whose), (test_far, test_whose) = nearest_images(samples[0]), nearest_images(test[0])
    near, test_near = far <= radius[whose], test_far <= radius[test_whose]
    for label, one in enumerate(fresh.classes):
        found, own, theirs = one.figures["pixels"], samples[1] == label, test[1] == label
        assert (one.name, one.training, one.held_out, one.samples) == (
            str(label),
            int((train[1] == label).sum()),
            int(theirs.sum()),
            55,
        )
        assert found.radius == pytest.approx(radius[label], rel=1e-9)
        assert found.near_copies == pytest.approx(near[own].mean())
        assert found.held_out_near_copies == pytest.approx(test_near[theirs].mean())
        usual = np.median(among[train[1] == label])
        assert found.distance_ratio == pytest.approx(np.median(far[own]) / usual)
        assert found.held_out_distance_ratio == pytest.approx(np.median(test_far[theirs]) / usual)
        whole = [(255 * each).round() for each in (train[0], test[0][theirs], samples[0][own])]  # for exact ties
        rows = [torch.from_numpy(each) for each in whole]
        expected = data_copying_test(train=rows[0], test=rows[1], synthetic=rows[2], seed=0, cells=1)
        assert found.statistic == found.worst_cell == pytest.approx(expected.statistic)
    for name in ("near_copies", "held_out_near_copies", "distance_ratio"):
        values = [getattr(one.figures["pixels"], name) for one in fresh.classes]
        assert getattr(fresh.overall.figures["pixels"], name) == pytest.approx(np.mean(values))
    statistics = [one.figures["pixels"].statistic for one in fresh.classes]
    expected_mean = np.average(statistics, weights=parts[1].counts)
    assert fresh.overall.figures["pixels"].statistic == pytest.approx(expected_mean)
    pairs = [pair for pair in fresh.pairs if pair.space == "pixels" and not pair.held_out]
    order = np.argsort(far / radius[whose])[:12]
    assert [pair.number for pair in pairs] == order.tolist()
    assert [pair.relative for pair in pairs] == pytest.approx((far / radius[whose])[order].tolist())
    assert [pair.distance for pair in pairs] == pytest.approx(far[order].tolist())


def test_pairs_are_of_what_they_say(fresh, parts, features):
    train, test, _ = parts
    assert [(pair.space, pair.held_out) for pair in fresh.pairs[::12]] == [
        ("classifier", False),
        ("classifier", True),
        ("pixels", False),
        ("pixels", True),
    ]
    for pair in fresh.pairs:
        assert torch.equal(pair.training_image, train.images[pair.row])
        if pair.held_out:
            assert torch.equal(pair.image, test.images[pair.number])
            assert pair.name == str(int(test.labels[pair.number]))
        if pair.space == "pixels":
            apart = (pair.image.double() - pair.training_image.double()).square().mean().sqrt() / 255
        else:
            apart = (features.extract(pair.image[None]) - features.extract(pair.training_image[None])).norm()
        assert pair.distance == pytest.approx(float(apart), rel=1e-3)


def test_cells_of_a_class_show_where_it_is_copied():
    """Dark and bright images of one class; the bright ones are copied, the dark ones are fresh."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        bright = torch.randint(180, 256, (count, 1, 4, 4), generator=generator)
        dark = torch.randint(0, 76, (count, 1, 4, 4), generator=generator)
        return torch.cat([bright, dark]).to(torch.uint8)

    spec = DataSpec(1, 4, 4, ("a", "b"))
    train, test, others = (LabeledImages(draw(250), torch.zeros(500, dtype=torch.int64), spec) for _ in range(3))
    train = LabeledImages(torch.cat([train.images, draw(3)]), torch.arange(506) // 500, spec)
    pool = torch.cat([train.images[:250], others.images[250:]])
    source = deal(LabeledImages(torch.cat([pool, draw(1)]), torch.arange(502) // 500, spec))
    found = audit_copies(source, train=train, test=test, samples=500, features=flat(255), device="cpu").classes[0]
    for figures in found.figures.values():
        assert figures.worst_cell < -15
        rest = 2 * figures.statistic - figures.worst_cell  # both cells have half of the held-out images
        assert abs(rest) < 3
        assert figures.near_copies == pytest.approx(0.5, abs=0.02)


def test_held_out_classes_with_few_images_or_none(parts, options):
    _, test, others = parts
    counts = [0, 1, 5, *[60] * 7]
    rows = torch.cat([torch.nonzero(test.labels == label).flatten()[:n] for label, n in enumerate(counts)])
    found = audit_copies(deal(others), **{**options, "test": test.subset(rows)})
    first = found.classes[0].figures["pixels"]
    assert (first.held_out_near_copies, first.held_out_distance_ratio, first.statistic) == (None, None, None)
    pooled = test.subset(rows)
    expected = audit_copies(deal(others), **{**options, "test": pooled}).overall
    near = sum(
        one.figures["pixels"].held_out_near_copies * one.held_out for one in found.classes if one.held_out
    ) / len(pooled)
    assert first.excess == pytest.approx(first.near_copies - near)
    assert expected.held_out == len(rows)
    assert found.classes[1].verdict() == "open"
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_held_out_images_count_once():
    """Nine of ten classes without held-out images are compared with the same 40: their chance is one, not nine."""
    found, expected, shares = [(0, 10)] * 10, [(1, 40)] * 10, [0.1] * 10
    own = [True] + [False] * 9
    pooled = excess_interval([(0, 10), (0, 90)], [(1, 40)] * 2, weights=[0.1, 0.9])
    assert _excess_of_all(found, expected, shares, own) == pytest.approx(pooled)
    one, each = (_excess_of_all(found, expected, shares, there) for there in (own, [True] * 10))
    assert one[2] - one[1] > 1.1 * (each[2] - each[1])
    assert each == pytest.approx(excess_interval(found, expected, weights=shares))


def test_repeated_training_images_do_not_hide_copies(parts, options):
    twice = parts[0].subset([*range(100), *range(100)])
    names = [name for name, count in zip(twice.classes, twice.counts, strict=True) if count]
    assert names == twice.classes
    found = audit_copies(deal(twice), **{**options, "train": twice, "samples": 10})
    for figures in found.overall.figures.values():
        assert figures.near_copies == 1
        assert figures.distance_ratio is None or figures.distance_ratio < 0.1
    assert found.classes[0].figures["pixels"].radius == 0
    assert found.pairs[-1].relative == math.inf
    assert found.pairs[-1].to_dict()["relative"] is None
    json.dumps(found.to_dict(), allow_nan=False)


# --- banks


def test_a_bank_gives_its_own_samples(parts, options):
    bank = SampleBank.generate(deal(parts[0]), {"2": 40, "7": 30}, seed=0, progress=False)
    found = audit_copies(bank, **{**options, "samples": None})
    assert found.source == "SampleBank"
    assert [(one.name, one.samples, one.duplicates) for one in found.classes] == [("2", 40, 40), ("7", 30, 30)]
    assert found.classes_above() == ["2", "7"]
    some = audit_copies(bank, **{**options, "samples": 35})
    assert [one.samples for one in some.classes] == [35, 30]
    for pair in some.pairs:
        if not pair.held_out:
            assert torch.equal(pair.image, bank.images([pair.number])[0])
            assert pair.name == ("2" if pair.number < 40 else "7")
    everything = nearest.choose_samples(bank, samples=35, seed=0)[1]
    assert len(everything.unique()) == 65


def test_a_bank_that_was_filtered_for_copies_passes(parts, features, options):
    mixed = deal(
        LabeledImages(
            torch.cat([parts[0].images, parts[2].images]), torch.cat([parts[0].labels, parts[2].labels]), parts[0].spec
        )
    )
    bank = SampleBank.generate(mixed, 55, seed=0, filters=[NotACopy(features, parts[0])], progress=False)
    found = audit_copies(bank, **{**options, "samples": None})
    assert found.overall.figures["classifier"].near_copies == 0
    assert found.overall.duplicates == 0
    assert found.classes_above() == []


# --- what it depends on


def test_figures_depend_on_the_seed_alone(parts):
    model = genaug.load("digits-vae")
    options: dict[str, Any] = {"train": parts[0], "test": parts[1], "samples": 20, "classifier_steps": 3}
    first = audit_copies(model, seed=1, device="cpu", **options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(77)
        assert audit_copies(model, seed=1, device="cpu", **options).to_dict() == first.to_dict()
    assert first.features["steps"] == 3
    other = audit_copies(model, seed=2, device="cpu", **options)
    assert other.overall.figures["pixels"] != first.overall.figures["pixels"]


def test_sizes_of_chunks_change_nothing(parts, options, fresh, monkeypatch):
    monkeypatch.setattr(neighbors, "STORED_CHUNK", 100)
    for module in (nearest, drawing, copies):
        monkeypatch.setattr(module, "CHUNK", 37)
    found = audit_copies(deal(parts[2]), **options)
    for one, other in zip(found.classes, fresh.classes, strict=True):
        mine, theirs = (dataclasses.asdict(each.figures["pixels"]) for each in (one, other))
        assert mine == pytest.approx(theirs)
    assert [pair.row for pair in found.pairs[24:]] == [pair.row for pair in fresh.pairs[24:]]


def test_of_many_real_images_some_are_compared(parts, options, monkeypatch):
    monkeypatch.setattr(nearest, "MOST_COMPARED", 20)
    found = audit_copies(deal(parts[0]), **options)
    assert found.images == {
        "training": len(parts[0]),
        "held_out": len(parts[1]),
        "samples": 550,
        "training_compared": 200,
        "held_out_compared": 200,
    }
    assert found.overall.duplicates == 550  # samples are compared with all
    rows = nearest.choose_rows(parts[1], seed=0)
    assert parts[1].labels[rows].bincount().tolist() == [20] * 10
    assert len(rows.unique()) == 200


def test_progress_is_shown_where_asked_for(parts, options, capsys):
    source = deal(parts[2])
    audit_copies(source, **{**options, "samples": 5})
    assert capsys.readouterr() == ("", "")
    total = len(parts[0]) + len(parts[1]) + 50
    audit_copies(source, **{**options, "samples": 5}, progress=True)
    assert f"comparing {total}/{total}" in capsys.readouterr().err


def test_features_that_are_called_as_the_pixels_are_refused(parts, options) -> None:
    named = SimpleNamespace(**{**vars(flat(1)), "name": "pixels"})
    with pytest.raises(GenaugError, match="features must have another name than 'pixels'"):
        audit_copies(deal(parts[2]), **{**options, "features": named})


MEMORY = """
import torch
from pathlib import Path
from types import SimpleNamespace

from genaug import DataSpec
from genaug.data import LabeledImages
from genaug.evaluate import audit_copies
from genaug.workflows.timing import read_memory

spec = DataSpec(1, 4, 4, ("a", "b"))


def draw(count, seed):
    return torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def extract(images):
    return images.flatten(1).float()


def audit(train, test, samples):
    parts = [LabeledImages(draw(count, count), torch.arange(count) % 2, spec) for count in (train, test)]
    source = SimpleNamespace(spec=spec, sample=lambda labels, **options: draw(len(labels), 1))
    features = SimpleNamespace(name="flat", num_features=16, settings={}, extract=extract)
    audit_copies(source, train=parts[0], test=parts[1], samples=samples, features=features, device="cpu")


audit(800, 801, 400)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = read_memory()["VmRSS"]
audit(4_000, 2_000, 2_000)
print(read_memory()["VmHWM"] - before)
"""


def test_memory_stays_bounded() -> None:
    """All distances among 4,000 training images would take 122 MiB, those of 6,000 other ones to them 183 MiB."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell what the peak was")
    # in a process of its own, where nothing that other tests left behind is counted
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 20


# --- the verdict


def figures(found: tuple[int, int], expected: tuple[int, int]) -> CopyFigures:
    from genaug.metrics.proportions import excess_interval

    excess = excess_interval([found], [expected])
    return CopyFigures(0.1, found[0] / found[1], expected[0] / expected[1], *excess, 1.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("found", "expected", "verdict"),
    [
        ((0, 400), (0, 60), "at most"),
        ((0, 300), (0, 60), "open"),
        ((10, 1000), (10, 1000), "at most"),
        ((5, 500), (5, 500), "open"),
        ((30, 1000), (10, 1000), "open"),
        ((60, 1000), (10, 1000), "more"),
        ((500, 500), (0, 1), "more"),
        ((1, 1), (0, 1), "open"),
        ((300, 1000), (290, 1000), "open"),  # real images that are near each other are no copies
        ((500, 1000), (300, 1000), "more"),
    ],
)
def test_a_verdict_needs_enough_images(found, expected, verdict):
    assert figures(found, expected).verdict() == verdict


def test_one_space_is_enough_to_say_more_and_all_are_needed_to_say_at_most():
    more, open_, less = figures((60, 600), (0, 600)), figures((9, 600), (2, 600)), figures((0, 600), (0, 600))
    pairs = {(more, less): "more", (open_, less): "open", (less, less): "at most", (more, open_): "more"}
    for (one, other), verdict in pairs.items():
        assert ClassCopies("a", 5, 5, 600, 0, {"x": one, "pixels": other}).verdict() == verdict


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.01", None])
def test_a_share_that_is_none(share, fresh):
    for call in (fresh.classes_above, fresh.verdicts):
        with pytest.raises(GenaugError, match="share must be from 0 to 1, got"):
            call(share)


def test_shares_and_verdicts_agree_with_the_counts(fresh):
    assert set(fresh.verdicts(1).values()) == {"at most"}
    assert fresh.classes_above(1) == []
    for one in fresh.classes:
        own = one.figures["pixels"]
        upper = binomtest(round(own.near_copies * 55), 55).proportion_ci(0.95, "wilson").high
        assert own.excess_high >= upper - own.near_copies + own.excess - 1e-12  # the control adds to what is not known


def test_the_result_is_plain_json_and_words(copied, fresh):
    report = copied.to_dict(0.02)
    assert json.loads(json.dumps(report, allow_nan=False)) == json.loads(json.dumps(report))
    assert report["verdicts"] == {"allowed": 0.02, "classes": dict.fromkeys(map(str, range(10)), "more")}
    assert report["all"]["figures"]["pixels"]["near_copies"] == 1
    assert set(report["pairs"][0]) == {"space", "held_out", "name", "number", "row", "distance", "relative"}
    assert copied.sentences()[0] == "550 of 550 samples equal a training image in every pixel."
    assert fresh.sentences()[0] == "No sample equals a training image in every pixel."
    assert "more than that in no class" in fresh.sentences(0.5)[1]
    assert "Allowed: 50 % near copies" in fresh.sentences(0.5)[1]
    card = copied.to_markdown()
    assert "550 samples, 55 of each class, against the 600 training images" in card
    lines = [line for line in card.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 11
    assert {line.count("|") for line in lines} == {8}
    assert lines[2].startswith("| all | 100.0 % (")
    assert all(sentence in card for sentence in copied.sentences())


def test_of_many_classes_the_first_are_named(fresh, copied):
    many = [dataclasses.replace(copied.classes[0], name=f"c{number}") for number in range(30)]
    said = dataclasses.replace(fresh, classes=tuple(many)).sentences()[1]
    assert "more than that in c0, c1, " in said
    assert "c11 and 18 more; at most that in 0 of 30 classes." in said


def test_class_names_do_not_break_the_table(fresh):
    named = dataclasses.replace(fresh.classes[0], name="a|b\n## c")
    assert "| a\\|b ## c |" in dataclasses.replace(fresh, classes=(named,)).to_markdown()


# --- the picture


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_has_a_block_for_samples_and_held_out_images_in_each_space(channels, fresh, tmp_path):
    def recolor(pair: CopyPair) -> CopyPair:
        image, training_image = (one.repeat(channels, 2, 1) for one in (pair.image, pair.training_image))
        return dataclasses.replace(pair, image=image, training_image=training_image)

    pairs = tuple(recolor(pair) for pair in fresh.pairs)
    heights = []
    for name, kept in (("all", pairs), ("few", [pair for place, pair in enumerate(pairs) if place % 12 < 3])):
        plot_closest_pairs(dataclasses.replace(fresh, pairs=tuple(kept)), tmp_path / f"{name}.png")
        with PIL.Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            heights.append(picture.height)
            assert picture.width > 50 * len(kept) // 4
    assert min(heights) > 4 * 2 * 16


# --- refused, before anything is trained


def test_parts_and_sources_that_cannot_be_compared(parts, options, features):
    train, test, others = parts
    source = deal(others)
    with pytest.raises(DataError, match="train and test must not share images, got 10 shared"):
        audit_copies(source, **{**options, "test": train.subset(range(10))})
    with pytest.raises(DataError, match="test must hold at least one image, got none"):
        audit_copies(source, **{**options, "test": test.subset([])})
    with pytest.raises(DataError, match="train must hold at least two images to compare, got 1"):
        audit_copies(source, **{**options, "train": train.subset([0])})
    without = train.subset(torch.nonzero((train.labels != 6) & (train.labels != 8)).flatten())
    with pytest.raises(DataError, match=r"every class that source has samples of, got none of \['6', '8'\]"):
        audit_copies(source, **{**options, "train": without})
    bank = SampleBank.generate(source, {"5": 3}, seed=0, progress=False)
    assert audit_copies(bank, **{**options, "train": without}).overall.samples == 3  # which has none of these
    with pytest.raises(DataError, match="source must be a bank or a model that can sample"):
        audit_copies(object(), **options)
    larger = deal(others, spec=DataSpec(1, 9, 8, train.spec.class_names))
    with pytest.raises(DataError, match="source and train must have images of one size, got 1x9x8 and 1x8x8"):
        audit_copies(larger, **options)
    swapped = deal(others, spec=DataSpec(1, 8, 8, train.spec.class_names[::-1]))
    with pytest.raises(DataError, match="source and train must have the same classes in the same order"):
        audit_copies(swapped, **options)
    with pytest.raises(DataError, match="images of source must be as many as the labels"):
        audit_copies(deal(others, change=lambda images, labels: images[:1]), **options)
    wrong = dataclasses.replace(features, spec=DataSpec(1, 8, 8, train.spec.class_names[::-1]))
    with pytest.raises(DataError, match="features must be of the images in train"):
        audit_copies(source, **{**options, "features": wrong})


@pytest.mark.parametrize("name", ["samples", "classifier_steps"])
@pytest.mark.parametrize("value", [0, -1, 10.0, True])
def test_numbers_that_are_none(name, value, parts, options):
    with pytest.raises(GenaugError, match="steps must be|samples must be an integer of at least 1"):
        audit_copies(deal(parts[2]), **{**options, "features": None, name: value})


def test_a_seed_that_is_none(parts, options):
    with pytest.raises(GenaugError, match="seed must be an integer"):
        audit_copies(deal(parts[2]), **options, seed=0.5)
