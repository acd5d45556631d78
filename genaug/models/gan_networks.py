"""The two networks of the `gan` family, for images of any height and width: no statistics of batches."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genaug.models.adversarial import minibatch_std
from genaug.models.configs import GANConfig, VAEConfig
from genaug.models.layers import Downsample, Upsample, lay_out_channels_last, pyramid, stage_widths
from genaug.models.vae import VAE
from genaug.spec import DataSpec


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
        self.latent_dim = config.latent_dim
        size = (int(spec.height or 0), int(spec.width or 0))
        sizes, widths = pyramid(*size), stage_widths(size, config.width)
        self.classes = nn.Embedding(max(spec.num_classes, 1), config.style_dim)
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
            blocks = config.blocks if stage or len(sizes) == 1 else 0  # at the full size they cost the most
            self.blocks.append(nn.ModuleList(ModulatedBlock(widths[stage], config.style_dim) for _ in range(blocks)))
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


class DecoderGenerator(nn.Module):
    """The decoder of a VAE, and the density of its latents, as a `Generator` (BAGAN: Mariani et al. 2018, section 3).

    Of the normal numbers (N, 1 + D) that it takes for latents, the first chooses the Gaussian of the class.
    """

    def __init__(self, spec: DataSpec, config: VAEConfig) -> None:
        super().__init__()
        self.vae = VAE(spec, config)
        for name in ("encoder", "posterior_head", "map_head", "scaled_log_std"):  # what only training needs
            if hasattr(self.vae, name):
                delattr(self.vae, name)
        self.latent_dim = 1 + self.vae.latent_size

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return images in [-1, 1]."""
        choice = torch.special.ndtr(latents[:, 0])  # uniform, as a normal number's distribution function is
        codes = self.vae.density.place(labels, choice, latents[:, 1:])
        return 2 * torch.sigmoid(self.vae.decode_logits(codes, labels)) - 1


class Discriminator(nn.Module):
    """Images (N, C, H, W) in [-1, 1] and labels (N,) -> logits (N,), by projection.

    D(x, y) = u . f(x) + c + e_y . f(x) with features f of a residual network (Miyato & Koyama 2018, eq. 3); spectral
    norm of every layer (Miyato et al. 2018) where it is asked for. That bounds how much D can change between two images
    by their distance, so they are standardized first, with the mean and deviation of the training images, and
    multiplied by `contrast`: else D hardly tells images of low contrast apart.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: DataSpec, config: GANConfig) -> None:
        super().__init__()
        self.made_of, self.contrast = (spec, config), config.contrast
        size = (int(spec.height or 0), int(spec.width or 0))
        sizes, widths = pyramid(*size), stage_widths(size, config.discriminator_width)
        self.register_buffer("mean", torch.zeros(spec.channels, 1, 1))
        self.register_buffer("deviation", torch.ones(()))
        self.from_image = nn.Conv2d(spec.channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList()
        for stage in range(len(sizes)):
            blocks = [CriticBlock(widths[stage]) for _ in range(config.blocks if stage or len(sizes) == 1 else 0)]
            down = [Downsample(widths[stage - 1], widths[stage])] if stage else []
            self.stages.append(nn.Sequential(*down, *blocks))
        self.group = config.minibatch_std
        inputs = (widths[-1] + bool(self.group)) * math.prod(sizes[-1])
        self.to_features = nn.Linear(inputs, 4 * config.discriminator_width)
        self.to_logit = nn.Linear(4 * config.discriminator_width, 1)
        self.classes = nn.Embedding(max(spec.num_classes, 1), 4 * config.discriminator_width)
        nn.init.zeros_(self.classes.weight) if not config.spectral_norm else nn.init.normal_(
            self.classes.weight, std=0.1
        )
        if config.spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
                    spectral_norm(module)

    def forward(self, images: Tensor, labels: Tensor, *, alone: bool = False) -> Tensor:
        """Return logits (N,); with `alone` none of them depends on other images of the batch."""
        h = self.from_image(self.contrast * (images - self.mean) / self.deviation)
        for stage in self.stages:
            h = stage(h)
        h = F.leaky_relu(h, 0.2)
        if self.group:
            h = minibatch_std(h, group=1 if alone else self.group)
        features = F.leaky_relu(self.to_features(h.flatten(1)), 0.2)
        projected = (self.classes(labels) * features).sum(1)
        return (self.to_logit(features)[:, 0] + projected).float()  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as weights: torch does not pickle what spectral norm makes of layers."""
        learns = [parameter.requires_grad for parameter in self.parameters()]
        return _rebuild, (*self.made_of, self.state_dict(), learns, self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Discriminator:
        """Copy as any module is copied, hooks included: `copy` would go the way of pickles."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied


def _rebuild(
    spec: DataSpec, config: GANConfig, tensors: dict[str, Tensor], learns: list[bool], training: bool
) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        network = Discriminator(spec, config)
    network.load_state_dict(tensors, assign=True)
    for parameter, learn in zip(network.parameters(), learns, strict=True):
        parameter.requires_grad_(learn)
    lay_out_channels_last(network)
    return network.train(training)


class CriticBlock(nn.Module):
    """x + conv(lrelu(conv(lrelu(x)))), (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual."""
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))  # type: ignore[no-any-return]
