"""Conditional variational autoencoder (Kingma & Welling 2014; conditional: Sohn et al. 2015)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.errors import GenaugError, shorten
from genaug.images import to_float, to_model
from genaug.models.base import Model, draw, draw_uniform, inference, split_batches
from genaug.models.density import LatentDensity
from genaug.models.layers import ConvDecoder, ConvEncoder, one_hot
from genaug.spec import DataSpec


@dataclass(frozen=True)
class VAEConfig:
    """Fields of the `vae` family.

    Raises:
        GenaugError: a field out of its range.
    """

    latent_dim: int = 16
    width: int = 32  # channels at full size; doubled at each halving, up to four times
    blocks: int = 1  # residual blocks at each size
    hidden: int = 256  # units of the dense layer before the posterior
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    likelihood_std: float = 0.1  # of the Gaussian likelihood, on the [0, 1] scale
    beta: float = 1.0  # weight of the KL term (Higgins et al. 2017)
    free_bits: float = 0.0  # nats per latent dimension that cost nothing (Kingma et al. 2016)
    label_dropout: float = 0.1  # share of labels replaced by the null class in training
    density_components: int = 1  # Gaussians per class in the density of latents
    density_shrinkage: float = 20.0  # weight of the pooled covariance, in images

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "latent_dim": (1, 4096),
            "width": (1, 4096),
            "blocks": (0, 32),
            "hidden": (1, 65536),
            "likelihood_std": (1e-4, 10.0),
            "beta": (0.0, 1e4),
            "free_bits": (0.0, 100.0),
            "label_dropout": (0.0, 1.0),
            "density_components": (1, 256),
            "density_shrinkage": (0.0, 1e9),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise GenaugError(f"{name} must be from {low:g} to {high:g}, got {shorten(getattr(self, name))}")


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of each element: Kingma & Welling 2014, appendix B.

    >>> kl_to_standard_normal(torch.tensor([0.0, 1.0]), torch.zeros(2))
    tensor([0.0000, 0.5000])
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def log_likelihood(logits: Tensor, targets: Tensor, *, std: float | None = None) -> Tensor:
    """Return log p(x|z) of each image (N,) in nats, for targets (N, C, H, W) in [0, 1].

    Without `std` the Bernoulli one of Kingma & Welling 2014, appendix C.1 (for gray levels a cross-entropy, not a
    normalized density), else the Gaussian one with mean sigmoid(logits) and standard deviation `std`.
    """
    if std is None:
        terms = -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        error = (targets - torch.sigmoid(logits)) / std
        terms = -0.5 * error.square() - math.log(std) - 0.5 * math.log(2 * math.pi)
    return terms.flatten(1).sum(1)


class VAE(Model):
    """Conditional convolutional VAE for images of any fixed size.

    The evidence lower bound (Kingma & Welling 2014, eq. 3, with labels y):
    L(x, y) = E_q(z|x,y)[log p(x|z,y)] - beta KL(q(z|x,y) || p(z)), one sample of z per image, p(z) = N(0, I).
    Labels are dropped at random in training, so the null class (index `num_classes`) means "no label".

    Args:
        spec: image format and classes; height and width must be given.
        config: fields of the family.

    >>> model = VAE(DataSpec(channels=1, height=8, width=8, class_names=("a", "b")), VAEConfig(width=8))
    >>> model.sample(torch.tensor([0, 1, 1])).shape
    torch.Size([3, 1, 8, 8])
    """

    family = "vae"
    config_class = VAEConfig
    config: VAEConfig

    def __init__(self, spec: DataSpec, config: VAEConfig | None = None) -> None:
        config = config or VAEConfig()
        super().__init__(spec, config)
        if spec.height is None or spec.width is None:
            raise GenaugError(f"spec must give height and width for the vae family, got {spec.size}")
        size, classes = (spec.height, spec.width), spec.num_classes + 1
        self.encoder = ConvEncoder(spec.channels, size, width=config.width, blocks=config.blocks)
        self.posterior_head = nn.Sequential(
            nn.Linear(self.encoder.features + classes, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, 2 * config.latent_dim),
        )
        self.decoder = ConvDecoder(
            config.latent_dim + classes, spec.channels, size, width=config.width, blocks=config.blocks
        )
        self.density = LatentDensity(spec.num_classes, config.latent_dim, components=config.density_components)

    def posterior(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (N, D) of q(z|x,y) for public images; differentiable."""
        h = self.encoder(to_model(images))
        h = self.posterior_head(torch.cat([h, one_hot(labels, self.null_label).to(h.dtype)], 1))
        mean, log_variance = h.float().chunk(2, 1)
        return mean, log_variance.clamp(-14.0, 14.0)

    def decode_logits(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N, C, H, W) whose sigmoid is the mean of p(x|z,y); differentiable."""
        h = torch.cat([latents, one_hot(labels, self.null_label)], 1)
        return self.decoder(h).float()  # type: ignore[no-any-return]

    def elbo(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x|z,y) (N,) and the KL of each latent dimension (N, D) in nats, at z = mean + std * noise."""
        mean, log_variance = self.posterior(images, labels)
        latents = mean + (0.5 * log_variance).exp() * noise
        std = self.config.likelihood_std if self.config.likelihood == "gaussian" else None
        likelihood = log_likelihood(self.decode_logits(latents, labels), to_float(images), std=std)
        return likelihood, kl_to_standard_normal(mean, log_variance)

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return uniform numbers (N,) that decide which labels are dropped, and normal ones (N, D) for the latents."""
        dropout = draw_uniform((count,), generator, self.device)
        return {"dropout": dropout, "noise": draw((count, self.config.latent_dim), generator, self.device)}

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the lower bound in nats per pixel value, and its parts in nats per image.

        With free bits (Kingma et al. 2016, eq. 15) a dimension whose mean KL is below `free_bits` costs that much.
        """
        labels = labels.masked_fill(draws["dropout"] < self.config.label_dropout, self.null_label)
        likelihood, kl = self.elbo(images, labels, draws["noise"])
        reconstruction, kl_per_dim = -likelihood.mean(), kl.mean(0)
        penalty = kl_per_dim.clamp(min=self.config.free_bits).sum()
        loss = (reconstruction + self.config.beta * penalty) / images[0].numel()
        return loss, {"reconstruction": reconstruction.detach(), "kl": kl_per_dim.detach().sum()}

    def fit_after_training(self, images: Tensor, labels: Tensor) -> None:
        """Fit the density of latents of every class to public `images` (N, C, H, W) and `labels` (N,)."""
        labels = self.check_batch(images, labels)
        with inference(self):
            stats = [self.posterior(x.to(self.device), y) for x, y in split_batches(256, images, labels)]
            mean, log_variance = (torch.cat(part) for part in zip(*stats, strict=True))
            self.density.fit(mean, log_variance.exp(), labels, shrinkage=self.config.density_shrinkage)

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Return new images (N, C, H, W), float32 in [0, 1], of the classes `labels` (N,), null class included.

        Latents come from the density of the class; see `LatentDensity`. The result depends on `generator` alone (on
        torch's global one without it), not on `batch_size`, beyond rounding.

        Raises:
            DataError: labels of another type, or out of range.
        """
        labels = self.check_labels(labels, len(labels))
        with inference(self):
            return self._decode(self.density.sample(labels, generator=generator), labels, batch_size)

    def encode(self, images: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return the latents (N, D) of public images (N, C, H, W): the means of q(z|x,y).

        Raises:
            DataError: images or labels that do not match the specification.
        """
        labels = self.check_batch(images, labels)
        with inference(self):
            latents = [self.posterior(x.to(self.device), y)[0] for x, y in split_batches(batch_size, images, labels)]
        return torch.cat(latents)

    def decode(self, latents: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return images (N, C, H, W), float32 in [0, 1], for latents (N, D).

        Raises:
            GenaugError: latents of another shape, or labels that do not match.
        """
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_dim:
            raise GenaugError(f"latents must have shape (N, {self.config.latent_dim}), got {tuple(latents.shape)}")
        if not latents.isfinite().all():
            raise GenaugError("latents must be finite, got NaN or infinite values")
        labels = self.check_labels(labels, len(latents))
        with inference(self):
            return self._decode(latents.to(self.device), labels, batch_size)

    def vary(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        strength: float,
        generator: torch.Generator | None = None,
        batch_size: int = 256,
    ) -> Tensor:
        """Return variations (N, C, H, W), float32 in [0, 1], of public images within their class.

        A `strength` of 0 gives the reconstruction, 1 a new sample of the class, or with several Gaussians a class, of
        the one that the image belongs to; see `LatentDensity.perturb`. Without labels "the class" is all images.

        Raises:
            GenaugError: a strength outside [0, 1], or images or labels that do not match.
        """
        if not 0.0 <= strength <= 1.0:
            raise GenaugError(f"strength must be from 0 to 1, got {shorten(strength)}")
        labels = self.check_batch(images, labels)
        noise = draw((len(images), self.config.latent_dim), generator, self.device)
        latents = self.encode(images, labels, batch_size=batch_size)
        with inference(self):
            latents = self.density.perturb(latents, labels, strength=strength, noise=noise)
            return self._decode(latents, labels, batch_size)

    def _decode(self, latents: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        chunks = split_batches(batch_size, latents, labels)
        return torch.cat([torch.sigmoid(self.decode_logits(z, y)) for z, y in chunks])

    def measure(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return on held-out images the lower bound in nats per image and the reconstruction's mean squared error."""
        device_labels = self.check_batch(images, labels)
        noise = draw((len(images), self.config.latent_dim), torch.Generator().manual_seed(0), self.device)
        with inference(self):
            bounds, errors = [], []
            for x, y, e in split_batches(256, images, device_labels, noise):
                x = x.to(self.device)
                likelihood, kl = self.elbo(x, y, e)
                bounds.append(likelihood - kl.sum(1))
                mean = torch.sigmoid(self.decode_logits(self.posterior(x, y)[0], y))
                errors.append((mean - to_float(x)).square().flatten(1).mean(1))
        bound, error = torch.cat(bounds), torch.cat(errors)
        return {
            "elbo_nats": round(float(bound.mean()), 4),
            "reconstruction_mse": round(float(error.mean()), 6),
            "held_out_images": len(images),
        }
