"""Features of the Inception network that torchmetrics downloads, through the package torch-fidelity."""

import torch
from torch import Tensor

from genaug.devices import choose_device
from genaug.errors import CheckpointError, shorten
from genaug.features.inception import InceptionFeatures
from genaug.seeding import own_randomness


class TorchmetricsFeatures(InceptionFeatures):
    """The 2048 features that `torchmetrics.image.fid` takes by default; made by `load_torchmetrics`.

    The network is that of `InceptionFeatures`; where `settings["antialias"]` is set, as in recent versions, images are
    resized with PyTorch's bilinear interpolation, and figures agree with torchmetrics' and not quite with the authors'.
    `net` takes uint8 images (N, 3, H, W).
    """

    name = "torchmetrics"

    def run(self, images: Tensor) -> Tensor:
        """Return features (n, 2048) of uint8 images (n, 3, H, W); torchmetrics resizes them itself."""
        features: Tensor = self.net(images)
        return features


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
