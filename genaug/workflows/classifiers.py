"""Classifiers by name: ours, and those of timm."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from genaug.errors import GenaugError, shorten
from genaug.images import to_model
from genaug.models import CLASSIFIERS
from genaug.models.layers import lay_out_channels_last

TIMM = "timm:"


def find_classifier(name: str) -> Callable[[Any], nn.Module]:
    """Return what makes the classifier of a name: one of `genaug.models.CLASSIFIERS`, or timm:NAME.

    Raises:
        GenaugError: an unknown name, or timm is not installed.

    >>> find_classifier("small-cnn").__name__
    'SmallCNN'
    """
    if name in CLASSIFIERS:
        return CLASSIFIERS[name]
    if not name.startswith(TIMM):
        known = ", ".join(CLASSIFIERS)
        raise GenaugError(f"classifier must be one of {known}, or {TIMM}NAME for a model of timm, got {shorten(name)}")
    return partial(_make_timm, name.removeprefix(TIMM))


def _make_timm(name: str, spec: Any) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise GenaugError(f"classifier {TIMM}{name} needs timm; install it with: pip install timm") from None
    try:
        net = timm.create_model(name, pretrained=False, num_classes=spec.num_classes, in_chans=spec.channels)
    except (RuntimeError, TypeError, ValueError) as problem:
        raise GenaugError(f"classifier {TIMM}{name} cannot be made: {shorten(problem, 160)}") from None
    return _OfPublicImages(net)


class _OfPublicImages(nn.Module):
    """A network for images in [-1, 1], given public ones."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        lay_out_channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(to_model(images))  # type: ignore[no-any-return]
