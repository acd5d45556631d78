"""Features of the Inception network that torchmetrics downloads, through the package torch-fidelity."""

from typing import Any

import torch
from torch import Tensor, nn

from genaug.devices import choose_device
from genaug.errors import CheckpointError, shorten
from genaug.features.extractor import to_color_uint8
from genaug.models.running import inference, split_batches
from genaug.seeding import own_randomness


class TorchmetricsFeatures:
    """The 2048 features that `torchmetrics.image.fid` takes by default; made by `load_torchmetrics`.

    The network is that of `InceptionFeatures`; where `settings["antialias"]` is set, as in recent versions, images are
    resized with PyTorch's bilinear interpolation, and figures agree with torchmetrics' and not quite with the authors'.

    Args:
        net: from uint8 images (N, 3, H, W) to features (N, 2048).
        settings: what it is.
    """

    name = "torchmetrics"
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
            return torch.cat([self.net(chunk.to(device)).cpu() for (chunk,) in chunks])


def load_torchmetrics(*, device: str | torch.device | None = None) -> TorchmetricsFeatures:
    """Return torchmetrics' own Inception network as an extractor of features.

    torch-fidelity downloads the weights (95 MB) once into torch's cache, `TORCH_HOME`.

    Args:
        device: where to compute; a GPU if there is one, else the CPU.

    Raises:
        CheckpointError: torch-fidelity is not there, or its weights cannot be downloaded or read.
        GenaugError: a device that is not there.

    >>> load_torchmetrics(device="cpu").extract(torch.zeros(2, 1, 28, 28)).shape  # doctest: +SKIP
    torch.Size([2, 2048])
    """
    import torchmetrics
    from torchmetrics.image.fid import NoTrainInceptionV3

    where = choose_device(device)
    try:
        with own_randomness(0, where):  # it draws weights before it loads them
            net = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except ModuleNotFoundError:
        raise CheckpointError(
            "features 'torchmetrics' need the package torch-fidelity; pip install torch-fidelity, or take 'inception' "
            "(the extra fid)"
        ) from None
    except Exception as problem:  # of the network, the disk, or a file that was cut off
        reason = shorten(str(problem) or type(problem).__name__, 120)
        raise CheckpointError(
            f"features 'torchmetrics' need weights that could not be downloaded or read ({reason}); put them into "
            "torch's cache (TORCH_HOME), or take 'inception' (the extra fid)"
        ) from None
    settings = {
        "network": "torchmetrics.image.fid.NoTrainInceptionV3",
        "torchmetrics": torchmetrics.__version__,
        "antialias": getattr(net, "use_antialias", False),
    }
    return TorchmetricsFeatures(net.to(where), settings=settings)
