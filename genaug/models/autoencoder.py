"""Autoencoders with a bottleneck: plain, convolutional, sparse, contractive and denoising ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.degradations import degrade
from genaug.degradations.chain import degrade_checked
from genaug.images import to_float, to_model
from genaug.models.anomaly import AnomalyScale
from genaug.models.autoencoder_networks import make_convolutional, make_dense
from genaug.models.base import check_noisy
from genaug.models.configs import AutoencoderConfig
from genaug.models.density import LatentDensity
from genaug.models.latent import LatentModel
from genaug.models.layers import lay_out_channels_last
from genaug.models.regularizers import contraction_estimate, contraction_of_layer, keep_largest, sparsity_kl
from genaug.models.running import draw, draw_seeds, inference, split_batches
from genaug.spec import DataSpec


class Autoencoder(LatentModel):
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
        self.latent_size = config.latent_dim
        shape = (spec.channels, *self.check_size())
        if config.network == "dense":
            networks = make_dense(shape, hidden=config.hidden, latent_dim=config.latent_dim)
        else:
            networks = make_convolutional(shape, width=config.width, blocks=config.blocks, latent_dim=config.latent_dim)
        self.encoder, self.decoder = networks
        self.density = LatentDensity(spec.num_classes, config.latent_dim, components=config.density_components)
        self.usual = AnomalyScale(spec.num_classes)
        lay_out_channels_last(self)

    def code(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the codes (N, D) of public images (N, C, H, W), whatever their labels; differentiable."""
        return self.encode_model_images(to_model(images))

    def encode_model_images(self, images: Tensor) -> Tensor:
        """Return the codes (N, D) of images (N, C, H, W) in [-1, 1]; differentiable."""
        codes = self.encoder(images).float()
        return self.confine(torch.sigmoid(codes) if self.config.code == "sigmoid" else codes)

    def confine(self, codes: Tensor) -> Tensor:
        """Return codes (N, D), such as draws from a density, put where those of images are."""
        if self.config.code == "sigmoid":
            codes = codes.clamp(0, 1)
        if self.config.sparsity == "top-k":
            codes = keep_largest(codes, max(1, round(self.config.sparsity_target * self.latent_size)))
        return codes

    def decode_logits(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits (N, C, H, W) whose sigmoid is the image of codes (N, D), whatever their labels."""
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
        labels = self.check_labels(None, len(images))
        with inference(self):
            return self._decode(self._encode(images, labels, batch_size), labels, batch_size)

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
