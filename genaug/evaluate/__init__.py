"""Does it help? The same classifier under several arms, on held-out real images. And how good are the samples?"""

from genaug.evaluate.arms import Arm, Budget
from genaug.evaluate.comparison import Comparison
from genaug.evaluate.copies import ClassCopies, CopyAudit, CopyFigures, CopyPair
from genaug.evaluate.denoising import DenoisingResult, DenoisingRow, measure_denoising
from genaug.evaluate.fidelity import measure_fidelity
from genaug.evaluate.figures import ClassFidelity, ClassMean, Distance, FidelityResult
from genaug.evaluate.intervals import Difference
from genaug.evaluate.memorization import audit_copies
from genaug.evaluate.robustness import RobustnessResult, measure_robustness
from genaug.evaluate.runs import compare_arms

__all__ = [
    "Arm",
    "Budget",
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
