"""Autoencoders with a bottleneck: plain, convolutional, sparse, contractive and denoising ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.degradations import degrade
from genaug.degradations.chain import degrade_checked
from genaug.errors import GenaugError, check_share
from genaug.images import to_float, to_model
from genaug.models.anomaly import AnomalyScale
from genaug.models.autoencoder_networks import make_convolutional, make_dense
from genaug.models.base import Model, check_latents, check_noisy
from genaug.models.configs import AutoencoderConfig
from genaug.models.density import LatentDensity
from genaug.models.layers import lay_out_channels_last
from genaug.models.regularizers import contraction_estimate, contraction_of_layer, keep_largest, sparsity_kl
from genaug.models.running import draw, draw_noise, draw_seeds, inference, join, split_batches
from genaug.spec import DataSpec


class Autoencoder(Model):
    """Autoencoder with a code of `latent_dim` numbers, for images of any fixed size.

    Minimizes the error of d(e(x)) against x, plus what its options ask for:

    - `sparsity`: few units of the code are active: the mean of |z| (l1); the divergence of each unit's mean activation
      from `sparsity_target` (kl, with a sigmoid code; Ng 2011, section 3); or only the largest units are kept (top-k:
      Makhzani & Frey 2014);
    - `contraction_weight`: the code changes little with the image: |J|^2 of the encoder's Jacobian J (Rifai et al.
      2011), exactly for one layer, beyond by an estimate;
    - `degradations`: what is encoded is a degraded image (Vincent et al. 2010).

    After training, densities are fitted to the codes of each class (Ghosh et al. 2020), so that it draws samples and
    varies images too. Encoder and decoder know no classes: the class of a sample is that of its code's density.

    Args:
        spec: image format and classes; height and width must be given.
        config: fields of the family.

    >>> model = Autoencoder(DataSpec(channels=1, height=8, width=8, class_names=("a", "b")), AutoencoderConfig(width=8))
    >>> model.encode(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 32])
    """

    family = "autoencoder"
    config_class = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, spec: DataSpec, config: AutoencoderConfig | None = None) -> None:
        config = config or AutoencoderConfig()
        super().__init__(spec, config)
        if spec.height is None or spec.width is None:
            raise GenaugError(f"spec must give height and width for the autoencoder family, got {spec.size}")
        shape = (spec.channels, spec.height, spec.width)
        if config.network == "dense":
            networks = make_dense(shape, hidden=config.hidden, latent_dim=config.latent_dim)
        else:
            networks = make_convolutional(shape, width=config.width, blocks=config.blocks, latent_dim=config.latent_dim)
        self.encoder, self.decoder = networks
        self.density = LatentDensity(spec.num_classes, config.latent_dim, components=config.density_components)
        self.usual = AnomalyScale(spec.num_classes)
        lay_out_channels_last(self)

    @property
    def latent_size(self) -> int:
        """How many numbers a code has."""
        return self.config.latent_dim

    def encode_model_images(self, images: Tensor) -> Tensor:
        """Return the codes (N, D) of images (N, C, H, W) in [-1, 1]; differentiable."""
        codes = self.encoder(images).float()
        return self._confine(torch.sigmoid(codes) if self.config.code == "sigmoid" else codes)

    def _confine(self, codes: Tensor) -> Tensor:
        """Return codes (N, D), such as draws from a density, put where those of images are."""
        if self.config.code == "sigmoid":
            codes = codes.clamp(0, 1)
        if self.config.sparsity == "top-k":
            codes = keep_largest(codes, max(1, round(self.config.sparsity_target * self.latent_size)))
        return codes

    def decode_logits(self, latents: Tensor) -> Tensor:
        """Return logits (N, C, H, W) whose sigmoid is the image of codes (N, D); differentiable."""
        return self.decoder(latents).float()  # type: ignore[no-any-return]

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a seed (N,) of the degradations for each image, and normal numbers (N, D) that probe the Jacobian."""
        probe = draw((count, self.latent_size), generator, self.device)
        return {"seeds": draw_seeds(count, generator), "probe": probe}

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the reconstruction's mean error on the [0, 1] scale plus the weighted penalties, and each of them."""
        config, clean = self.config, to_float(images).float()
        shown = degrade_checked(clean, config.degradations, seeds=draws["seeds"]) if config.degradations else clean
        entered = to_model(shown).requires_grad_(config.contraction_weight > 0)
        codes = self.encode_model_images(entered)
        error = reconstruction_error(self.decode_logits(codes), clean, kind=config.loss)
        loss, figures = error, {"reconstruction": error.detach()}
        if config.contraction_weight:
            norm = self._contraction(codes, entered, draws["probe"])
            loss, figures["contraction"] = loss + config.contraction_weight * norm, norm.detach()
        if config.sparsity in ("l1", "kl"):
            penalty = codes.abs().mean() if config.sparsity == "l1" else sparsity_kl(codes, config.sparsity_target)
            loss, figures["sparsity"] = loss + config.sparsity_weight * penalty, penalty.detach()
        return loss, figures

    def _contraction(self, codes: Tensor, images: Tensor, probe: Tensor) -> Tensor:
        layer = self.encoder[-1]
        if self.config.network == "convolutional" or self.config.hidden or not isinstance(layer, nn.Linear):
            return contraction_estimate(codes, images, probe)
        kept = (codes != 0).to(codes.dtype) if self.config.sparsity == "top-k" else torch.ones_like(codes)
        slopes = codes * (1 - codes) if self.config.code == "sigmoid" else kept
        return contraction_of_layer(layer, slopes)

    def fit_after_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Fit the density of codes of every class, and what is usual of them, to public images, or to `rows`."""
        labels = self.check_batch(images, labels)
        rows = torch.arange(len(images)) if rows is None else rows
        with inference(self):
            parts = [self._look_at(images[part]) for part in rows.split(256)]
            codes, errors = (torch.cat(part) for part in zip(*parts, strict=True))
            self.density.fit(codes, torch.zeros_like(codes), labels[rows], shrinkage=self.config.density_shrinkage)
            self.usual.fit(errors, codes, labels[rows], density=self.density)

    def _look_at(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes (N, D) of public images, and the mean squared errors (N,) of what they are decoded to."""
        clean = to_float(images.to(self.device)).float()
        codes = self.encode_model_images(to_model(clean))
        return codes, (torch.sigmoid(self.decode_logits(codes)) - clean).square().flatten(1).mean(1)

    def encode(self, images: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return the codes (N, D) of public images (N, C, H, W); labels do not count.

        Raises:
            DataError: images or labels that do not match the specification.
        """
        self.check_batch(images, labels)
        with inference(self):
            return self._encode(images, batch_size)

    def _encode(self, images: Tensor, batch_size: int) -> Tensor:
        chunks = split_batches(batch_size, images)
        return torch.cat([self.encode_model_images(to_model(x.to(self.device))) for (x,) in chunks])

    def decode(self, latents: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return images (N, C, H, W), float32 in [0, 1], for codes (N, D); labels do not count.

        Raises:
            GenaugError: codes of another shape, or that are not finite.
        """
        latents = check_latents(latents, self.latent_size)
        self.check_labels(labels, len(latents))
        with inference(self):
            return self._decode(latents.to(self.device), batch_size)

    def _decode(self, latents: Tensor, batch_size: int) -> Tensor:
        chunks = split_batches(batch_size, latents)
        return join(torch.sigmoid(self.decode_logits(z)) for (z,) in chunks)

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Return new images (N, C, H, W), float32 in [0, 1]: codes drawn from the density of the classes `labels` (N,).

        Raises:
            DataError: labels of another type, or out of range.
        """
        labels = self.check_labels(labels, None)
        with inference(self):
            return self._decode(self._confine(self.density.sample(labels, generator=generator)), batch_size)

    def vary(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        strength: float,
        generator: torch.Generator | None = None,
        seeds: Tensor | None = None,
        batch_size: int = 256,
    ) -> Tensor:
        """Return variations (N, C, H, W), float32 in [0, 1], of public images: see `VAE.vary`.

        Raises:
            GenaugError: a strength outside [0, 1], images or labels that do not match, seeds of another number.
        """
        strength = check_share(strength, name="strength")
        labels = self.check_batch(images, labels)
        with inference(self):
            codes = self._encode(images, batch_size)
            if strength:
                noise = draw_noise((len(images), self.latent_size), generator, seeds, self.device)
                codes = self._confine(self.density.perturb(codes, labels, strength=strength, noise=noise))
            return self._decode(codes, batch_size)

    def restore(self, images: Tensor, *, noise_level: float | None = None, batch_size: int = 256) -> Tensor:
        """Return what an image, damaged as those of training, is taken for: its reconstruction, float32 in [0, 1].

        Args:
            images: uint8, or finite floats whose noise may lead out of [0, 1]; of the size of the specification.
            noise_level: does not count.
            batch_size: images that are computed at once.

        Raises:
            DataError: images that do not match the specification.
        """
        check_noisy(images, self.spec)
        with inference(self):
            return self._decode(self._encode(images, batch_size), batch_size)

    def anomaly_score(self, images: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return how suspicious each of public images (N, C, H, W) is, float32 (N,) in nats: higher is stranger.

        -log min(P(e), P(z)) - log p(y|z): how few training images are reconstructed with an error as large as e, or
        have a code as unlikely as z (with normal distributions of log e and of log p(z)), and how little the code
        speaks for the label (self-confidence: Northcutt et al. 2021, with a temperature: Guo et al. 2017). The first
        term finds corrupt images, the second one, 0 without labels, wrong labels. The densities themselves do not add
        up: log p(x|z) differs so much between images that no label would count. An image that is simpler than those of
        training, such as a blurred one, may have a low score.

        Raises:
            DataError: images or labels that do not match the specification.
        """
        labels = self.check_batch(images, labels)
        scores = []
        with inference(self):
            for x, y in split_batches(batch_size, images, labels):
                codes, errors = self._look_at(x)
                scores.append(self.usual.score(errors, codes, y, density=self.density))
        return torch.cat(scores)

    def illustrate(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return images, as they are encoded in training, above their reconstructions, and rows of samples."""
        shown = degrade(images, self.config.degradations, seeds=draw_seeds(len(images), generator)).clamp(0, 1)
        samples = super().illustrate(images, labels, generator=generator)
        return torch.cat([shown.to(self.device), self.restore(shown), samples])

    def measure(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> dict[str, Any]:
        """Return the reconstruction's mean squared error on held-out images, on the [0, 1] scale."""
        self.check_batch(images, labels)
        rows = torch.arange(len(images)) if rows is None else rows
        with inference(self):
            errors = [self._look_at(images[part])[1] for part in rows.split(256)]
        return {"reconstruction_mse": round(float(torch.cat(errors).mean()), 6), "held_out_images": len(rows)}


def reconstruction_error(logits: Tensor, images: Tensor, *, kind: str) -> Tensor:
    """Return the mean error of sigmoid(logits) against images in [0, 1]: squared, absolute or the cross-entropy."""
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, images)
    error = torch.sigmoid(logits) - images
    return error.square().mean() if kind == "mse" else error.abs().mean()
