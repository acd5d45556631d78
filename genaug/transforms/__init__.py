"""Transforms for `torchvision.transforms.v2` pipelines that run a model of genaug."""

from genaug.transforms.base import ModelTransform
from genaug.transforms.latent import LatentJitter, Reconstruct

__all__ = ["LatentJitter", "ModelTransform", "Reconstruct"]
