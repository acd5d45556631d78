"""Scores against scikit-learn's."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean
from sklearn import metrics as reference

from genaug.errors import GenaugError
from genaug.metrics import confusion_matrix, recall_per_class, score_predictions

pytestmark = [  # of scikit-learn, about cases that are meant here
    pytest.mark.filterwarnings("ignore:A single label was found in 'y_true' and 'y_pred':UserWarning"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning"),
]


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Labels and predictions of at least one image; often some class has none."""
    num_classes = draw(st.integers(1, 7))
    index = st.integers(0, num_classes - 1)
    pairs = draw(st.lists(st.tuples(index, index), min_size=1, max_size=40))
    labels, predictions = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return labels, predictions, num_classes


@settings(deadline=None)
@given(outcomes())
def test_confusion_matrix_is_that_of_sklearn(outcome):
    labels, predictions, num_classes = outcome
    found = confusion_matrix(labels, predictions, num_classes=num_classes)
    expected = reference.confusion_matrix(labels, predictions, labels=range(num_classes))
    assert found.dtype == torch.int64
    assert found.tolist() == expected.tolist()


@settings(deadline=None)
@given(outcomes())
def test_recall_is_that_of_sklearn(outcome):
    labels, predictions, num_classes = outcome
    found = recall_per_class(labels, predictions, num_classes=num_classes)
    expected = reference.recall_score(
        labels, predictions, labels=range(num_classes), average=None, zero_division=np.nan
    )
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected)  # NaN equals NaN here


@settings(deadline=None)
@given(outcomes())
def test_scores_are_those_of_sklearn(outcome):
    labels, predictions, num_classes = outcome
    scores = score_predictions(labels, predictions, num_classes=num_classes)
    balanced = reference.balanced_accuracy_score(labels, predictions)
    recall = reference.recall_score(labels, predictions, labels=range(num_classes), average=None, zero_division=np.nan)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, predictions))
    assert scores["balanced_accuracy"] == pytest.approx(balanced)
    assert scores["worst_class"] == pytest.approx(np.nanmin(recall))
    assert [np.nan if value is None else value for value in scores["recall"]] == pytest.approx(recall, nan_ok=True)
    present = labels.unique()
    f1 = reference.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(f1)


@settings(deadline=None)
@given(outcomes())
def test_geometric_means_are_their_definitions(outcome):
    labels, predictions, num_classes = outcome
    scores = score_predictions(labels, predictions, num_classes=num_classes)
    present = labels.unique().tolist()
    recall = [(predictions[labels == c] == c).double().mean().item() for c in present]
    others = [predictions[labels != c] != c for c in present]
    specificity = [other.double().mean().item() if len(other) else 1.0 for other in others]
    assert scores["geometric_mean"] == pytest.approx(gmean(recall) if min(recall) else 0.0)
    assert scores["geometric_mean_specificity"] == pytest.approx((np.mean(recall) * np.mean(specificity)) ** 0.5)


def test_geometric_mean_with_specificity_is_that_of_imbalanced_learn():
    imblearn = pytest.importorskip("imblearn.metrics")
    generator = torch.Generator().manual_seed(0)
    for num_classes in (2, 3, 10):
        labels, guesses = torch.randint(num_classes, (2, 200), generator=generator)
        predictions = torch.where(torch.rand(200, generator=generator) < 0.6, labels, guesses)
        expected = imblearn.geometric_mean_score(labels.numpy(), predictions.numpy(), average="macro")
        found = score_predictions(labels, predictions, num_classes=num_classes)
        assert found["geometric_mean_specificity"] == pytest.approx(expected)


def test_geometric_mean_with_specificity_fits_published_tables():
    # DeepSMOTE on balanced test sets of ten classes: a mean recall of 83.63 % beside 90.61 % (Dablain et al. 2022)
    labels = torch.arange(10).repeat_interleave(10_000)
    hits = torch.arange(10_000).repeat(10) < 8363
    scores = score_predictions(labels, torch.where(hits, labels, (labels + 1) % 10), num_classes=10)
    assert scores["geometric_mean_specificity"] == pytest.approx(0.9061, abs=5e-5)


def test_the_geometric_mean_of_many_low_recalls_does_not_underflow():
    labels = torch.arange(200).repeat_interleave(100)
    predictions = torch.where(torch.arange(100).repeat(200) == 0, labels, (labels + 1) % 200)
    assert score_predictions(labels, predictions, num_classes=200)["geometric_mean"] == pytest.approx(0.01)


def test_classes_without_images_do_not_count():
    scores = score_predictions(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 2]), num_classes=4)
    assert scores == {
        "accuracy": pytest.approx(2 / 3),
        "balanced_accuracy": 0.75,
        "worst_class": 0.5,
        "geometric_mean": pytest.approx(0.5**0.5),
        "geometric_mean_specificity": pytest.approx(0.75**0.5),  # nothing was taken for a class that is there
        "macro_f1": pytest.approx((2 / 3 + 1) / 2),
        "recall": [0.5, None, 1.0, None],
    }


def test_scores_are_plain_values_for_strict_json():
    scores = score_predictions(torch.tensor([0, 2]), torch.tensor([0, 1]), num_classes=3)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_a_perfect_and_a_useless_classifier():
    labels = torch.arange(5).repeat(3)
    perfect = score_predictions(labels, labels, num_classes=5)
    useless = score_predictions(labels, torch.zeros_like(labels), num_classes=5)
    assert (perfect["accuracy"], perfect["balanced_accuracy"], perfect["worst_class"]) == (1.0, 1.0, 1.0)
    assert (useless["accuracy"], useless["balanced_accuracy"], useless["worst_class"]) == pytest.approx((0.2, 0.2, 0.0))


FOUR = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (FOUR, torch.tensor([2, 0, 1, 1]), "predictions must be classes from 0 to 1, got values from 0 to 2"),
        (FOUR, torch.tensor([0, -1, 1, 1]), "predictions must be classes from 0 to 1, got values from -1 to 1"),
        (FOUR - 1, FOUR, "labels must be classes from 0 to 1, got values from -1 to 0"),
        (FOUR + 1, FOUR, "labels must be classes from 0 to 1, got values from 1 to 2"),
        (FOUR, FOUR[:1], r"predictions must be as many as labels \(4\), got 1"),
        (FOUR, FOUR[:0], r"predictions must be integers of shape \(N,\), at least one, got torch.int64 \(0,\)"),
        (FOUR, FOUR.double(), r"predictions must be integers of shape \(N,\), .* got torch.float64 \(4,\)"),
        (FOUR.bool(), FOUR, r"labels must be integers of shape \(N,\), .* got torch.bool \(4,\)"),
        (FOUR, FOUR[:, None], r"predictions must be integers of shape \(N,\), .* got torch.int64 \(4, 1\)"),
    ],
)
@pytest.mark.parametrize("score", [confusion_matrix, recall_per_class, score_predictions])
def test_classes_must_be_such(score, labels, predictions, message):
    with pytest.raises(GenaugError, match=message):
        score(labels, predictions, num_classes=2)


def test_other_types_of_integers_do_not_overflow():
    labels, predictions = torch.arange(200), torch.arange(200).flip(0)
    found = confusion_matrix(labels.to(torch.uint8), predictions.to(torch.uint8), num_classes=200)
    assert torch.equal(found, confusion_matrix(labels, predictions, num_classes=200))


# --- the scarcest classes


@pytest.mark.parametrize(
    ("counts", "scarce"),
    [
        ([50, 40, 30, 20, 10, 5, 1], [4, 5, 6]),  # a third of seven, rounded up
        ([1, 5, 10, 20, 30, 40, 50], [0, 1, 2]),
        ([9, 2, 9, 2, 9, 2, 2], [1, 3, 5]),  # of four as scarce, the first ones
        ([7, 7, 7, 7, 7, 7, 0.5], [0, 1, 6]),
        ([7, 0, 7, 7, 7, 7, 7], [0, 1, 2]),
    ],
)
def test_the_scarce_third_has_the_fewest_training_images(counts, scarce):
    labels = torch.arange(7).repeat_interleave(7)
    predictions = torch.where(torch.arange(7).repeat(7) <= labels, labels, 0)  # class c has a recall of (c + 1) / 7
    predictions[:7] = torch.tensor([0, 1, 1, 1, 1, 1, 1])
    scores = score_predictions(labels, predictions, num_classes=7, counts=counts)
    assert scores["scarce_third"] == pytest.approx(np.mean([(c + 1) / 7 for c in scarce]))


def test_the_scarce_third_is_of_the_classes_with_test_images():
    labels, predictions = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 0])
    scores = score_predictions(labels, predictions, num_classes=5, counts=[3, 9, 1, 9, 2])
    assert scores["scarce_third"] == 0.5  # class 0


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 3, 4], [1, -1, 2], [1, float("nan"), 2], []])
def test_counts_must_be_one_for_each_class(counts):
    labels = torch.arange(3)
    with pytest.raises(GenaugError, match="counts must be numbers of at least 0, one for each of 3 classes, got "):
        score_predictions(labels, labels, num_classes=3, counts=counts)


# --- calibration


def draw_probabilities(count: int, num_classes: int, *, sharpness: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return (sharpness * torch.randn(count, num_classes, generator=generator)).softmax(1)


@pytest.mark.parametrize(("count", "num_classes"), [(500, 10), (40, 2), (1, 3), (3, 1)])
def test_calibration_error_is_that_of_numpy(count, num_classes):
    probabilities = draw_probabilities(count, num_classes)
    labels = torch.randint(num_classes, (count,), generator=torch.Generator().manual_seed(1))
    predictions = probabilities.argmax(1)
    scores = score_predictions(labels, predictions, num_classes=num_classes, probabilities=probabilities)
    confidence, hits = probabilities.amax(1).double().numpy(), (predictions == labels).numpy()
    bins = np.floor(confidence * 15)
    expected = sum(abs(hits[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    assert scores["calibration_error"] == pytest.approx(expected, abs=1e-6)  # float32


def test_calibration_error_of_certainty_is_the_error_rate():
    labels, predictions = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 2])
    probabilities = torch.eye(3)[predictions]
    scores = score_predictions(labels, predictions, num_classes=3, probabilities=probabilities)
    assert scores["calibration_error"] == pytest.approx(0.25)


def test_full_confidence_falls_into_the_last_bin():
    # of 20 images 10 have a confidence of exactly 1, and one of these is wrong; of the others, at 0.94, one is right
    labels, predictions = torch.zeros(20, dtype=torch.int64), torch.zeros(20, dtype=torch.int64)
    labels[0] = 1
    probabilities = torch.tensor([[1.0, 0.0], [0.94, 0.06]]).repeat_interleave(10, 0)
    assert float(torch.tensor([[20.0, 0.0]]).softmax(1)[0, 0]) == 1.0  # as logits of classifiers do give it
    scores = score_predictions(labels, predictions, num_classes=2, probabilities=probabilities)
    assert scores["calibration_error"] == pytest.approx(abs(0.95 - 0.97), abs=1e-6)  # float32


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (torch.full((3, 2), 0.5), r"probabilities must have shape \(3, 3\), got \(3, 2\)"),
        (torch.eye(3)[0], r"probabilities must have shape \(3, 3\), got \(3,\)"),
        (3 * torch.eye(3) - 1, r"probabilities must be within \[0, 1\], got values from -1 to 2; apply softmax"),
        (torch.full((3, 3), torch.nan), r"probabilities must be within \[0, 1\], got values from nan to nan"),
    ],
)
def test_probabilities_must_be_such(probabilities, message):
    labels = torch.arange(3)
    with pytest.raises(GenaugError, match=message):
        score_predictions(labels, labels, num_classes=3, probabilities=probabilities)


def test_all_scores_are_plain_values_for_strict_json():
    labels, probabilities = torch.tensor([0, 2, 2]), draw_probabilities(3, 4)
    scores = score_predictions(
        labels, probabilities.argmax(1), num_classes=4, counts=[4, 3, 2, 1], probabilities=probabilities
    )
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
