"""The scores of a trained classifier on held-out images, and which of them it recognized, in few characters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genaug.evaluate.fitting import predict
from genaug.metrics import score_predictions


def score_classifier(
    net: nn.Module, images: Tensor, labels: Tensor, *, counts: Sequence[int], device: torch.device
) -> dict[str, Any]:
    """Return what `score_predictions` gives, and as "correct" which images were recognized, see `unpack`.

    A classifier whose logits are not all finite diverged: they count as 0, and "diverged" says so.

    Args:
        net: the classifier.
        images: public ones (N, C, H, W).
        labels: their classes (N,).
        counts: real training images of each class.
        device: where the classifier is.
    """
    given = predict(net, images, device=device)
    logits = given.nan_to_num()
    found = logits.argmax(1)
    scores = score_predictions(labels, found, num_classes=len(counts), counts=counts, probabilities=logits.softmax(1))
    diverged = {} if given.isfinite().all() else {"diverged": True}
    return {**scores, **diverged, "correct": pack(found == labels)}


def pack(flags: Tensor) -> str:
    """Return flags (N,) as hexadecimal digits, eight flags in two of them.

    >>> pack(torch.tensor([True, False, False, True]))
    '90'
    """
    return np.packbits(flags.cpu().numpy()).tobytes().hex()


def unpack(digits: str, count: int) -> Tensor:
    """Return the flags (`count`,) that `pack` made digits of.

    >>> unpack("90", 4)
    tensor([ True, False, False,  True])
    """
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=count)).bool()
