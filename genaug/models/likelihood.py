"""The two terms of a variational lower bound: log-likelihoods of images, and the divergence of latents."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_STD = 1 / (255 * math.sqrt(12))  # of the error that rounding to 8 bits makes


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of each element: Kingma & Welling 2014, appendix B.

    >>> kl_to_standard_normal(torch.tensor([0.0, 1.0]), torch.zeros(2))
    tensor([0.0000, 0.5000])
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def log_likelihood(logits: Tensor, targets: Tensor, *, std: Tensor | None = None) -> Tensor:
    """Return log p(x|z) of each image (N,) in nats, for targets (N, C, H, W) in [0, 1].

    Without `std` the Bernoulli one of Kingma & Welling 2014, appendix C.1 (for gray levels a cross-entropy, not a
    normalized density), else the Gaussian one with mean sigmoid(logits) and standard deviation `std`.
    """
    if std is None:
        terms = -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        error = (targets - torch.sigmoid(logits)) / std
        terms = -0.5 * error.square() - std.log() - 0.5 * math.log(2 * math.pi)
    return terms.flatten(1).sum(1)
