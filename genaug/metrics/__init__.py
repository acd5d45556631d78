"""Pure functions on predictions and on features."""

from genaug.metrics.classification import confusion_matrix, recall_per_class, score_predictions
from genaug.metrics.fidelity import frechet_distance, kernel_distance
from genaug.metrics.manifold import ManifoldScores, manifold_scores
from genaug.metrics.memorization import DataCopyingTest, data_copying_test
from genaug.metrics.neighbors import nearest_neighbors

__all__ = [
    "DataCopyingTest",
    "ManifoldScores",
    "confusion_matrix",
    "data_copying_test",
    "frechet_distance",
    "kernel_distance",
    "manifold_scores",
    "nearest_neighbors",
    "recall_per_class",
    "score_predictions",
]
