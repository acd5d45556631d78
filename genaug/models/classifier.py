"""The small classifier that comparisons train under every arm."""

import torch.nn.functional as F
from torch import Tensor, nn

from genaug.images import to_model
from genaug.models.layers import lay_out_channels_last, pyramid
from genaug.spec import DataSpec


class SmallCNN(nn.Module):
    """Convolutional classifier for public images of any size: (N, C, H, W) -> logits (N, num_classes).

    Two 3x3 convolutions with batch normalization at each size of the pyramid, then global average pooling.

    >>> import torch
    >>> net = SmallCNN(DataSpec(channels=1, height=8, width=8, class_names=("a", "b")), width=8)
    >>> net(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 2])
    """

    def __init__(self, spec: DataSpec, *, width: int = 32) -> None:
        super().__init__()
        self.spec = spec
        stages = len(pyramid(spec.height or 32, spec.width or 32))
        layers: list[nn.Module] = []
        inputs = spec.channels
        for stage in range(stages):
            outputs = width * 2 ** min(stage, 2)
            layers += _conv_norm(inputs, outputs) + _conv_norm(outputs, outputs)
            if stage < stages - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, spec.num_classes)
        lay_out_channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for public images (N, C, H, W), uint8 or float in [0, 1]."""
        return self.head(self.pool(images))  # type: ignore[no-any-return]

    def pool(self, images: Tensor) -> Tensor:
        """Return what `head` makes logits of: (N, `head.in_features`), averages over the last feature maps."""
        return F.adaptive_avg_pool2d(self.features(to_model(images)), 1).flatten(1)


def _conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
