"""Adversarial losses on the logits of a discriminator, and penalties that keep it smooth.

Every loss is a mean over a batch of logits (N,), of real and of generated images in pairs of one class each.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["hinge", "non-saturating", "wasserstein-gp", "relativistic"]


def discriminator_loss(name: LossName, real: Tensor, fake: Tensor) -> Tensor:
    """Return the loss that the discriminator minimizes.

    - hinge: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Lim & Ye 2017, eq. 12; Miyato et al. 2018, eq. 16);
    - non-saturating: E softplus(-D(x)) + E softplus(D(G(z))) (Goodfellow et al. 2014, eq. 1, on logits);
    - wasserstein-gp: E D(G(z)) - E D(x) (Gulrajani et al. 2017, eq. 3, without its penalty);
    - relativistic: E softplus(D(G(z)) - D(x)), in pairs (Huang et al. 2024, eq. 2, with f(t) = -softplus(-t)).

    >>> discriminator_loss("hinge", torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0]))
    tensor(1.)
    """
    if name == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if name == "non-saturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if name == "wasserstein-gp":
        return fake.mean() - real.mean()
    return F.softplus(fake - real).mean()


def generator_loss(name: LossName, real: Tensor, fake: Tensor) -> Tensor:
    """Return the loss that the generator minimizes; `real` is used by the relativistic one alone.

    - hinge, wasserstein-gp: -E D(G(z));
    - non-saturating: E softplus(-D(G(z))) (Goodfellow et al. 2014, section 3);
    - relativistic: E softplus(D(x) - D(G(z))).

    >>> generator_loss("hinge", torch.zeros(2), torch.tensor([2.0, 0.0]))
    tensor(-1.)
    """
    if name in ("hinge", "wasserstein-gp"):
        return -fake.mean()
    if name == "non-saturating":
        return F.softplus(-fake).mean()
    return F.softplus(real - fake).mean()


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return E ||grad D(x)||^2 over images (N, C, H, W): R1 of real ones, R2 of generated.

    (Mescheder et al. 2018, eq. 9; the weight gamma / 2 is up to the caller.) Differentiable with respect to the
    discriminator; the images are taken as constants.

    >>> gradient_penalty(lambda x: 3 * x.flatten(1).sum(1), torch.zeros(2, 1, 2, 2))
    tensor(36.)
    """
    return _squared_norms(discriminate, images.detach()).mean()


def interpolated_penalty(
    discriminate: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, shares: Tensor
) -> Tensor:
    """Return E (||grad D(x)|| - 1)^2 at x = u real + (1 - u) fake for `shares` u (N,) (Gulrajani et al. 2017, eq. 3).

    >>> zeros = torch.zeros(2, 1, 2, 2)
    >>> interpolated_penalty(lambda x: x.flatten(1).sum(1), zeros, zeros, torch.rand(2))
    tensor(1.)
    """
    share = shares.reshape(-1, 1, 1, 1)
    between = share * real.detach() + (1 - share) * fake.detach()
    return (_squared_norms(discriminate, between).add(1e-12).sqrt() - 1).square().mean()


def _squared_norms(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    images = images.requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gradient.float().flatten(1).square().sum(1)


def minibatch_std(features: Tensor, *, group: int) -> Tensor:
    """Return features (N, C, h, w) with one channel more: how much they differ within groups of the batch.

    The standard deviation over the images of a group of each feature at each place, averaged over both, as a constant
    map (Karras et al. 2018, section 3). Each `group` images that follow each other are one; where they do not divide
    N, fewer are.

    >>> minibatch_std(torch.tensor([0.0, 2.0, 5.0, 5.0]).reshape(4, 1, 1, 1), group=2)[:, 1].flatten()
    tensor([1.0000e+00, 1.0000e+00, 1.0000e-04, 1.0000e-04])
    """
    count, _, height, width = features.shape
    size = next(size for size in range(min(group, count), 0, -1) if count % size == 0)
    grouped = features.float().unflatten(0, (-1, size))
    spread = grouped.var(1, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    channel = spread.repeat_interleave(size).to(features.dtype).reshape(-1, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([features, channel], 1)
