"""Pure functions on predictions and on features."""

from genaug.metrics.classification import confusion_matrix, recall_per_class, score_predictions
from genaug.metrics.fidelity import frechet_distance, kernel_distance
from genaug.metrics.manifold import ManifoldScores, manifold_scores
from genaug.metrics.memorization import (
    CopyScores,
    DataCopyingTest,
    copy_scores,
    copy_threshold,
    data_copying_test,
    near_copies,
)
from genaug.metrics.neighbors import nearest_neighbors

__all__ = [
    "CopyScores",
    "DataCopyingTest",
    "ManifoldScores",
    "confusion_matrix",
    "copy_scores",
    "copy_threshold",
    "data_copying_test",
    "frechet_distance",
    "kernel_distance",
    "manifold_scores",
    "near_copies",
    "nearest_neighbors",
    "recall_per_class",
    "score_predictions",
]
