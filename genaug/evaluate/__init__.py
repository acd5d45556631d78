"""Does it help? The same classifier under several arms, on held-out real images. And how good are the samples?"""

from genaug.evaluate.arms import Arm
from genaug.evaluate.comparison import Comparison, Difference, compare_arms
from genaug.evaluate.fidelity import ClassFidelity, Distance, FidelityResult, measure_fidelity

__all__ = [
    "Arm",
    "ClassFidelity",
    "Comparison",
    "Difference",
    "Distance",
    "FidelityResult",
    "compare_arms",
    "measure_fidelity",
]
