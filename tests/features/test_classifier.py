"""Features of a classifier: learned from the seed and the images alone, and the same however they are taken."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genaug import DataError, DataSpec, GenaugError
from genaug.data import LabeledImages, load_data, longtail_indices
from genaug.features import ClassifierFeatures, FeatureExtractor, fit_features
from genaug.features.classifier import _shift


@pytest.fixture(scope="module")
def train_part() -> LabeledImages:
    return load_data("digits")


@pytest.fixture(scope="module")
def test_part() -> LabeledImages:
    return load_data("digits", split="test")


@pytest.fixture(scope="module")
def features(train_part: LabeledImages) -> ClassifierFeatures:
    return fit_features(train_part, seed=0, steps=150, device="cpu")


def striped(count: int, *, channels: int, height: int, width: int) -> LabeledImages:
    """Images of two classes: dark and bright ones."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, channels, height, width), generator=torch.Generator().manual_seed(0))
    images = (noise + 120 * labels[:, None, None, None]).to(torch.uint8)
    return LabeledImages(images, labels, DataSpec(channels, height, width, ("dark", "bright")))


def weights(features: ClassifierFeatures) -> Tensor:
    return torch.cat([value.flatten().double() for value in features.net.state_dict().values()])


def test_it_learns_the_classes(features, test_part):
    scores = features.score(test_part)
    assert scores["accuracy"] > 0.95
    predictions = features.net(test_part.images).argmax(1)
    assert scores["accuracy"] == pytest.approx(float((predictions == test_part.labels).double().mean()))
    assert len(scores["recall"]) == 10


def test_features_are_what_the_last_layer_sees(features, test_part):
    found = features.extract(test_part.images)
    assert found.shape == (599, features.num_features)
    assert isinstance(features, FeatureExtractor)
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)
    with torch.no_grad():
        assert torch.allclose(features.net.head(found), features.net(test_part.images), atol=1e-4)
        maps = features.net.features(test_part.images[:5].float() / 127.5 - 1)
    assert torch.allclose(found[:5], maps.mean((2, 3)), atol=1e-5)
    assert torch.equal(features.classify(found), features.net(test_part.images).argmax(1))


def test_chunks_and_dtype_of_the_images_do_not_matter(features, test_part):
    images = test_part.images[:70]
    whole = features.extract(images)
    assert torch.allclose(features.extract(images, batch_size=7), whole, atol=1e-5)
    assert torch.allclose(features.extract(images.float() / 255), whole, atol=1e-5)


def test_the_mode_of_the_classifier_is_given_back(features, test_part):
    features.net.train()
    statistics = features.net.state_dict()["features.1.running_mean"].clone()
    trained = features.extract(test_part.images)
    assert features.net.training
    assert torch.equal(features.net.state_dict()["features.1.running_mean"], statistics)
    assert torch.equal(features.net.eval() and features.extract(test_part.images), trained)


def test_all_draws_depend_on_the_seed(train_part):
    first = fit_features(train_part, seed=3, steps=4, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert torch.equal(weights(fit_features(train_part, seed=3, steps=4, device="cpu")), weights(first))
    assert not torch.equal(weights(fit_features(train_part, seed=4, steps=4, device="cpu")), weights(first))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 9, 14), (1, 40, 24), (2, 5, 3), (4, 32, 32)])
def test_images_of_any_size_and_number_of_channels(channels, height, width):
    data = striped(40, channels=channels, height=height, width=width)
    found = fit_features(data, seed=0, steps=2, device="cpu")
    assert found.extract(data.images).shape == (40, found.num_features)


def test_classes_are_drawn_equally_often(train_part, test_part):
    """A class of 6 images among others of up to 119 is still known."""
    scarce = train_part.subset(longtail_indices(train_part.labels, imbalance_factor=20, seed=0))
    assert min(scarce.counts) == 6
    balanced = fit_features(scarce, seed=0, steps=60, device="cpu")
    shares = balanced.classify(balanced.extract(test_part.images)).bincount(minlength=10) / len(test_part)
    assert float(shares.min()) > 0.03


def test_a_class_without_images_is_left_out(train_part):
    rows = torch.nonzero(train_part.labels != 4).flatten()
    found = fit_features(train_part.subset(rows), seed=0, steps=2, device="cpu")
    assert found.net.head.out_features == 10
    assert weights(found).isfinite().all()


def test_settings_say_how_it_was_trained(features):
    assert features.settings == {
        "network": "SmallCNN", "images": 1198, "steps": 150, "batch_size": 64, "seed": 0
    }  # fmt: skip


# --- moved images


@pytest.mark.parametrize(("height", "width", "reach"), [(8, 8, 1), (40, 24, 3), (5, 9, 1), (33, 16, 2)])
def test_images_are_moved_within_an_eighth_and_edges_repeated(height, width, reach):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, 2, height, width), dtype=torch.uint8, generator=generator)
    moved = _shift(images, generator)
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    seen = set()
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):
        padded = np.pad(before, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        fits = [
            (down, right)
            for down in range(2 * reach + 1)
            for right in range(2 * reach + 1)
            if np.array_equal(padded[:, down : down + height, right : right + width], after)
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == (2 * reach + 1) ** 2


# --- refused


@pytest.mark.parametrize("steps", [0, -1, 2.0, True, "10"])
def test_a_number_of_steps_that_is_none(steps, train_part):
    with pytest.raises(GenaugError, match="steps must be an integer of at least 1, got"):
        fit_features(train_part, seed=0, steps=steps, device="cpu")


def test_rows_are_as_a_subset(train_part):
    rows = torch.arange(0, len(train_part), 3)
    some = fit_features(train_part, seed=0, rows=rows, steps=3, device="cpu")
    same = fit_features(train_part.subset(rows), seed=0, steps=3, device="cpu")
    assert all(torch.equal(one, two) for one, two in zip(some.net.parameters(), same.net.parameters(), strict=True))
    assert some.settings == same.settings


def test_one_class_teaches_nothing(train_part):
    one = train_part.subset(torch.nonzero(train_part.labels == 3).flatten())
    with pytest.raises(DataError, match="train must hold images of at least two classes"):
        fit_features(one, seed=0, steps=2, device="cpu")


def test_a_seed_that_is_none(train_part):
    with pytest.raises(GenaugError, match="seed must be an integer"):
        fit_features(train_part, seed=0.5, steps=2, device="cpu")  # type: ignore[arg-type]


def test_other_images_are_refused(features, test_part):
    with pytest.raises(DataError, match="1x8x8"):
        features.extract(torch.zeros(2, 1, 9, 8))
    with pytest.raises(DataError, match="channels"):
        features.extract(torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match="data must hold at least one image"):
        features.score(test_part.subset([]))
