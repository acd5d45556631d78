"""Model families, the small classifier, and their losses."""

from genaug.models.base import Model, require
from genaug.models.classifier import SmallCNN
from genaug.models.vae import VAE, VAEConfig

FAMILIES: dict[str, type[Model]] = {"vae": VAE}

__all__ = ["FAMILIES", "VAE", "Model", "SmallCNN", "VAEConfig", "require"]
