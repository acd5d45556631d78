"""What changes with the step, as functions of the step alone."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genaug.seeding import make_generator


def cosine_with_warmup(step: int, *, steps: int, warmup_steps: int, first_step: int = 0) -> float:
    """Return the factor of the learning rate at `step`: linear warm-up, then half a cosine to 0 (Loshchilov 2017).

    The warm-up takes half of the steps at most, so that short runs end at a low rate too. With `first_step` the warm-up
    begins there, and it is 0 before; the cosine stays where it is.

    >>> [round(cosine_with_warmup(s, steps=5, warmup_steps=2), 2) for s in range(5)]
    [0.5, 1.0, 1.0, 0.75, 0.25]
    >>> [round(cosine_with_warmup(s, steps=5, warmup_steps=2, first_step=2), 2) for s in range(5)]
    [0.0, 0.0, 0.5, 0.75, 0.25]
    """
    warmup_steps = min(warmup_steps, steps // 2)
    warm = min(1.0, max(0.0, (step - first_step + 1) / max(1, warmup_steps)))
    progress = max(0, step - warmup_steps) / max(1, steps - warmup_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * progress))


def ema_with_ramp(decay: float, *, step: int) -> Callable[[Any, Any, Any], None]:
    """Return the averaging function for `AveragedModel` after n = `step` updates: min(decay, (1 + n) / (10 + n)).

    The ramp keeps the random start out of short runs.
    """
    return get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))  # type: ignore[no-any-return]


class ClassSampler:
    """Draws batches whose classes follow p ~ n ** exponent, as a function of (seed, step) alone.

    Args:
        labels: (N,) class indices of the data.
        exponent: 1 draws classes as often as the data has them, 0 all equally often.
        seed: of the draws.

    >>> sampler = ClassSampler(torch.tensor([0, 0, 0, 1]), exponent=0.0, seed=0)
    >>> torch.equal(sampler.rows(0, batch_size=4), sampler.rows(0, batch_size=4))
    True
    """

    def __init__(self, labels: Tensor, *, exponent: float, seed: int) -> None:
        self.order = labels.argsort(stable=True)
        self.counts = torch.bincount(labels)
        self.starts = self.counts.cumsum(0) - self.counts
        self.weights = torch.where(self.counts > 0, self.counts.double() ** exponent, 0.0)
        self.seed = seed

    def rows(self, step: int, *, batch_size: int, group: int = 1) -> Tensor:
        """Return the rows (batch_size,) of the data that make the batch of `step`, drawn with replacement.

        Each `group` rows that follow each other are of one class; they must divide the batch.
        """
        generator = make_generator(self.seed, "batch", step)
        classes = torch.multinomial(self.weights, batch_size // group, replacement=True, generator=generator)
        classes = classes.repeat_interleave(group)
        place = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        return self.order[self.starts[classes] + (place * self.counts[classes]).long()]
