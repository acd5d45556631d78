"""Scores of a classifier from labels and predicted classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genaug.errors import GenaugError, shorten

CALIBRATION_BINS = 15
BELOW_ONE = 1 - 2**-24  # the largest of float32


def confusion_matrix(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return counts (C, C), int64: the row is the true class, the column the predicted one.

    Raises:
        GenaugError: labels or predictions that are not integers (N,) from 0 to C - 1, as many of both, at least one.

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    for name, classes in (("labels", labels), ("predictions", predictions)):
        _check_classes(classes, num_classes, name=name)
    if len(labels) != len(predictions):
        raise GenaugError(f"predictions must be as many as labels ({len(labels)}), got {len(predictions)}")
    pairs = labels.long() * num_classes + predictions.long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall_per_class(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return the share of each class that was recognized (C,), float64; NaN for a class without images.

    Raises:
        GenaugError: labels or predictions that `confusion_matrix` refuses.

    >>> recall_per_class(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2)
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    confusion = confusion_matrix(labels, predictions, num_classes=num_classes).double()
    return confusion.diagonal() / confusion.sum(1)


def score_predictions(
    labels: Tensor,
    predictions: Tensor,
    *,
    num_classes: int,
    counts: Sequence[float] | None = None,
    probabilities: Tensor | None = None,
) -> dict[str, Any]:
    """Return the scores of predicted classes, all from 0 to 1, as plain values.

    Classes without images do not count; their recall is None. The scores, by name:

    - accuracy; balanced_accuracy (the mean recall); worst_class (the lowest recall); recall (of every class);
    - geometric_mean: of the recalls, 0 where one is 0 (Mullick et al. 2019, GAMO);
    - geometric_mean_specificity: sqrt(mean recall x mean specificity), specificity being the share of the other
      classes' images that were not taken for this one (macro average of imbalanced-learn; it fits the tables of
      Dablain et al. 2022, DeepSMOTE). It is higher than the one above; the two do not compare;
    - macro_f1: mean over classes of 2 TP / (2 TP + FP + FN);
    - scarce_third, with `counts`: mean recall over the third of the classes, rounded up, with the fewest training
      images; of two with as many, the first one counts as scarcer;
    - calibration_error, with `probabilities`: expected difference between the highest probability and the accuracy,
      in 15 bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).

    Args:
        labels: true classes (N,), integers, at least one.
        predictions: predicted classes (N,), integers.
        num_classes: number of classes C.
        counts: images of each class in the training part.
        probabilities: of each class (N, C), in [0, 1].

    Raises:
        GenaugError: labels, predictions, counts or probabilities of another shape or range.

    >>> scores = score_predictions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2, counts=[90, 5])
    >>> scores["balanced_accuracy"], scores["scarce_third"]
    (0.75, 1.0)
    """
    confusion = confusion_matrix(labels, predictions, num_classes=num_classes).double()
    recall = confusion.diagonal() / confusion.sum(1)
    present = recall[~recall.isnan()]
    scores: dict[str, Any] = {
        "accuracy": float((labels == predictions).double().mean()),
        "balanced_accuracy": float(present.mean()),
        "worst_class": float(present.min()),
        "geometric_mean": float(present.log().mean().exp()),  # no product, which underflows with many classes
        "geometric_mean_specificity": float((present.mean() * _specificity(confusion).mean()).sqrt()),
        "macro_f1": float(_f1(confusion).mean()),
        "recall": [None if value != value else value for value in recall.tolist()],
    }
    if counts is not None:
        scores["scarce_third"] = _scarce_third(recall, counts)
    if probabilities is not None:
        scores["calibration_error"] = _calibration_error(labels, probabilities, num_classes=num_classes)
    return scores


def _check_classes(classes: Tensor, num_classes: int, *, name: str) -> None:
    if classes.ndim != 1 or not len(classes) or classes.dtype == torch.bool or classes.is_floating_point():
        got = f"{classes.dtype} {tuple(classes.shape)}"
        raise GenaugError(f"{name} must be integers of shape (N,), at least one, got {got}")
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= num_classes:
        raise GenaugError(f"{name} must be classes from 0 to {num_classes - 1}, got values from {low} to {high}")


def _specificity(confusion: Tensor) -> Tensor:
    """Return TN / (TN + FP) of each class with images; 1 where no other class has any, as none was mistaken for it."""
    images = confusion.sum(1)
    false_positives = confusion.sum(0) - confusion.diagonal()
    return (1 - false_positives / (images.sum() - images).clamp(min=1))[images > 0]


def _f1(confusion: Tensor) -> Tensor:
    images = confusion.sum(1)
    return (2 * confusion.diagonal() / (images + confusion.sum(0)))[images > 0]


def _scarce_third(recall: Tensor, counts: Sequence[float]) -> float:
    if len(counts) != len(recall) or not all(count >= 0 for count in counts):
        raise GenaugError(
            f"counts must be numbers of at least 0, one for each of {len(recall)} classes, got {shorten(counts)}"
        )
    present = [index for index, value in enumerate(recall.tolist()) if value == value]
    scarce = sorted(present, key=lambda index: counts[index])[: -(-len(present) // 3)]
    return float(recall[scarce].mean())


def _calibration_error(labels: Tensor, probabilities: Tensor, *, num_classes: int) -> float:
    from torchmetrics.functional.classification import multiclass_calibration_error

    wanted = (len(labels), num_classes)
    if tuple(probabilities.shape) != wanted:
        raise GenaugError(f"probabilities must have shape {wanted}, got {tuple(probabilities.shape)}")
    low, high = (float(value) for value in probabilities.aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN fails; torchmetrics takes what leaves [0, 1] for logits
        raise GenaugError(f"probabilities must be within [0, 1], got values from {low:g} to {high:g}; apply softmax")
    below = probabilities.float().clamp(max=BELOW_ONE)  # torchmetrics gives 1 a bin of its own
    options: dict[str, Any] = {"n_bins": CALIBRATION_BINS, "norm": "l1", "validate_args": False}
    return float(multiclass_calibration_error(below, labels, num_classes, **options))
