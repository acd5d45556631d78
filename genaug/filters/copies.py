"""How near images come to those that a generator learned from, and from where on they are near copies of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from genaug.filters.base import class_quantiles
from genaug.metrics.neighbors import nearest_rows

CHUNK = 512  # training images whose own distances are taken at once
QUANTILE = 0.01  # that radii are of the distances between training images
ROUNDING = 1e-3  # of the length of features: below it an image can be from itself, run in a batch of another size


class NearCopies:
    """Rows of training images, such as features or pixels, which rows of other images are compared with.

    Near copies are those whose distance to the nearest training image, of whatever class, is at most the radius of its
    class: a low quantile of the distances from this class's training images to the nearest other one. About that share
    of new real images is as near.

    Args:
        rows: of the training images, (N, F), at least two; they stay where they are.
        labels: their classes, int64 (N,).
        num_classes: number of classes.
        device: where to compare.
        quantile: of the distances between training images, from 0 to 1.
        shrinkage: number of images of a class that weigh as much as all images together; see `class_quantiles`.
        scale: that distances are multiplied with.
        chosen: rows whose distances the radii are quantiles of; by default all.
        update: called with the number of those that were compared.

    Attributes `radius` and `usual`, (num_classes,), hold what was fitted; `usual` is the median of the distances.

    >>> copies = NearCopies(torch.tensor([[0], [2], [7]]), torch.tensor([0, 0, 0]), num_classes=1, device="cpu")
    >>> copies.usual, copies.measure(torch.tensor([[9]]))[:2]
    (tensor([2.], dtype=torch.float64), (tensor([2.], dtype=torch.float64), tensor([2])))
    """

    def __init__(
        self,
        rows: Tensor,
        labels: Tensor,
        *,
        num_classes: int,
        device: str | torch.device,
        quantile: float = QUANTILE,
        shrinkage: float = 10.0,
        scale: float = 1.0,
        chosen: Tensor | None = None,
        update: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.rows, self.labels, self.device, self.scale = rows, labels.cpu(), device, scale
        chosen, among = torch.arange(len(rows)) if chosen is None else chosen, []
        for part in chosen.split(CHUNK):
            among.append(self._nearest(rows[part], exclude=part)[0])
            update(len(part))
        own = torch.cat(among), self.labels[chosen]
        self.usual = class_quantiles(*own, num_classes=num_classes, quantiles=[0.5], shrinkage=0)[0]
        radius = class_quantiles(*own, num_classes=num_classes, quantiles=[quantile], shrinkage=shrinkage)[0]
        least = ROUNDING * float(rows.norm(dim=1).mean()) if rows.is_floating_point() else 0.0
        self.radius = radius.clamp(min=least)

    def _nearest(self, rows: Tensor, *, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        distances, places = nearest_rows(rows.to(self.device), self.rows, exclude=exclude)
        return distances[:, 0].cpu() * self.scale, places[:, 0].cpu()

    def measure(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return distances (n,) of rows (n, F) to the nearest training image, which that is, and distance over radius.

        The last is at most 1 for near copies, and 0 for copies, also where the radius is 0.
        """
        distances, places = self._nearest(rows)
        return distances, places, torch.where(distances > 0, distances / self.radius[self.labels[places]], 0.0)
