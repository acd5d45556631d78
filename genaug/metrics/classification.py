"""Scores of a classifier from labels and predicted classes."""

from typing import Any

import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return counts (C, C), int64: the row is the true class, the column the predicted one.

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    pairs = labels * num_classes + predictions
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall_per_class(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return the share of each class that was recognized (C,), float64; NaN for a class without images.

    >>> recall_per_class(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2)
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    confusion = confusion_matrix(labels, predictions, num_classes=num_classes).double()
    return confusion.diagonal() / confusion.sum(1)


def score_predictions(labels: Tensor, predictions: Tensor, *, num_classes: int) -> dict[str, Any]:
    """Return accuracy, balanced accuracy (the mean recall), the worst class's recall, and all recalls.

    Classes without images do not count; their recall is None.

    >>> score_predictions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2)["balanced_accuracy"]
    0.75
    """
    recall = recall_per_class(labels, predictions, num_classes=num_classes)
    present = recall[~recall.isnan()]
    return {
        "accuracy": float((labels == predictions).double().mean()),
        "balanced_accuracy": float(present.mean()),
        "worst_class": float(present.min()),
        "recall": [None if value != value else value for value in recall.tolist()],
    }
