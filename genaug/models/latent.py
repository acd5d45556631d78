"""Models with latents: what follows from an encoder, a decoder, and a density of the latents of each class."""

import torch
from torch import Tensor

from genaug.errors import check_share
from genaug.models.base import Model, check_latents
from genaug.models.density import LatentDensity
from genaug.models.running import draw_noise, inference, join, split_batches


class LatentModel(Model):
    """Base of the families that encode images to latents (N, `latent_size`), with a fitted `density` of these."""

    latent_size: int
    density: LatentDensity

    def code(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the latents (N, D) of public images (N, C, H, W) of the classes `labels` (N,); differentiable."""
        raise NotImplementedError

    def decode_logits(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N, C, H, W) whose sigmoid is the image of latents (N, D); differentiable."""
        raise NotImplementedError

    def confine(self, latents: Tensor) -> Tensor:
        """Return latents (N, D), drawn from a density, put where those of images are; by default as they are."""
        return latents

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Return new images (N, C, H, W), float32 in [0, 1], of the classes `labels` (N,), null class included.

        Latents come from the density of the class; see `LatentDensity`. The result depends on `generator` alone (on
        torch's global one without it), not on `batch_size`, beyond rounding.

        Raises:
            DataError: labels of another type, or out of range.
        """
        labels = self.check_labels(labels, None)
        with inference(self):
            return self._decode(self.confine(self.density.sample(labels, generator=generator)), labels, batch_size)

    def encode(self, images: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return the latents (N, D) of public images (N, C, H, W); of a VAE the means of q(z|x,y).

        Raises:
            DataError: images or labels that do not match the specification.
        """
        labels = self.check_batch(images, labels)
        with inference(self):
            return self._encode(images, labels, batch_size)

    def _encode(self, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        return torch.cat([self.code(x.to(self.device), y) for x, y in split_batches(batch_size, images, labels)])

    def decode(self, latents: Tensor, labels: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
        """Return images (N, C, H, W), float32 in [0, 1], for latents (N, D).

        Raises:
            GenaugError: latents of another shape, or that are not finite; labels that do not match.
        """
        latents = check_latents(latents, self.latent_size)
        labels = self.check_labels(labels, len(latents))
        with inference(self):
            return self._decode(latents.to(self.device), labels, batch_size)

    def _decode(self, latents: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        return join(torch.sigmoid(self.decode_logits(z, y)) for z, y in split_batches(batch_size, latents, labels))

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
        """Return variations (N, C, H, W), float32 in [0, 1], of public images within their class.

        A `strength` of 0 gives the reconstruction, 1 a new sample of the class, or with several Gaussians a class, of
        the one that the image belongs to; see `LatentDensity.perturb`. Without labels "the class" is all images.

        The noise comes from `generator`, or for each image from its own of `seeds` (N,), int64: then the variation of
        an image is the same, beyond rounding, whatever stands beside it.

        Raises:
            GenaugError: a strength outside [0, 1], images or labels that do not match, seeds of another number.
        """
        strength = check_share(strength, name="strength")
        labels = self.check_batch(images, labels)
        with inference(self):
            latents = self._encode(images, labels, batch_size)
            if strength:
                noise = draw_noise((len(images), self.latent_size), generator, seeds, self.device)
                latents = self.confine(self.density.perturb(latents, labels, strength=strength, noise=noise))
            return self._decode(latents, labels, batch_size)
