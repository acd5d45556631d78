"""Pure functions on predictions and on features."""

from genaug.metrics.classification import confusion_matrix, recall_per_class, score_predictions
from genaug.metrics.fidelity import frechet_distance, kernel_distance

__all__ = ["confusion_matrix", "frechet_distance", "kernel_distance", "recall_per_class", "score_predictions"]
