"""Model families, the classifiers that comparisons train, and their losses."""

from collections.abc import Callable
from functools import partial

from torch import nn

from genaug.models.autoencoder import Autoencoder
from genaug.models.base import Model, require
from genaug.models.classifier import SmallCNN
from genaug.models.configs import AutoencoderConfig, DenoiserConfig, GANConfig, VAEConfig
from genaug.models.denoiser import Denoiser
from genaug.models.gan import GAN
from genaug.models.resnet import ResNet18, ResNet32
from genaug.models.vae import VAE
from genaug.spec import DataSpec

FAMILIES: dict[str, type[Model]] = {"autoencoder": Autoencoder, "denoiser": Denoiser, "gan": GAN, "vae": VAE}
CLASSIFIERS: dict[str, Callable[[DataSpec], nn.Module]] = {
    "small-cnn": SmallCNN,
    "small-cnn-16": partial(SmallCNN, width=16),
    "resnet18": ResNet18,
    "resnet32": ResNet32,
}

__all__ = [
    "CLASSIFIERS",
    "FAMILIES",
    "GAN",
    "VAE",
    "Autoencoder",
    "AutoencoderConfig",
    "Denoiser",
    "DenoiserConfig",
    "GANConfig",
    "Model",
    "ResNet18",
    "ResNet32",
    "SmallCNN",
    "VAEConfig",
    "require",
]
