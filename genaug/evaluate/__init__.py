"""Does it help? The same classifier under several arms, on held-out real images. And how good are the samples?"""

from genaug.evaluate.arms import Arm
from genaug.evaluate.comparison import Comparison, Difference, compare_arms
from genaug.evaluate.copies import ClassCopies, CopyAudit, CopyFigures, CopyPair
from genaug.evaluate.denoising import DenoisingResult, DenoisingRow, measure_denoising
from genaug.evaluate.fidelity import measure_fidelity
from genaug.evaluate.figures import ClassFidelity, ClassMean, Distance, FidelityResult
from genaug.evaluate.memorization import audit_copies
from genaug.evaluate.robustness import RobustnessResult, measure_robustness

__all__ = [
    "Arm",
    "ClassCopies",
    "ClassFidelity",
    "ClassMean",
    "Comparison",
    "CopyAudit",
    "CopyFigures",
    "CopyPair",
    "DenoisingResult",
    "DenoisingRow",
    "Difference",
    "Distance",
    "FidelityResult",
    "RobustnessResult",
    "audit_copies",
    "compare_arms",
    "measure_denoising",
    "measure_fidelity",
    "measure_robustness",
]
