"""Losses for classes of unequal size: which examples count how much, and margins that follow the class counts.

Each is called alike: logits (N, C), targets (N, C) whose rows sum to 1, the images of each class in what batches are
drawn from (C,), and the share of the training that is done, in [0, 1). It returns losses (N,) and weights (N,); the
training minimizes sum(weights * losses) / sum(weights). Counts may be fractions, and 0 for classes that are not there.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.errors import check_ranges


class Loss(Protocol):
    """What an arm minimizes."""

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return losses (N,) and weights (N,)."""


@dataclass(frozen=True)
class CrossEntropy:
    """-sum_c t_c log p_c, with weights of 1.

    >>> losses, weights = CrossEntropy()(torch.zeros(1, 2), torch.eye(2)[:1], counts=torch.ones(2), progress=0.0)
    >>> losses, weights
    (tensor([0.6931]), tensor([1.]))
    """

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        losses = F.cross_entropy(logits, targets, reduction="none")
        return losses, torch.ones_like(losses)


@dataclass(frozen=True)
class ClassWeighted:
    """Cross-entropy with weights of 1 / n_c: -sum_c w_c t_c log p_c. Classes of 0 images weigh 0.

    >>> ClassWeighted()(torch.zeros(2, 2), torch.eye(2), counts=torch.tensor([4, 1]), progress=0.0)[1]
    tensor([0.2500, 1.0000])
    """

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        return _weigh(logits, targets, torch.where(counts > 0, 1 / counts.float(), 0.0))


@dataclass(frozen=True)
class EffectiveNumber:
    """Cross-entropy with weights of (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, "Class-Balanced Loss").

    -sum_c w_c t_c log p_c, with the inverse of the effective number of images, their proposition 1. With beta = 0 all
    classes weigh the same, with beta near 1 as 1 / n_c. Classes of 0 images weigh 0.

    Args:
        beta: (N - 1) / N for N different images that a class could have; from 0 to 0.999999.

    Raises:
        GenaugError: beta out of range.

    >>> EffectiveNumber(0.5)(torch.zeros(2, 2), torch.eye(2), counts=torch.tensor([2, 1]), progress=0.0)[1]
    tensor([0.6667, 1.0000])
    """

    beta: float = 0.9999

    def __post_init__(self) -> None:
        check_ranges(self, {"beta": (0.0, 0.999999)})

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        log_beta = math.log(self.beta) if self.beta > 0 else -math.inf
        weights = (1 - self.beta) / -torch.expm1(counts.float() * log_beta)  # 1 - beta^n loses digits for small n
        return _weigh(logits, targets, torch.where(counts > 0, weights, 0.0))


@dataclass(frozen=True)
class Focal:
    """-sum_c t_c (1 - p_c)^gamma log p_c, with weights of 1 (Lin et al. 2017, eq. 4, with softmax for sigmoid).

    Args:
        gamma: how fast what is already recognized loses its say; from 0, which is cross-entropy, to 10.

    Raises:
        GenaugError: gamma out of range.

    >>> Focal(gamma=1.0)(torch.zeros(1, 2), torch.eye(2)[:1], counts=torch.ones(2), progress=0.0)[0]
    tensor([0.3466])
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_ranges(self, {"gamma": (0.0, 10.0)})

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(1)
        others = -torch.expm1(log_p)  # 1 - p
        others = others.clamp(min=torch.finfo(others.dtype).tiny)  # at 0 powers below 1 have no finite slope
        losses = -(targets * others**self.gamma * log_p).sum(1)
        return losses, torch.ones_like(losses)


@dataclass(frozen=True)
class LogitAdjusted:
    """Cross-entropy of logits + tau * log prior, with weights of 1 (Menon et al. 2021, eq. 10).

    With tau = 1 it is balanced softmax (Ren et al. 2020, eq. 3): p_c = n_c exp(z_c) / sum_i n_i exp(z_i). Classes of 0
    images have the prior of the scarcest other one, so that the network learns not to take images for them.

    Args:
        tau: from 0, which is cross-entropy, to 10.

    Raises:
        GenaugError: tau out of range.

    >>> LogitAdjusted()(torch.zeros(2, 2), torch.eye(2), counts=torch.tensor([3, 1]), progress=0.0)[0].neg().exp()
    tensor([0.7500, 0.2500])
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, {"tau": (0.0, 10.0)})

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        losses = F.cross_entropy(logits + self.tau * _log_prior(counts), targets, reduction="none")
        return losses, torch.ones_like(losses)


@dataclass(frozen=True)
class Deferred:
    """Cross-entropy first, and another loss for the end of the training.

    With `EffectiveNumber` it is the deferred re-weighting of Cao et al. 2019 (LDAM-DRW, section 3.3).

    Args:
        loss: what comes second.
        start: the share of the training that is done when it comes, from 0 to 1.

    Raises:
        GenaugError: start out of range.

    >>> loss, targets, counts = Deferred(ClassWeighted()), torch.eye(2), torch.tensor([4, 1])
    >>> [loss(torch.zeros(2, 2), targets, counts=counts, progress=progress)[1].tolist() for progress in (0.7, 0.8)]
    [[1.0, 1.0], [0.25, 1.0]]
    """

    loss: Loss
    start: float = 0.8

    def __post_init__(self) -> None:
        check_ranges(self, {"start": (0.0, 1.0)})

    def __call__(self, logits: Tensor, targets: Tensor, *, counts: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        loss = self.loss if progress >= self.start else CrossEntropy()
        return loss(logits, targets, counts=counts, progress=progress)


def adjust_logits(logits: Tensor, *, counts: Tensor, tau: float) -> Tensor:
    """Return logits - tau * log prior (N, C): those of a trained network as for classes of equal size.

    Post-hoc logit adjustment (Menon et al. 2021, eq. 9). Classes of 0 images have the prior of the scarcest other one.

    >>> adjust_logits(torch.zeros(1, 2), counts=torch.tensor([1, 1]), tau=1.0)
    tensor([[0.6931, 0.6931]])
    """
    return logits - tau * _log_prior(counts)


def _log_prior(counts: Tensor) -> Tensor:
    counts = counts.float()
    scarcest = torch.where(counts > 0, counts, math.inf).min()
    return (torch.where(counts > 0, counts, scarcest) / counts.sum()).log()


def _weigh(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses (N,) and weights (N,) of cross-entropy with weights of the classes (C,).

    In mixed targets each class keeps its own: the loss is -sum_c w_c t_c log p_c over the sum of w_c t_c, which is the
    weight, so that the mean over a batch is the weighted one.
    """
    shares = targets * weights
    total = shares.sum(1)
    return F.cross_entropy(logits, shares, reduction="none") / total.clamp(min=torch.finfo(total.dtype).tiny), total
