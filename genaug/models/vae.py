"""Conditional variational autoencoder (Kingma & Welling 2014; conditional: Sohn et al. 2015)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genaug.images import to_float, to_model
from genaug.models.configs import VAEConfig
from genaug.models.density import LatentDensity
from genaug.models.latent import LatentModel
from genaug.models.layers import ConvDecoder, ConvEncoder, lay_out_channels_last, one_hot
from genaug.models.likelihood import SMALLEST_STD, kl_to_standard_normal, log_likelihood
from genaug.models.running import draw, draw_uniform, inference, split_batches
from genaug.spec import DataSpec

FIRST_STD = 0.1  # where a learned one starts
STD_SPEED = 10.0  # AdamW moves each parameter by about its learning rate: too little for the log of this one


def _split(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance (N, D) from the output (N, 2D, ...) of a posterior's head."""
    mean, log_variance = (part.flatten(1) for part in statistics.float().chunk(2, 1))
    return mean, log_variance.clamp(-14.0, 14.0)


def _reparametrize(mean: Tensor, log_variance: Tensor, noise: Tensor | None) -> Tensor:
    return mean if noise is None else mean + (0.5 * log_variance).exp() * noise


class VAE(LatentModel):
    """Conditional convolutional VAE for images of any fixed size.

    The evidence lower bound (Kingma & Welling 2014, eq. 3, with labels y):
    L(x, y) = E_q(z|x,y)[log p(x|z,y)] - beta KL(q(z|x,y) || p(z)), one sample of z per image, p(z) = N(0, I).
    z has two levels: a vector, and a map that enters the decoder halfway, whose prior and posterior depend on the
    vector (ladder VAE: Sonderby et al. 2016). The latents (N, `latent_size`) hold the vector, then the map standardized
    by its prior, so that the prior of all of it is N(0, I).
    The standard deviation of a Gaussian p(x|z,y) is one number, learned with the weights where the configuration gives
    none (sigma-VAE: Rybkin et al. 2021). Labels are dropped at random in training, so the null class (index
    `num_classes`) means "no label".

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
        size, classes = self.check_size(), spec.num_classes + 1
        self.encoder = ConvEncoder(spec.channels, size, width=config.width, blocks=config.blocks)
        self.posterior_head = nn.Sequential(
            nn.Linear(self.encoder.features + classes, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, 2 * config.latent_dim),
        )
        self.decoder = ConvDecoder(
            config.latent_dim + classes, spec.channels, size, width=config.width, blocks=config.blocks
        )
        channels, *positions = self.decoder.map_shape
        self._map_latents = (config.map_channels, *positions)
        self.latent_size = config.latent_dim + math.prod(self._map_latents)
        if config.map_channels:
            self.map_head = nn.Sequential(
                nn.Conv2d(2 * channels, channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(channels, 2 * config.map_channels, 1),
            )
            self.map_prior = nn.Conv2d(channels, 2 * config.map_channels, 1)
            self.map_input = nn.Conv2d(config.map_channels, channels, 1)
            for layer in (self.map_head[-1], self.map_prior):  # at the start both are N(0, I)
                nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.density = LatentDensity(spec.num_classes, self.latent_size, components=config.density_components)
        if config.likelihood == "gaussian" and config.likelihood_std is None:
            self.scaled_log_std = nn.Parameter(torch.tensor(math.log(FIRST_STD) / STD_SPEED))
        lay_out_channels_last(self)

    @property
    def likelihood_std(self) -> Tensor | None:
        """Standard deviation () of the Gaussian likelihood on the [0, 1] scale; None for the Bernoulli one."""
        if self.config.likelihood == "bernoulli":
            return None
        if self.config.likelihood_std is not None:
            return torch.tensor(self.config.likelihood_std, device=self.device)
        slow = self.scaled_log_std / STD_SPEED  # has the gradient, made small: it would rule the norm that is clipped
        return (STD_SPEED * self.scaled_log_std.detach() + slow - slow.detach()).exp().clamp(min=SMALLEST_STD)

    def posterior(self, images: Tensor, labels: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and log-variance (N, D) of q(z|x,y) for public images, and logits; differentiable.

        The map's part of q depends on the vector's part of z: z = mean + std * noise, or the mean without `noise`
        (N, D). The logits (N, C, H, W) are those that z decodes to; see `decode_logits`.
        """
        mean, log_variance, h = self._infer(images, labels, noise)
        return mean, log_variance, self.decoder.to_images(h).float()

    def _infer(self, images: Tensor, labels: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `posterior` does, but for the logits the decoder's map (N, M, h, w) that they come from."""
        dim, label = self.config.latent_dim, one_hot(labels, self.null_label)
        maps, features = self.encoder(to_model(images))
        first = self.posterior_head(torch.cat([features, label.to(features.dtype)], 1))
        mean, log_variance = _split(first)
        codes = _reparametrize(mean, log_variance, None if noise is None else noise[:, :dim])
        h = self.decoder.to_map(torch.cat([codes, label], 1))
        if self.config.map_channels:
            map_mean, map_log_variance = _split(self.map_head(torch.cat([h, maps], 1)))
            second = _reparametrize(map_mean, map_log_variance, None if noise is None else noise[:, dim:])
            h = self._add_map(h, second)
            mean, log_variance = torch.cat([mean, map_mean], 1), torch.cat([log_variance, map_log_variance], 1)
        return mean, log_variance, h

    def code(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the means (N, D) of q(z|x,y); see `LatentModel`."""
        return self._infer(images, labels)[0]

    def decode_logits(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N, C, H, W) whose sigmoid is the mean of p(x|z,y), for z (N, D); differentiable."""
        first, second = latents.split((self.config.latent_dim, self.latent_size - self.config.latent_dim), 1)
        h = self.decoder.to_map(torch.cat([first, one_hot(labels, self.null_label)], 1))
        return self.decoder.to_images(self._add_map(h, second)).float()  # type: ignore[no-any-return]

    def _add_map(self, h: Tensor, second: Tensor) -> Tensor:
        """Return the decoder's map with the second latent, given by its distance to p(map|vector, y) in its units."""
        if not self.config.map_channels:
            return h
        mean, log_variance = self.map_prior(h).float().clamp(-8.0, 8.0).chunk(2, 1)
        latent_map = mean + (0.5 * log_variance).exp() * second.unflatten(1, self._map_latents)
        return h + self.map_input(latent_map)  # type: ignore[no-any-return]

    def elbo(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x|z,y) (N,) and the KL of each latent dimension (N, D) in nats, at z = mean + std * noise."""
        mean, log_variance, logits = self.posterior(images, labels, noise)
        likelihood = log_likelihood(logits, to_float(images), std=self.likelihood_std)
        return likelihood, kl_to_standard_normal(mean, log_variance)

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return uniform numbers (N,) that decide which labels are dropped, and normal ones (N, D) for the latents."""
        dropout = draw_uniform((count,), generator, self.device)
        return {"dropout": dropout, "noise": draw((count, self.latent_size), generator, self.device)}

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the lower bound in nats per pixel value, and its parts in nats per image.

        With free bits (Kingma et al. 2016, eq. 15) a dimension whose mean KL is below `free_bits` costs that much.
        """
        if hasattr(self, "scaled_log_std"):
            with torch.no_grad():  # a step may have led below the floor, where no gradient leads back
                self.scaled_log_std.clamp_(min=math.log(1.001 * SMALLEST_STD) / STD_SPEED)
        labels = labels.masked_fill(draws["dropout"] < self.config.label_dropout, self.null_label)
        likelihood, kl = self.elbo(images, labels, draws["noise"])
        reconstruction, kl_per_dim = -likelihood.mean(), kl.mean(0)
        penalty = kl_per_dim.clamp(min=self.config.free_bits).sum()
        loss = (reconstruction + self.config.beta * penalty) / images[0].numel()
        figures = {"reconstruction": reconstruction.detach(), "kl": kl_per_dim.detach().sum()}
        if self.likelihood_std is not None:
            figures["likelihood_std"] = self.likelihood_std.detach()
        return loss, figures

    def fit_after_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Fit the density of latents of every class to public images (N, C, H, W) and labels (N,), or to `rows`.

        That of the null class is fitted to what images are encoded as without labels.
        """
        labels = self.check_batch(images, labels)
        rows = torch.arange(len(images)) if rows is None else rows
        with inference(self):
            labeled = self._posteriors(images, labels, rows)
            unlabeled = self._posteriors(images, torch.full_like(labels, self.null_label), rows)
            shrinkage = self.config.density_shrinkage
            self.density.fit(*labeled, labels[rows], shrinkage=shrinkage, unlabeled=unlabeled)

    def _posteriors(self, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and variances (N, D) of the latents of `rows`."""
        stats = [self._infer(images[part].to(self.device), labels[part])[:2] for part in rows.split(256)]
        mean, log_variance = (torch.cat(part) for part in zip(*stats, strict=True))
        return mean, log_variance.exp()

    def measure(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> dict[str, Any]:
        """Return the lower bound and the reconstruction's mean squared error on held-out images.

        `elbo_nats` is per image, of a density on the [0, 1] scale. `bits_per_dim`, for the Gaussian likelihood, is
        minus the bound on the discrete log-likelihood of 8-bit levels, per pixel value and in bits: noise of one level
        is added to the images, which makes the density of a level's interval its probability (Theis et al. 2016,
        section 3.1). The Bernoulli likelihood is no density of gray levels and has no such figure.
        """
        labels = self.check_batch(images, labels)
        rows = torch.arange(len(images)) if rows is None else rows
        generator = torch.Generator().manual_seed(0)
        noise = draw((len(rows), self.latent_size), generator, self.device)
        has_density = self.likelihood_std is not None
        with inference(self):
            bounds, errors = [], []
            for part, e in split_batches(256, rows, noise):
                x, y = to_float(images[part].to(self.device)), labels[part]
                levels = draw_uniform(tuple(x.shape), generator, self.device) if has_density else None
                likelihood, kl = self.elbo(x if levels is None else (255 * x + levels) / 256, y, e)
                bounds.append(likelihood - kl.sum(1))
                mean = torch.sigmoid(self.posterior(x, y)[2])
                errors.append((mean - x).square().flatten(1).mean(1))
        bound, error = float(torch.cat(bounds).mean()), torch.cat(errors)
        scores: dict[str, Any] = {"elbo_nats": round(bound, 4)}
        if has_density:
            scores["bits_per_dim"] = round(8 - bound / (images[0].numel() * math.log(2)), 4)
        return scores | {"reconstruction_mse": round(float(error.mean()), 6), "held_out_images": len(rows)}
