"""What noise, blur and loss do to images: to train denoising autoencoders, for tests, and as rows of evaluations."""

from genaug.degradations.base import Degradation
from genaug.degradations.blur import GaussianBlur, MotionBlur
from genaug.degradations.chain import DEGRADATIONS, degrade, describe, parse_degradation, parse_degradations
from genaug.degradations.loss import Downsample, Jpeg
from genaug.degradations.missing import MissingPixels, MissingRectangles
from genaug.degradations.noise import Clip, GaussianNoise, PoissonNoise, SaltAndPepper, SpeckleNoise, UniformNoise

__all__ = [
    "DEGRADATIONS",
    "Clip",
    "Degradation",
    "Downsample",
    "GaussianBlur",
    "GaussianNoise",
    "Jpeg",
    "MissingPixels",
    "MissingRectangles",
    "MotionBlur",
    "PoissonNoise",
    "SaltAndPepper",
    "SpeckleNoise",
    "UniformNoise",
    "degrade",
    "describe",
    "parse_degradation",
    "parse_degradations",
]
