"""Residual networks: their published sizes, and their results from plain operations of torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug import DataSpec
from genaug.models import CLASSIFIERS, ResNet18, ResNet32

SPEC = DataSpec(3, 32, 32, tuple("abcdefghij"))

pytestmark = pytest.mark.global_rng  # new layers draw their weights from torch's global generator


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.default_generator.manual_seed(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoil(net: nn.Module) -> nn.Module:
    """Give normalization statistics and factors that leave nothing as it is; return the network for evaluation."""
    generator = seeded(7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                values.data = 0.5 + torch.rand(values.shape, generator=generator)
    return net.eval()


def normalize(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def sizes(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameters_of_resnet32_are_those_of_the_paper() -> None:
    convolutions = 9 * (3 * 16 + 10 * 16 * 16 + 16 * 32 + 9 * 32 * 32 + 32 * 64 + 9 * 64 * 64)
    norms = 2 * (16 + 10 * 16 + 10 * 32 + 10 * 64)
    assert sizes(ResNet32(SPEC)) == convolutions + norms + 64 * 10 + 10 == 464_154
    layers = [module for module in ResNet32(SPEC).modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32


def test_parameters_of_resnet18_are_torchvisions_but_for_the_first_and_last_layer() -> None:
    from torchvision.models import resnet18

    of_imagenet = sizes(resnet18(weights=None)) - 64 * 3 * 7 * 7 - 1000 * (512 + 1)
    assert sizes(ResNet18(SPEC)) == of_imagenet + 64 * 3 * 3 * 3 + 10 * (512 + 1) == 11_173_962


@pytest.mark.parametrize("size", [(32, 32), (9, 13), (1, 1)])
@torch.no_grad()
def test_resnet32_from_plain_operations(size: tuple[int, int]) -> None:
    net = spoil(ResNet32(DataSpec(3, *size, ("a", "b"))))
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    convolutions, norms = layers[0::2], layers[1::2]
    images = torch.rand(2, 3, *size, generator=seeded())
    x = F.relu(normalize(F.conv2d(2 * images - 1, convolutions[0].weight, padding=1), norms[0]))
    for block in range(15):
        (first, second), (norm1, norm2) = (part[1 + 2 * block : 3 + 2 * block] for part in (convolutions, norms))
        down = block in (5, 10)
        residual = F.conv2d(x, first.weight, stride=2 if down else 1, padding=1)
        residual = F.conv2d(F.relu(normalize(residual, norm1)), second.weight, padding=1)
        if down:  # every other pixel, then as many channels of zeros
            x = x[:, :, 0::2, 0::2]
            x = torch.cat([x, torch.zeros_like(x)], 1)
        x = F.relu(x + normalize(residual, norm2))
    head = next(module for module in net.modules() if isinstance(module, nn.Linear))
    # float32, through 32 layers of another memory layout
    torch.testing.assert_close(net(images), x.mean((2, 3)) @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_resnet18_from_the_stages_of_torchvision() -> None:
    from torchvision.models import resnet18

    net = spoil(ResNet18(DataSpec(1, 16, 12, ("a", "b"))))
    published = resnet18(weights=None, num_classes=2).eval()
    weights = net.net.state_dict()
    first = weights.pop("conv1.weight")
    assert published.load_state_dict(weights, strict=False).missing_keys == ["conv1.weight"]
    images = torch.rand(2, 1, 16, 12, generator=seeded())
    x = F.relu(published.bn1(F.conv2d(2 * images - 1, first, padding=1)))
    assert x.shape == (2, 64, 16, 12)  # full size, not a quarter of it
    x = published.layer4(published.layer3(published.layer2(published.layer1(x))))
    # float32, through 20 layers of another memory layout
    torch.testing.assert_close(net(images), published.fc(x.mean((2, 3))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [(1, 8, 8), (4, 7, 11)])
def test_classifiers_take_public_images_of_any_size(name: str, size: tuple[int, int, int]) -> None:
    net = CLASSIFIERS[name](DataSpec(*size, ("a", "b", "c")))
    images = torch.randint(256, (4, *size), dtype=torch.uint8, generator=seeded())
    logits = net(images)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    net.eval()
    assert net(images).shape == (4, 3)
    torch.testing.assert_close(net(images), net(images / 255), rtol=1e-4, atol=1e-4)  # rounding, through all layers
    assert torch.equal(images, torch.randint(256, (4, *size), dtype=torch.uint8, generator=seeded()))  # not changed


@pytest.mark.parametrize("make", [ResNet18, ResNet32])
def test_convolutions_start_as_in_he_et_al(make: type[ResNet18 | ResNet32]) -> None:
    layers = [module for module in make(SPEC).modules() if isinstance(module, nn.Conv2d)]
    for layer in layers:
        positions = layer.kernel_size[0] * layer.kernel_size[1]
        fan = positions * (layer.out_channels if make is ResNet18 else layer.in_channels)
        count = layer.weight.numel()
        # the standard deviation of N draws is known to 1 / sqrt(2 N); six of these, for all layers at once
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan) ** 0.5, rel=6 / (2 * count) ** 0.5)
        assert layer.bias is None
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
