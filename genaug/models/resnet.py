"""Residual networks that comparisons on small images are published with."""

import torch.nn.functional as F
from torch import Tensor, nn

from genaug.images import to_model
from genaug.models.layers import lay_out_channels_last
from genaug.spec import DataSpec

STAGES = (16, 32, 64)
BLOCKS = 5  # n of each stage: 6 n + 2 layers


class ResNet32(nn.Module):
    """The 32-layer residual network for CIFAR (He et al. 2016, section 4.2): public images -> logits (N, num_classes).

    0.46 M parameters: three stages of 16, 32 and 64 channels, shortcuts without parameters (their option A), and global
    average pooling. Convolutions start as in He et al. 2015. Images of any size.

    >>> import torch
    >>> net = ResNet32(DataSpec(channels=3, height=32, width=32, class_names=("a", "b")))
    >>> net(torch.zeros(4, 3, 32, 32)).shape
    torch.Size([4, 2])
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, STAGES[0], 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(STAGES[0]), nn.ReLU(inplace=True)]
        inputs = STAGES[0]
        for outputs in STAGES:
            for _ in range(BLOCKS):
                layers.append(_Block(inputs, outputs))
                inputs = outputs
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, spec.num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        lay_out_channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for public images (N, C, H, W), uint8 or float in [0, 1]."""
        return self.net(to_model(images))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """torchvision's ResNet-18 (He et al. 2016, table 1) for small images: public images -> logits (N, num_classes).

    11 M parameters. The first convolution is 3x3 with stride 1 in place of 7x7 with stride 2, and there is no max
    pooling, which would leave a single position of images of 32x32. Images of any size.

    >>> import torch
    >>> net = ResNet18(DataSpec(channels=1, height=8, width=8, class_names=("a", "b")))
    >>> net(torch.zeros(4, 1, 8, 8)).shape
    torch.Size([4, 2])
    """

    def __init__(self, spec: DataSpec) -> None:
        from torchvision.models import resnet18

        super().__init__()
        self.spec = spec
        self.net = resnet18(weights=None, num_classes=spec.num_classes)
        self.net.conv1 = nn.Conv2d(spec.channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as its others
        self.net.maxpool = nn.Identity()
        lay_out_channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for public images (N, C, H, W), uint8 or float in [0, 1]."""
        return self.net(to_model(images))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))): (N, C, H, W) -> (N, C', H, W).

    Where the channels grow, (H, W) is halved, rounded up, and the shortcut takes every other pixel and adds channels of
    zeros.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grown = outputs - inputs
        self.stride = 2 if self.grown else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.grown)) if self.grown else x
        return F.relu(shortcut + residual)
