"""Conditional GAN for small, imbalanced data: norm-free residual networks, projection, several losses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genaug.errors import GenaugError, shorten
from genaug.images import from_model, to_model
from genaug.models.adversarial import (
    LossName,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    interpolated_penalty,
    minibatch_std,
)
from genaug.models.base import Model, ParameterGroup
from genaug.models.diffaugment import DRAWS, POLICIES, augment
from genaug.models.layers import Downsample, Upsample, lay_out_channels_last, pyramid, stage_widths
from genaug.models.running import draw, draw_uniform, inference, split_batches
from genaug.spec import DataSpec

PENALTIES = {"hinge": 0.0, "non-saturating": 1.0, "wasserstein-gp": 10.0, "relativistic": 1.0}


@dataclass(frozen=True)
class GANConfig:
    """Fields of the `gan` family.

    Raises:
        GenaugError: a field out of its range.
    """

    latent_dim: int = 64
    style_dim: int = 128  # what class and latent become, and modulates every block
    width: int = 32  # channels at full size; doubled at each halving, up to four times
    discriminator_width: int = 32
    blocks: int = 1  # residual blocks at each size
    loss: LossName = "hinge"
    penalty: float | None = (
        None  # weight of the gradient penalty that the loss has; None: 0 hinge, 1 R1, 10 WGAN, 1 R1+R2
    )
    spectral_norm: bool = True
    minibatch_std: bool = False
    augment: tuple[str, ...] = ("color", "translation", "cutout")
    discriminator_rate: float = 1.0  # its learning rate, times training.learning_rate
    label_dropout: float = 0.1  # share of labels that become the null class

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "latent_dim": (1, 4096),
            "style_dim": (1, 4096),
            "width": (1, 1024),
            "discriminator_width": (1, 1024),
            "blocks": (0, 16),
            "penalty": (0.0, 1e4),
            "discriminator_rate": (1e-3, 1e3),
            "label_dropout": (0.0, 1.0),
        }
        for name, (low, high) in limits.items():
            if name == "penalty" and self.penalty is None:
                continue
            if not low <= getattr(self, name) <= high:
                raise GenaugError(f"{name} must be from {low:g} to {high:g}, got {shorten(getattr(self, name))}")
        unknown = [policy for policy in self.augment if policy not in POLICIES]
        if unknown:
            raise GenaugError(f"augment must be of {', '.join(POLICIES)}, got {shorten(unknown)}")

    @property
    def penalty_weight(self) -> float:
        """Weight of the gradient penalty."""
        return PENALTIES[self.loss] if self.penalty is None else self.penalty


class ModulatedBlock(nn.Module):
    """x + conv(silu(g * conv(silu(x)) + b)) with a gain g and a bias b from a style: (N, C, H, W) -> (N, C, H, W).

    No normalization; the last convolution starts at zero, so that a deep stack starts as the identity (Zhang et al.
    2019).
    """

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(style_dim, 2 * channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return x plus the residual under `style` (N, S)."""
        gain, bias = self.modulation(style)[:, :, None, None].chunk(2, 1)
        h = self.conv1(F.silu(x))
        return x + self.conv2(F.silu(h * (1 + gain) + bias))  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Latents (N, D) and labels (N,) -> images (N, C, H, W) in [-1, 1]; without statistics of batches.

    Class and latent become a style by two linear layers, which modulates every residual block.
    """

    def __init__(self, spec: DataSpec, config: GANConfig) -> None:
        super().__init__()
        size = (int(spec.height or 0), int(spec.width or 0))
        sizes, widths = pyramid(*size), stage_widths(size, config.width)
        self.classes = nn.Embedding(spec.num_classes + 1, config.style_dim)
        self.style = nn.Sequential(
            nn.Linear(config.latent_dim + config.style_dim, config.style_dim),
            nn.SiLU(),
            nn.Linear(config.style_dim, config.style_dim),
        )
        self.first = (widths[-1], *sizes[-1])
        self.start = nn.Linear(config.latent_dim + config.style_dim, math.prod(self.first))
        for layer in (self.style[0], self.style[2], self.start):  # keeps the variance of what comes in
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)  # type: ignore[arg-type, operator]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(len(sizes))):
            last = stage + 1 == len(sizes)
            self.ups.append(nn.Identity() if last else Upsample(widths[stage + 1], widths[stage], sizes[stage]))
            self.blocks.append(
                nn.ModuleList(ModulatedBlock(widths[stage], config.style_dim) for _ in range(config.blocks))
            )
        self.to_image = nn.Conv2d(config.width, spec.channels, 3, padding=1)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return images in [-1, 1]."""
        latents = latents * latents.square().mean(1, keepdim=True).add(1e-8).rsqrt()
        given = torch.cat([latents, self.classes(labels)], 1)
        style = F.silu(self.style(given))
        h = self.start(given).unflatten(1, self.first)
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            h = up(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, style)
        return torch.tanh(self.to_image(F.silu(h)).float())


class Discriminator(nn.Module):
    """Images (N, C, H, W) in [-1, 1] and labels (N,) -> logits (N,), by projection.

    D(x, y) = u . f(x) + c + e_y . f(x) with features f of a residual network (Miyato & Koyama 2018, eq. 3); spectral
    norm of every layer (Miyato et al. 2018) where it is asked for.
    """

    def __init__(self, spec: DataSpec, config: GANConfig) -> None:
        super().__init__()
        size = (int(spec.height or 0), int(spec.width or 0))
        sizes, widths = pyramid(*size), stage_widths(size, config.discriminator_width)
        self.from_image = nn.Conv2d(spec.channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList()
        for stage in range(len(sizes)):
            blocks = [CriticBlock(widths[stage]) for _ in range(config.blocks)]
            down = [Downsample(widths[stage - 1], widths[stage])] if stage else []
            self.stages.append(nn.Sequential(*down, *blocks))
        self.with_std = config.minibatch_std
        inputs = (widths[-1] + config.minibatch_std) * math.prod(sizes[-1])
        self.to_features = nn.Linear(inputs, 4 * config.discriminator_width)
        self.to_logit = nn.Linear(4 * config.discriminator_width, 1)
        self.classes = nn.Embedding(spec.num_classes + 1, 4 * config.discriminator_width)
        nn.init.zeros_(self.classes.weight) if not config.spectral_norm else nn.init.normal_(
            self.classes.weight, std=0.1
        )
        if config.spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
                    spectral_norm(module)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N,)."""
        h = self.from_image(images)
        for stage in self.stages:
            h = stage(h)
        h = F.leaky_relu(h, 0.2)
        if self.with_std:
            h = minibatch_std(h)
        features = F.leaky_relu(self.to_features(h.flatten(1)), 0.2)
        projected = (self.classes(labels) * features).sum(1) / math.sqrt(features.shape[1])
        return (self.to_logit(features)[:, 0] + projected).float()  # type: ignore[no-any-return]


class CriticBlock(nn.Module):
    """x + conv(lrelu(conv(lrelu(x)))), (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual."""
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))  # type: ignore[no-any-return]


class GAN(Model):
    """Conditional generative adversarial network (Goodfellow et al. 2014) for images of any fixed size.

    Generator and discriminator take their steps at once, each on its own loss, on the same labels for real and
    generated images. Labels are dropped at random in training, so the null class means "no label".

    Args:
        spec: image format and classes; height and width must be given.
        config: fields of the family.

    >>> model = GAN(DataSpec(channels=1, height=8, width=8, class_names=("a", "b")), GANConfig(width=8))
    >>> model.sample(torch.tensor([0, 1, 1])).shape
    torch.Size([3, 1, 8, 8])
    """

    family = "gan"
    config_class = GANConfig
    config: GANConfig

    def __init__(self, spec: DataSpec, config: GANConfig | None = None) -> None:
        config = config or GANConfig()
        super().__init__(spec, config)
        if spec.height is None or spec.width is None:
            raise GenaugError(f"spec must give height and width for the gan family, got {spec.size}")
        self.generator = Generator(spec, config)
        self.discriminator = Discriminator(spec, config)
        lay_out_channels_last(self)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Return the parameters of each loss of `training_loss`."""
        betas, rate = (0.0, 0.9), self.config.discriminator_rate
        return {
            "discriminator": ParameterGroup(tuple(self.discriminator.parameters()), factor=rate, betas=betas),
            "generator": ParameterGroup(tuple(self.generator.parameters()), betas=betas),
        }

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the numbers that decide dropped labels (N,), latents (N, D), and augmentations of both kinds (N, 7)."""
        device = self.device
        return {
            "dropout": draw_uniform((count,), generator, device),
            "latents": draw((count, self.config.latent_dim), generator, device),
            "augment_real": draw_uniform((count, DRAWS), generator, device),
            "augment_fake": draw_uniform((count, DRAWS), generator, device),
            "shares": draw_uniform((count,), generator, device),
        }

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of discriminator and generator, and figures to report."""
        config = self.config
        labels = labels.masked_fill(draws["dropout"] < config.label_dropout, self.null_label)
        real = augment(to_model(images), draws["augment_real"], policies=config.augment)
        fake = augment(self.generator(draws["latents"], labels), draws["augment_fake"], policies=config.augment)
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        of_discriminator = discriminator_loss(config.loss, real_logits, fake_logits)
        figures = {"real_logit": real_logits.detach().mean(), "fake_logit": fake_logits.detach().mean()}
        if config.penalty_weight:
            penalty = self._penalty(real, fake, labels, draws["shares"])
            figures["penalty"] = penalty.detach()
            of_discriminator = of_discriminator + config.penalty_weight * penalty
        of_generator = generator_loss(config.loss, real_logits, fake_logits)
        figures |= {"discriminator": of_discriminator.detach(), "generator": of_generator.detach()}
        return {"discriminator": of_discriminator, "generator": of_generator}, figures

    def _penalty(self, real: Tensor, fake: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
        def discriminate(images: Tensor) -> Tensor:
            return self.discriminator(images, labels)  # type: ignore[no-any-return]

        if self.config.loss == "wasserstein-gp":
            return interpolated_penalty(discriminate, real, fake, shares)
        penalty = 0.5 * gradient_penalty(discriminate, real)
        if self.config.loss == "relativistic":
            penalty = penalty + 0.5 * gradient_penalty(discriminate, fake)
        return penalty

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Return new images (N, C, H, W), float32 in [0, 1], of the classes `labels` (N,), null class included.

        Raises:
            DataError: labels of another type, or out of range.
        """
        labels = self.check_labels(labels, len(labels))
        latents = draw((len(labels), self.config.latent_dim), generator, self.device)
        with inference(self):
            chunks = split_batches(batch_size, latents, labels)
            return from_model(torch.cat([self.generator(z, y) for z, y in chunks]))
