"""Pure functions on predictions."""

from genaug.metrics.classification import confusion_matrix, recall_per_class, score_predictions

__all__ = ["confusion_matrix", "recall_per_class", "score_predictions"]
