"""Model families, the small classifier, and their losses."""

from genaug.models.base import Model, require
from genaug.models.classifier import SmallCNN
from genaug.models.gan import GAN, GANConfig
from genaug.models.vae import VAE, VAEConfig

FAMILIES: dict[str, type[Model]] = {"gan": GAN, "vae": VAE}

__all__ = ["FAMILIES", "GAN", "VAE", "GANConfig", "Model", "SmallCNN", "VAEConfig", "require"]
