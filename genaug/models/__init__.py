"""Model families, the small classifier, and their losses."""

from genaug.models.autoencoder import Autoencoder, AutoencoderConfig
from genaug.models.base import Model, require
from genaug.models.classifier import SmallCNN
from genaug.models.denoiser import Denoiser, DenoiserConfig
from genaug.models.gan import GAN, GANConfig
from genaug.models.vae import VAE, VAEConfig

FAMILIES: dict[str, type[Model]] = {"autoencoder": Autoencoder, "denoiser": Denoiser, "gan": GAN, "vae": VAE}

__all__ = [
    "FAMILIES",
    "GAN",
    "VAE",
    "Autoencoder",
    "AutoencoderConfig",
    "Denoiser",
    "DenoiserConfig",
    "GANConfig",
    "Model",
    "SmallCNN",
    "VAEConfig",
    "require",
]
