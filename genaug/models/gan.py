"""Conditional GAN for small, imbalanced data: norm-free residual networks, projection, several losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from genaug.errors import DataError, GenaugError, shorten
from genaug.images import from_model, to_model
from genaug.models.adversarial import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    interpolated_penalty,
)
from genaug.models.base import Model, ParameterGroup
from genaug.models.configs import GANConfig
from genaug.models.diffaugment import DRAWS, augment
from genaug.models.gan_networks import DecoderGenerator, Discriminator, Generator
from genaug.models.layers import lay_out_channels_last
from genaug.models.running import draw, draw_uniform, inference, join, split_batches
from genaug.models.vae import VAE
from genaug.spec import DataSpec, spread

BETAS = (0.0, 0.9)
MOST_FOR_CONTRAST = 10_000  # images whose mean and deviation are taken
LEAST_CONTRAST = 0.01


class GAN(Model):
    """Conditional generative adversarial network (Goodfellow et al. 2014) for images of any fixed size.

    Generator and discriminator take their steps at once, each on its own loss, on the same labels for real and
    generated images.

    The discriminator compares `minibatch_std` images of one class: without it the generator soon draws one image for
    each class, whatever the latent. (Deviation in a batch: Karras et al. 2018; several images of one condition before
    the discriminator: Lin et al. 2018, "PacGAN".)

    Where a recipe's `training.start` names a VAE, the VAE's decoder and the density of its latents are the generator
    (Mariani et al. 2018, "BAGAN"); where it names a GAN, both networks are taken over: see `start_from`.

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
    training_defaults: ClassVar[dict[str, Any]] = {"batch_size": 64, "learning_rate": 2e-4, "gradient_clip": 100.0}
    watched = True
    class_shares: Tensor

    def __init__(self, spec: DataSpec, config: GANConfig | None = None) -> None:
        config = config or GANConfig()
        super().__init__(spec, config)
        self.check_size()
        self.generator = DecoderGenerator(spec, config.decoder) if config.decoder else Generator(spec, config)
        self.discriminator = Discriminator(spec, config)
        classes = max(spec.num_classes, 1)
        self.register_buffer("class_shares", torch.full((classes,), 1 / classes))
        lay_out_channels_last(self)

    @classmethod
    def start_from(cls, start: Model, *, spec: DataSpec, config: Any) -> Self:
        """Return a GAN that generates with the decoder of the VAE `start`, its weights and density included.

        Of a GAN `start` it takes over all weights, and generates as that does.
        """
        if not isinstance(start, VAE | GAN):
            raise GenaugError(f"a GAN starts from a model of family gan or vae, got one of family {start.family}")
        decoder = start.config if isinstance(start, VAE) else start.config.decoder
        own = GANConfig()
        for name in ("latent_dim", "style_dim", "width"):
            if decoder is not None and getattr(config, name) != getattr(own, name):
                raise GenaugError(f"model.{name} must be left out where the decoder of a VAE generates")
        config = replace(config, decoder=decoder)
        if isinstance(start, GAN):
            return super().start_from(start, spec=spec, config=config)
        model = cls(spec, config)
        tensors = model.generator.vae.state_dict()  # type: ignore[union-attr]
        given = start.state_dict()
        model.generator.vae.load_state_dict({name: given[name] for name in tensors})  # type: ignore[union-attr]
        return model

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Return the parameters of each loss of `training_loss`."""
        rate, first = self.config.discriminator_rate, self.config.discriminator_steps
        return {
            "discriminator": ParameterGroup(tuple(self.discriminator.parameters()), factor=rate, betas=BETAS),
            "generator": ParameterGroup(tuple(self.generator.parameters()), first_step=first, betas=BETAS),
        }

    def draw_for_training(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return latents (N, D), numbers that decide augmentations of both kinds (N, 7), and shares of images (N,)."""
        device = self.device
        return {
            "latents": draw((count, self.generator.latent_dim), generator, device),
            "augment_real": draw_uniform((count, DRAWS), generator, device),
            "augment_fake": draw_uniform((count, DRAWS), generator, device),
            "shares": draw_uniform((count,), generator, device),
        }

    def training_loss(
        self, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of discriminator and generator, and figures to report.

        Of the figures "told_apart" is the share of pairs of one label whose real image has the higher logit: 0.5 where
        the discriminator sees no difference, 1 where it wins outright.
        """
        config = self.config
        real = augment(to_model(images), draws["augment_real"], policies=config.augment)
        fake = augment(self.generator(draws["latents"], labels), draws["augment_fake"], policies=config.augment)
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        of_discriminator = discriminator_loss(config.loss, real_logits, fake_logits)
        of_generator = generator_loss(config.loss, real_logits, fake_logits)
        figures = {"told_apart": (real_logits > fake_logits).float().mean()}
        if config.penalty_weight:
            penalty = self._penalty(real, fake, labels, draws["shares"])
            figures["penalty"] = penalty.detach()
            of_discriminator = of_discriminator + config.penalty_weight * penalty
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

    def fit_before_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Take over mean and deviation of public images (N, C, H, W), or of `rows`, for the `Discriminator`.

        Classes are counted too, so that what is drawn in training is of classes with images.
        """
        self.fit_after_training(images, labels, rows=rows)
        rows = torch.arange(len(images)) if rows is None else rows
        some = rows[spread(len(rows), min(len(rows), MOST_FOR_CONTRAST))]
        sums = torch.zeros(3, self.spec.channels, dtype=torch.float64)
        for part in some.split(256):
            values = to_model(images[part]).cpu().double().movedim(1, 0).flatten(1)
            sums += torch.stack([torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)])
        mean = sums[1] / sums[0]
        self.discriminator.mean.copy_(mean.reshape(-1, 1, 1))
        variance = (sums[2] / sums[0] - mean.square()).mean()
        self.discriminator.deviation.copy_(variance.clamp(min=0).sqrt().clamp(min=LEAST_CONTRAST))

    def fit_after_training(self, images: Tensor, labels: Tensor, *, rows: Tensor | None = None) -> None:
        """Count the classes of `labels` (N,), or of `rows`: samples without label have these shares."""
        chosen = (labels if rows is None else labels[rows]).cpu()
        counts = torch.bincount(chosen, minlength=len(self.class_shares))
        self.class_shares.copy_(counts / counts.sum())

    @property
    def known_classes(self) -> list[int]:
        """Class indices that training had images of."""
        return self.class_shares.nonzero().flatten().tolist()

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Return new images (N, C, H, W), float32 in [0, 1], of the classes `labels` (N,).

        For the null class, "no label", the class is drawn too, as often as training had it. The result depends on
        `generator` alone (on torch's global one without it), not on `batch_size`, beyond rounding.

        Raises:
            DataError: labels of another type, out of range, or of classes that training had no images of.
        """
        given, labels = labels, self.check_labels(labels, None)
        asked = set(given.tolist())
        if unknown := sorted(asked.difference(self.known_classes, [self.null_label])):
            names = [self.spec.class_names[index] for index in unknown]
            raise DataError(
                "labels must be of classes that training had images of; this GAN was trained without images of "
                f"{shorten(names)}"
            )
        latents = draw((len(labels), self.generator.latent_dim), generator, self.device)
        if self.spec.num_classes and self.null_label in asked:
            points = draw_uniform((len(labels),), generator, self.device)
            edges = self.class_shares.cumsum(0)
            drawn = torch.searchsorted(edges / edges[-1], points, right=True)
            labels = torch.where(labels == self.null_label, drawn, labels)
        with inference(self.generator):
            chunks = split_batches(batch_size, latents, labels)
            return from_model(join(self.generator(z, y) for z, y in chunks))

    def discriminate(self, images: Tensor, labels: Tensor | None, *, batch_size: int = 256) -> Tensor:
        """Return the discriminator's logits (N,), float32, of public images of the classes `labels`: high for real.

        Each image is seen alone, so that its logit does not depend on those beside it: where the discriminator compares
        several images of one class, it finds no deviation, for real and generated ones alike.

        Raises:
            DataError: images or labels that do not match the specification.
        """
        labels = self.check_batch(images, labels)
        self.spec.check_labels(labels, null=not self.spec.num_classes)
        if not len(images):
            return torch.zeros(0, device=self.device)
        with inference(self):
            chunks = split_batches(batch_size, images, labels)
            return torch.cat([self.discriminator(to_model(x.to(self.device)), y, alone=True) for x, y in chunks])
