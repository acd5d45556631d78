"""Transforms for `torchvision.transforms.v2` pipelines that run a model of genaug."""

from genaug.transforms.base import ModelTransform
from genaug.transforms.batch import BatchTransform, LatentMix, ReplaceWithSynthetic
from genaug.transforms.denoise import Denoise
from genaug.transforms.latent import LatentJitter, Reconstruct

__all__ = [
    "BatchTransform",
    "Denoise",
    "LatentJitter",
    "LatentMix",
    "ModelTransform",
    "Reconstruct",
    "ReplaceWithSynthetic",
]
