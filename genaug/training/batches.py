"""Batches of some rows of the images on the device of training, without a copy of all of them."""

import torch
from torch import Tensor

from genaug.data import LabeledImages

GPU_SHARE = 0.5  # of the free memory of a GPU that all images together may take


class Batches:
    """Gathers batches on `device`: images go there once where all of them fit into `GPU_SHARE`, else batch by batch.

    Args:
        data: all images.
        rows: int64 (M,), those to draw from.
        device: where the batches are wanted.

    >>> from genaug.spec import DataSpec
    >>> spec = DataSpec(channels=1, class_names=("a", "b"))
    >>> data = LabeledImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), spec)
    >>> images, labels = Batches(data, torch.tensor([0, 2]), torch.device("cpu")).gather(torch.tensor([1, 1, 0]))
    >>> images.shape, labels.tolist()
    (torch.Size([3, 1, 2, 2]), [1, 1, 0])
    """

    def __init__(self, data: LabeledImages, rows: Tensor, device: torch.device) -> None:
        self.rows, self.device = rows, device
        self.labels = data.labels.to(device)
        self.streams = device.type == "cuda" and data.images.is_cpu and not _fits(data.images, device)
        self.images = data.images if self.streams else data.images.to(device)

    def gather(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images (B, C, H, W) and labels (B,) at `places` (B,) of the rows."""
        rows = self.rows[places]
        there = rows.to(self.device)
        if self.streams:
            return self.images[rows].pin_memory().to(self.device, non_blocking=True), self.labels[there]
        return self.images[there], self.labels[there]


def _fits(images: Tensor, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= GPU_SHARE * free
