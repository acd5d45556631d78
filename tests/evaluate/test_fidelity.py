"""Fidelity: noise is worse than a model and a model than real images; and every figure is what its name says."""

import functools
import json
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
import scipy.linalg
import torch
from torch import Tensor

import genaug
from genaug import DataError, DataSpec, GenaugError, SampleBank
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.errors import DataWarning
from genaug.evaluate import ClassMean, Distance, measure_fidelity
from genaug.evaluate.drawing import choose_labels, draw_samples, keep_shares, match_rows
from genaug.evaluate.plots import plot_fidelity
from genaug.features import ClassifierFeatures, fit_features
from genaug.metrics import frechet_distance, kernel_distance
from genaug.models import VAE, Model, VAEConfig

measure = functools.partial(measure_fidelity, accuracy_score=False)


@pytest.fixture(scope="module")
def train_part() -> LabeledImages:
    return load_data("digits")


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test")


@pytest.fixture(scope="module")
def features(train_part: LabeledImages) -> ClassifierFeatures:
    return fit_features(train_part, seed=0, steps=250, device="cpu")


@pytest.fixture(scope="module")
def digits_vae() -> Model:
    return genaug.load("digits-vae")


@pytest.fixture(scope="module")
def result(features: ClassifierFeatures, train_part: LabeledImages, test_part: LabeledImages, digits_vae: Model) -> Any:
    return measure(digits_vae, train=train_part, test=test_part, seed=5, features=features)


@pytest.fixture(scope="module")
def options(features: ClassifierFeatures, train_part: LabeledImages, test_part: LabeledImages) -> dict[str, Any]:
    """Those of `result`."""
    return {"train": train_part, "test": test_part, "seed": 5, "features": features}


def noise(spec: DataSpec) -> Any:
    def sample(labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(len(labels), spec.channels, spec.height or 8, spec.width or 8, generator=generator)

    return SimpleNamespace(spec=spec, sample=sample)


def mislabeled(model: Model) -> Any:
    """The same images, each under the class after its own."""
    return SimpleNamespace(spec=model.spec, sample=lambda labels, **options: model.sample((labels + 1) % 10, **options))


def one_image_a_class(data: LabeledImages) -> Any:
    first = torch.stack([data.images[data.labels == label][0] for label in range(10)])
    return SimpleNamespace(spec=data.spec, sample=lambda labels, **options: first[labels])


# --- the order that it is for


def test_noise_is_worse_than_the_model_and_the_model_than_real_images(result, options, test_part):
    vae, static = result, measure(noise(test_part.spec), **options)
    assert static.sample_distance.fid > 20 * vae.sample_distance.fid
    assert vae.sample_distance.fid > vae.training_distance.fid > 0
    assert static.sample_distance.kid > 10 * vae.sample_distance.kid
    assert static.sample_scores["accuracy"] < 0.2 < 0.9 < vae.sample_scores["accuracy"]
    assert static.training_distance == vae.training_distance


def test_wrong_classes_show_in_the_classes_alone(result, options, digits_vae):
    right, wrong = result, measure(mislabeled(digits_vae), **options)
    assert wrong.sample_distance.fid < 2 * right.sample_distance.fid
    assert wrong.sample_scores["accuracy"] < 0.05
    for good, bad in zip(right.classes, wrong.classes, strict=True):
        assert bad.sample_distance.kid > good.sample_distance.kid + 1
        assert bad.sample_recall < 0.2


def test_a_source_of_one_image_a_class_is_found_out(result, options, train_part):
    """A collapsed generator has perfect labels, and a distance that shows it."""
    collapsed = measure(one_image_a_class(train_part), **options)
    assert collapsed.sample_scores["accuracy"] > 0.9
    assert collapsed.sample_distance.fid > 2 * result.sample_distance.fid


# --- each figure


def test_counts_and_names(result, features, train_part, test_part):
    assert result.source == "vae"
    assert result.images == {"training": 1198, "held_out": 599, "samples": 599, "training_compared": 599}
    assert result.features == {"name": "classifier", "num_features": 64, **features.settings}
    assert result.classifier == result.features
    assert result.accuracy_score is None
    assert [one.name for one in result.classes] == test_part.classes
    assert [one.held_out for one in result.classes] == [one.samples for one in result.classes] == test_part.counts


def test_distances_are_those_of_what_was_drawn(result, features, test_part, digits_vae):
    labels = choose_labels(test_part, samples=None, seed=5)
    samples = torch.cat(list(draw_samples(digits_vae, labels, seed=5, progress=False)))
    assert samples.dtype == torch.uint8  # as real images are
    real, synthetic = features.extract(test_part.images), features.extract(samples)
    assert result.sample_distance.fid == pytest.approx(frechet_distance(real, synthetic))
    assert (result.sample_distance.kid, result.sample_distance.kid_std) == kernel_distance(real, synthetic, seed=5)
    own = kernel_distance(real[test_part.labels == 7], synthetic[labels == 7], seed=5)
    assert (result.classes[7].sample_distance.kid, result.classes[7].sample_distance.kid_std) == own
    found = features.classify(synthetic)
    assert result.sample_scores["accuracy"] == pytest.approx(float((found == labels).double().mean()))
    assert result.classes[7].sample_recall == pytest.approx(float((found == 7)[labels == 7].double().mean()))
    assert [one.held_out_recall for one in result.classes] == features.score(test_part)["recall"]


def test_the_distance_beside_it_is_of_training_images_with_the_same_labels(result, features, train_part, test_part):
    labels = choose_labels(test_part, samples=None, seed=5)
    rows = match_rows(train_part.labels, labels, seed=5)
    training = features.extract(train_part.images[rows])
    assert torch.equal(train_part.labels[rows], labels)
    expected = frechet_distance(features.extract(test_part.images), training)
    assert result.training_distance.fid == pytest.approx(expected)


def test_precision_to_coverage_are_those_of_the_authors_program(result, features, train_part, test_part, digits_vae):
    prdc = pytest.importorskip("prdc")
    labels = choose_labels(test_part, samples=None, seed=5)
    samples = torch.cat(list(draw_samples(digits_vae, labels, seed=5, progress=False)))
    training = train_part.images[match_rows(train_part.labels, labels, seed=5)]
    held_out = features.extract(test_part.images).double().numpy()
    for images, found in ((samples, result.sample_manifold), (training, result.training_manifold)):
        others = features.extract(images).double().numpy()
        expected = prdc.compute_prdc(real_features=held_out, fake_features=others, nearest_k=5)
        assert vars(found) == pytest.approx({name: float(value) for name, value in expected.items()})


def test_means_are_over_the_classes_that_have_a_figure(result):
    assert result.intra_class_fid == ClassMean(None, None, 0)
    kid = [[one.sample_distance.kid, one.training_distance.kid] for one in result.classes]
    assert result.intra_class_kid.classes == 10
    assert result.intra_class_kid.samples == pytest.approx(sum(pair[0] for pair in kid) / 10)
    assert result.intra_class_kid.training == pytest.approx(sum(pair[1] for pair in kid) / 10)
    assert result.intra_class_kid.samples > 3 * abs(result.intra_class_kid.training)


def test_reconstruction_errors_agree_with_the_models_own(result, digits_vae, test_part):
    own = digits_vae.measure(test_part.images, test_part.labels)
    assert result.model_scores == own
    assert result.reconstruction_mse == pytest.approx(own["reconstruction_mse"], abs=1e-6)
    for one, label in ((result.classes[2], 2), (result.classes[9], 9)):
        images = test_part.images[test_part.labels == label]
        labels = torch.full((len(images),), label)
        made = digits_vae.decode(digits_vae.encode(images, labels), labels)
        assert one.reconstruction_mse == pytest.approx(float((made - images / 255).square().mean()), rel=1e-4)
    weighted = sum(one.reconstruction_mse * one.held_out for one in result.classes) / 599
    assert weighted == pytest.approx(result.reconstruction_mse, rel=1e-5)


def test_the_result_is_plain_json(result):
    report = result.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == json.loads(json.dumps(report))
    assert report["least_images_of_a_class"] == {"fid": 65, "kid": 10}
    for name in ("sample_distance", "training_distance", "intra_class_fid", "intra_class_kid", "sample_manifold"):
        assert (report[name]["features"], report[name]["images"], report[name]["held_out"]) == ("classifier", 599, 599)
    assert report["training_manifold"]["neighbors"] == 5
    assert report["classes"][3]["sample_distance"]["fid"] is None  # of 61 images


def test_fid_of_a_class_needs_more_images_than_features(train_part, test_part, digits_vae):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "features": PIXELS, "classifier_steps": 2}
    full = measure(digits_vae, samples=300, **options)
    assert all(one.sample_distance.fid > 0 and one.training_distance.fid > 0 for one in full.classes)
    fewer = measure(digits_vae, samples=165, **options)
    assert [one.sample_distance.fid is not None for one in fewer.classes] == [one.samples > 16 for one in fewer.classes]
    assert {one.sample_distance.fid is None for one in fewer.classes} == {True, False}
    known = [one for one in fewer.classes if one.sample_distance.fid is not None]
    assert fewer.intra_class_fid.classes == len(known)
    assert fewer.intra_class_fid.samples == pytest.approx(sum(one.sample_distance.fid for one in known) / len(known))
    real = sum(one.training_distance.fid for one in known) / len(known)
    assert fewer.intra_class_fid.training == pytest.approx(real)


def test_a_bank_is_measured_too(features, train_part, test_part, digits_vae):
    bank = SampleBank.generate(digits_vae, 100, seed=0, progress=False)
    found = measure(bank, train=train_part, test=test_part, features=features)
    assert found.source == "SampleBank"
    assert found.sample_scores["accuracy"] > 0.9
    assert (found.reconstruction_mse, found.model_scores) == (None, {})
    assert {one.reconstruction_mse for one in found.classes} == {None}


def test_classes_without_or_with_few_held_out_images(features, train_part, test_part, digits_vae):
    counts = [0, 3, 9, 10, 60, 60, 60, 60, 58, 60]
    rows = torch.cat([torch.nonzero(test_part.labels == label).flatten()[:n] for label, n in enumerate(counts)])
    found = measure(digits_vae, train=train_part, test=test_part.subset(rows), features=features)
    assert [one.held_out for one in found.classes] == counts
    assert [one.sample_distance.kid is None for one in found.classes] == [True, True, True] + 7 * [False]
    assert found.intra_class_kid.classes == 7
    empty = found.classes[0]
    assert (empty.samples, empty.sample_distance) == (0, Distance(None, None, None))
    assert (empty.sample_recall, empty.held_out_recall, empty.reconstruction_mse) == (None, None, None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_samples_follow_the_shares_of_the_held_out_classes(features, train_part, test_part, digits_vae):
    rows = torch.cat([torch.arange(599), torch.nonzero(test_part.labels == 1).flatten().repeat(3)])
    skewed = test_part.subset(rows)
    labels = choose_labels(skewed, samples=2 * len(skewed), seed=0)
    assert torch.equal(labels.bincount(), 2 * skewed.labels.bincount())
    few = choose_labels(skewed, samples=200, seed=0)
    assert int((few == 1).sum()) == pytest.approx(200 * skewed.counts[1] / len(skewed), abs=20)


def test_training_images_are_compared_once_and_in_the_same_shares(features, train_part, test_part, digits_vae):
    few = [int((train_part.labels == label).sum()) for label in range(9)]
    rows = torch.cat([torch.nonzero(train_part.labels == c).flatten()[:n] for c, n in enumerate([*few, 30])])
    part = train_part.subset(rows)
    found = measure(digits_vae, train=part, test=test_part, features=features)
    share = 30 / test_part.counts[9]
    assert found.images["samples"] == 599
    assert found.images["training_compared"] == sum(int(share * count + 1e-9) for count in test_part.counts)
    assert found.training_distance.fid is None
    assert found.training_manifold is None
    assert found.training_distance.kid < 0.01  # rows that repeat would raise it
    assert found.classes[9].training_distance.kid is not None
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_row_is_matched_once():
    available, wanted = torch.tensor([0] * 3 + [1] * 50), torch.tensor([0] * 7 + [1] * 40)
    rows = match_rows(available, wanted, seed=0)
    assert available[rows].bincount().tolist() == [3, 40]
    assert len(rows.unique()) == 43
    kept = keep_shares(available[rows], wanted)
    assert available[rows][kept].bincount().tolist() == [3, 17]  # three sevenths of 40
    assert keep_shares(wanted, wanted).all()
    for have, want, kept in ((7, 10, 14), (1, 49, 2), (0, 5, 0)):  # of two classes, one with few
        labels, like = torch.tensor([0] * have + [1] * 60), torch.tensor([0] * want + [1] * want)
        assert int(keep_shares(labels, like).sum()) == kept
    assert not keep_shares(torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64)).any()


def test_samples_of_a_bank_are_taken_once(features, train_part, test_part, digits_vae):
    bank = SampleBank.generate(digits_vae, test_part.counts, seed=0, progress=False)
    found = measure(bank, train=train_part, test=test_part, features=features)
    images = bank.images(range(len(bank)))
    held_out = features.extract(test_part.images)
    assert found.sample_distance.fid == pytest.approx(frechet_distance(held_out, features.extract(images)), rel=1e-6)
    counts = [*test_part.counts[:9], 6]
    few = SampleBank.generate(digits_vae, counts, seed=0, progress=False)
    with pytest.warns(DataWarning, match=rf"'9: 6 of {test_part.counts[9]}'.*compared"):
        short = measure(few, train=train_part, test=test_part, features=features)
    assert [one.samples for one in short.classes] == counts
    share = 6 / test_part.counts[9]
    assert short.images["samples"] == sum(int(share * count + 1e-9) for count in test_part.counts)
    assert short.images["training_compared"] == short.images["samples"]
    one = SampleBank.generate(digits_vae, [*test_part.counts[:9], 1], seed=0, progress=False)
    with pytest.warns(DataWarning, match="compared"):
        single = measure(one, train=train_part, test=test_part, features=features)
    assert 0 < single.images["samples"] <= 10
    none = SampleBank.generate(digits_vae, {"3": 5}, seed=0, progress=False)
    for scored in (False, True):
        part = test_part.subset(torch.nonzero(test_part.labels == 3).flatten()) if scored else test_part
        with pytest.raises(DataError, match="samples of every class that is measured, got none of"):
            measure(none, train=train_part, test=part, features=features, accuracy_score=scored)


# --- the classification accuracy score


def perfect(data: LabeledImages) -> Any:
    """Samples are real images of the class that is asked for."""

    def sample(labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        places = torch.rand(len(labels), generator=generator)
        members = [torch.nonzero(data.labels == label).flatten() for label in range(data.spec.num_classes)]
        rows = [members[label][int(place * len(members[label]))] for label, place in zip(labels, places, strict=True)]
        return data.images[torch.stack(rows)]

    return SimpleNamespace(spec=data.spec, sample=sample)


def test_what_samples_teach_is_near_what_real_images_do_and_noise_teaches_nothing(train_part, test_part):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "samples": 50, "device": "cpu"}
    fitted = fit_features(train_part, seed=0, steps=70, device="cpu")
    ideal, static = (
        measure_fidelity(source, features=fitted, **options) for source in (perfect(train_part), noise(test_part.spec))
    )
    real = fitted.score(test_part)
    assert ideal.held_out_scores == static.held_out_scores == real
    for name in ("accuracy", "balanced_accuracy"):
        assert real[name] - 0.04 < ideal.accuracy_score[name] < 1
        assert static.accuracy_score[name] < 0.25
    assert len(ideal.accuracy_score["recall"]) == 10
    assert ideal.to_dict()["accuracy_score"]["training_samples"] == 1198


def test_it_learns_from_as_many_samples_of_each_class_as_there_are_training_images(train_part, test_part):
    """And in the same way: a source that gives back the training part teaches just what that teaches."""
    train = train_part.subset(longtail_indices(train_part.labels, imbalance_factor=10, seed=0))
    asked: list[Tensor] = []

    def sample(labels: Tensor, *, generator: torch.Generator) -> Tensor:
        asked.append(labels)
        start = sum(len(earlier) for earlier in asked[1:-1])
        return train.images[start : start + len(labels)] if len(asked) > 1 else train.images[: len(labels)]

    source = SimpleNamespace(spec=train.spec, sample=sample)
    found = measure_fidelity(source, train=train, test=test_part, samples=10, classifier_steps=30, device="cpu")
    assert torch.equal(torch.cat(asked[1:]), train.labels)
    assert found.accuracy_score == {
        **found.held_out_scores,
        "training_samples": len(train),
        "training_images": len(train),
    }
    assert found.held_out_scores["accuracy"] > 0.3


# --- other features


def central_pixels(images: Tensor) -> Tensor:
    return images[:, 0, 2:6, 2:6].flatten(1).float() / 255


PIXELS: Any = SimpleNamespace(name="pixels", num_features=16, settings={"scale": 1 / 255}, extract=central_pixels)


def test_distances_in_other_features_leave_the_classifier_as_it_is(train_part, test_part, digits_vae):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "classifier_steps": 5, "device": "cpu"}
    options["samples"] = 200
    found, usual = measure(digits_vae, features=PIXELS, **options), measure(digits_vae, **options)
    assert found.features == {"name": "pixels", "num_features": 16, "scale": 1 / 255}
    assert found.classifier == usual.classifier == usual.features
    assert (found.sample_scores, found.held_out_scores) == (usual.sample_scores, usual.held_out_scores)
    labels = choose_labels(test_part, samples=200, seed=0)
    samples = central_pixels(torch.cat(list(draw_samples(digits_vae, labels, seed=0, progress=False))))
    training = central_pixels(train_part.images[match_rows(train_part.labels, labels, seed=0)])
    real = central_pixels(test_part.images)
    assert found.sample_distance.fid == pytest.approx(frechet_by_scipy(real, samples), rel=1e-6)
    assert found.training_distance.fid == pytest.approx(frechet_by_scipy(real, training), rel=1e-6)
    assert found.sample_distance != usual.sample_distance


def frechet_by_scipy(one: Tensor, other: Tensor) -> float:
    first, second = (torch.cov(rows.double().T).numpy() for rows in (one, other))
    root = scipy.linalg.sqrtm(first @ second).real
    means = (one.double().mean(0) - other.double().mean(0)).square().sum()
    return float(means + first.trace() + second.trace() - 2 * root.trace())


@pytest.mark.parametrize("features", ["Inception", "vgg", 3, object(), ClassifierFeatures])
def test_features_that_are_none(features, train_part, test_part, digits_vae):
    with pytest.raises(GenaugError, match="features must be 'classifier', 'inception', 'torchmetrics' or an extractor"):
        measure(digits_vae, train=train_part, test=test_part, features=features)


def test_images_that_features_cannot_be_taken_of_show_before_anything_is_trained(train_part, test_part, monkeypatch):
    def refuse(images: Tensor) -> Tensor:
        raise DataError("images must be in color")

    monkeypatch.setattr("genaug.evaluate.fidelity.fit_features", lambda *args, **options: pytest.fail("trained"))
    features = SimpleNamespace(name="color", num_features=3, settings={}, extract=refuse)
    with pytest.raises(DataError, match="images must be in color"):
        measure(noise(test_part.spec), train=train_part, test=test_part, features=features)


# --- what it depends on


def test_figures_depend_on_the_seed_alone(train_part, test_part, digits_vae):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "classifier_steps": 3, "device": "cpu"}
    options["samples"] = 100
    first = measure(digits_vae, seed=1, **options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(77)
        assert measure(digits_vae, seed=1, features="classifier", **options) == first
    other = measure(digits_vae, seed=2, **options)
    assert other.sample_distance != first.sample_distance
    assert other.features["seed"] == 2


def test_the_modes_of_a_model_are_kept(features, train_part, test_part):
    with torch.random.fork_rng(devices=[]):
        model = VAE(test_part.spec, VAEConfig(width=8, hidden=16, latent_dim=4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, train=train_part, test=test_part, features=features, samples=20)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_progress_is_shown_where_asked_for(features, train_part, test_part, capsys):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "samples": 20}
    measure(noise(test_part.spec), features=features, **options)
    assert capsys.readouterr() == ("", "")
    measure(noise(test_part.spec), classifier_steps=2, device="cpu", progress=True, **options)
    said = capsys.readouterr().err
    assert "classifier 2/2" in said
    assert "samples 20/20" in said


# --- refused, before anything is trained


def test_images_or_classes_that_do_not_fit(train_part, test_part, digits_vae):
    def changed(data: LabeledImages, spec: DataSpec, images: Tensor) -> LabeledImages:
        return LabeledImages(images, data.labels, spec)

    names = test_part.spec.class_names
    larger, colored = DataSpec(1, 9, 9, names), DataSpec(3, 8, 8, names)
    swapped = DataSpec(1, 8, 8, (names[1], names[0], *names[2:]))
    wrong = [
        (larger, lambda images: torch.nn.functional.pad(images, (0, 1, 0, 1)), "one size, got 1x8x8 and 1x9x9"),
        (colored, lambda images: images.repeat(1, 3, 1, 1), "one size, got 1x8x8 and 3x8x8"),
        (swapped, lambda images: images, "the same classes in the same order, got"),
    ]
    for spec, change, words in wrong:
        train, test = (changed(data, spec, change(data.images)) for data in (train_part, test_part))
        with pytest.raises(DataError, match=f"source and test must have .*{words}"):
            measure(digits_vae, train=train, test=test, device="cpu")
        with pytest.raises(DataError, match="train and test must have one format"):
            measure(digits_vae, train=train, test=test_part, device="cpu")
    fitted = fit_features(changed(train_part, swapped, train_part.images), seed=0, steps=1, device="cpu")
    with pytest.raises(DataError, match="features must be of the images in test"):
        measure(digits_vae, train=train_part, test=test_part, features=fitted)


@pytest.mark.parametrize("side", [None, 8])
def test_a_source_of_any_size_fits(side, features, train_part, test_part):
    source = noise(DataSpec(1, side, side, test_part.spec.class_names))
    found = measure(source, train=train_part, test=test_part, features=features, samples=20)
    assert found.images["samples"] == 20


def test_parts_that_cannot_be_compared(train_part, test_part, digits_vae):
    mixed = train_part.subset(range(400))
    with pytest.raises(DataError, match="must not share images, got 400 shared"):
        measure(digits_vae, train=train_part, test=mixed, device="cpu")
    with pytest.raises(DataError, match="test must hold at least one image"):
        measure(digits_vae, train=train_part, test=test_part.subset([]), device="cpu")
    with pytest.raises(GenaugError, match="test must hold at least 4 images"):
        measure(digits_vae, train=train_part, test=test_part.subset([0, 1, 2]), samples=10, device="cpu")
    without = train_part.subset(torch.nonzero(train_part.labels != 6).flatten())
    with pytest.raises(DataError, match=r"train must hold images of every class of test, got none of \['6'\]"):
        measure(digits_vae, train=without, test=test_part, device="cpu")


@pytest.mark.parametrize("samples", [3, 0, -1, 10.0, True])
def test_a_number_of_samples_that_is_none(samples, train_part, test_part, digits_vae):
    with pytest.raises(GenaugError, match="samples must be an integer of at least 4, got"):
        measure(digits_vae, train=train_part, test=test_part, samples=samples, device="cpu")


def test_sources_that_cannot_be_measured(features, train_part, test_part):
    options: dict[str, Any] = {"train": train_part, "test": test_part, "features": features}
    with pytest.raises(DataError, match="source must be a bank or a model that can sample"):
        measure(object(), **options)
    spec = test_part.spec
    wrong = {
        "as many as the labels": lambda labels, **rest: torch.zeros(3, 1, 8, 8),
        "within .0, 1.": lambda labels, **rest: torch.full((len(labels), 1, 8, 8), float("nan")),
        "of size 1x8x8": lambda labels, **rest: torch.zeros(len(labels), 1, 8, 9),
    }
    for words, sample in wrong.items():
        with pytest.raises(DataError, match=f"images of source .*must be.*{words}"):
            measure(SimpleNamespace(spec=spec, sample=sample), **options)


# --- the picture


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_has_a_block_for_each_class(channels, test_part, tmp_path):
    spec = DataSpec(channels, 12, 7, ("a", "b", "none"))
    images = torch.randint(0, 256, (30, channels, 12, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = LabeledImages(images, torch.arange(30) % 2, spec)
    with torch.random.fork_rng(devices=[]):
        model = VAE(spec, VAEConfig(width=8, hidden=16, latent_dim=4)).eval()
    heights = []
    for name, source in (("model", model), ("noise", noise(spec))):
        plot_fidelity(source, data, tmp_path / f"{name}.png", seed=0)
        with PIL.Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            heights.append(picture.height)
    assert heights[0] > heights[1] > 3 * 2 * 12  # rows of reconstructions in the first alone
