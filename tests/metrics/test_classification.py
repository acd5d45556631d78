"""Scores against scikit-learn's."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

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


def test_classes_without_images_do_not_count():
    scores = score_predictions(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 2]), num_classes=4)
    assert scores == {
        "accuracy": pytest.approx(2 / 3),
        "balanced_accuracy": 0.75,
        "worst_class": 0.5,
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
