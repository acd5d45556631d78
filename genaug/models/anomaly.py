"""How suspicious images and their labels are: what a model finds of them, by how rare it is among training images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.models.density import LatentDensity
from genaug.models.likelihood import SMALLEST_STD
from genaug.models.running import split_batches

STD_PER_MAD = 1.4826  # standard deviation of a normal distribution, in its median absolute deviations
SMALLEST_SPREAD = 1e-3
TEMPERATURES = tuple(10 ** (k / 20) for k in range(61))  # from 1 to 1000, 12% apart


class AnomalyScale(nn.Module):
    """What errors and codes are usual among training images, how often each class comes, and how well codes tell it.

    Buffers: `shares` of the classes (C,), or (1,) without classes; `center` and `spread` (2,) of the log of an image's
    squared error, and of -log p(z) of its code, p(z) being the mixture of the densities of all classes; `temperature`
    () of these densities in p(y|z).
    """

    shares: Tensor
    center: Tensor
    spread: Tensor
    temperature: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        rows = max(num_classes, 1)  # the only row of a density without classes is that of all images
        self.register_buffer("shares", torch.full((rows,), 1.0 / rows))
        self.register_buffer("center", torch.zeros(2))
        self.register_buffer("spread", torch.ones(2))
        self.register_buffer("temperature", torch.ones(()))

    def fit(self, errors: Tensor, codes: Tensor, labels: Tensor, *, density: LatentDensity) -> None:
        """Fit to mean squared errors (N,), codes (N, D) and labels (N,) of images, whose codes have the `density`.

        Medians and median absolute deviations, which corrupt images among them move little. Each class is counted as
        if it had one image more, so that no label is impossible. The temperature is that of the highest likelihood of
        the labels (Guo et al. 2017, section 4.2): Gaussians in many dimensions are far too sure of a class.
        """
        counts = 1.0 + labels.bincount(minlength=len(self.shares) + 1)[: len(self.shares)]
        self.shares.copy_(counts / counts.sum())
        by_class = torch.cat([self._by_class(part, density) for (part,) in split_batches(256, codes)])
        values = self._values(errors, by_class)
        self.center.copy_(values.median(0).values)
        deviation = (values - self.center).abs().median(0).values
        self.spread.copy_((STD_PER_MAD * deviation).clamp(min=SMALLEST_SPREAD))
        losses = torch.stack([self._surprise(by_class / each, labels).mean() for each in TEMPERATURES])
        self.temperature.fill_(TEMPERATURES[int(losses.argmin())])

    def score(self, errors: Tensor, codes: Tensor, labels: Tensor, *, density: LatentDensity) -> Tensor:
        """Return -log min(P(e), P(z)) - log p(y|z), float32 (N,) in nats; arguments as in `fit`.

        P(e) and P(z) are the shares of training images, taken as normally distributed, with at least that log error
        and -log p(z). The last term is 0 for the null class.
        """
        by_class = self._by_class(codes, density)
        above = (self._values(errors, by_class) - self.center) / self.spread
        rarity: Tensor = -torch.special.log_ndtr(-above).amin(1)
        return rarity + self._surprise(by_class / self.temperature, labels)

    def _by_class(self, codes: Tensor, density: LatentDensity) -> Tensor:
        """Return log p(z|y) (N, C) for every class y."""
        classes = torch.arange(len(self.shares), device=codes.device)
        return torch.stack([density.log_density(codes, label.expand(len(codes))) for label in classes], 1)

    def _values(self, errors: Tensor, by_class: Tensor) -> Tensor:
        code = (by_class + self.shares.log()).logsumexp(1)
        return torch.stack([errors.clamp(min=SMALLEST_STD**2).log(), -code], 1)

    def _surprise(self, by_class: Tensor, labels: Tensor) -> Tensor:
        """Return -log p(y|z) (N,) of `labels`, 0 for the null class."""
        log_posterior = (by_class + self.shares.log()).log_softmax(1)
        return -F.pad(log_posterior, (0, 1)).gather(1, labels[:, None])[:, 0]
