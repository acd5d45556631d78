"""Does it help? The same classifier under several arms, on held-out real images."""

from genaug.evaluate.arms import Arm
from genaug.evaluate.comparison import Comparison, Difference, compare_arms

__all__ = ["Arm", "Comparison", "Difference", "compare_arms"]
