"""Distances between two sets of features: how far synthetic images are from real ones, as an extractor sees them."""

import warnings

import torch
from torch import Tensor, nn

from genaug.errors import GenaugError, check_count
from genaug.metrics.neighbors import check_features
from genaug.seeding import derive_seed, own_randomness

KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000


def frechet_distance(real: Tensor, synthetic: Tensor) -> float:
    """Return the Frechet distance of two sets of features, in squared units of the features; 0 is best.

    Of Gaussians with the means and covariances of the two sets (Heusel et al. 2017, "GANs Trained by a Two Time-Scale
    Update Rule", eq. 6; through torchmetrics, in float64): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The estimate is
    too large by an amount that falls with the number of rows, so compare it only with one from as many rows; with no
    more rows than features that amount outweighs the rest.

    Args:
        real: features (N, F), at least 2 rows.
        synthetic: features (M, F), at least 2 rows.

    Raises:
        GenaugError: fewer rows, other shapes, different widths, or values that are not finite.

    >>> features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> round(frechet_distance(features, features + 3.0), 6)
    18.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, synthetic = _check_rows(real, synthetic, least=2)
    # without synchronization: the features are all that is compared, also in one of several processes
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), sync_on_compute=False)
    center = real.mean(0)  # of no influence on the distance, but on the rounding of sums of squares
    metric.update(real - center, real=True)
    metric.update(synthetic - center, real=False)
    return max(0.0, float(metric.compute()))


def kernel_distance(
    real: Tensor,
    synthetic: Tensor,
    *,
    seed: int,
    subsets: int = KERNEL_SUBSETS,
    subset_size: int | None = None,
) -> tuple[float, float]:
    """Return the kernel distance (KID) of two sets of features: the mean over random subsets, and their deviation.

    The squared maximum mean discrepancy with the kernel (x.y / F + 1)^3, estimated without bias for any number of rows
    (Binkowski et al. 2018, "Demystifying MMD GANs", section 4; through torchmetrics, in float64). It is 0 on average
    for two sets of one distribution, so single values may be negative. The deviation is that of one subset; it is no
    error of the mean, as subsets share rows.

    Args:
        real: features (N, F), at least 4 rows.
        synthetic: features (M, F), at least 4 rows.
        seed: of the choice of subsets.
        subsets: number of subsets.
        subset_size: rows of each set in a subset, from 2 to the number of rows; by default half of the smaller set, at
            most 1000.

    Raises:
        GenaugError: fewer rows, other shapes, different widths, values that are not finite, or numbers out of range.

    >>> features = torch.eye(8)
    >>> mean, deviation = kernel_distance(features, features + 1.0, seed=0)
    >>> mean > 0
    True
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    real, synthetic = _check_rows(real, synthetic, least=4)
    rows = min(len(real), len(synthetic))
    size = min(KERNEL_SUBSET_SIZE, rows // 2) if subset_size is None else subset_size
    subsets = check_count(subsets, name="subsets")
    if type(size) is not int or not 2 <= size <= rows:
        raise GenaugError(f"subset_size must be an integer from 2 to {rows}, the rows of the smaller set, got {size!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that it keeps the features, which it is given here
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False
        )
    metric.update(real, real=True)
    metric.update(synthetic, real=False)
    with own_randomness(derive_seed(seed, "kernel distance"), torch.device("cpu")):  # it draws from the global one
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


class _Given(nn.Module):
    """Stands in for the Inception network of torchmetrics: what it is given are the features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check_rows(real: Tensor, synthetic: Tensor, *, least: int) -> list[Tensor]:
    """Return both sets on the CPU in float64, in which alone sums over thousands of rows are exact enough."""
    checked = [features.cpu() for features in check_features(real=real, synthetic=synthetic)]
    for name, features in zip(("real", "synthetic"), checked, strict=True):
        if len(features) < least:
            raise GenaugError(f"{name} must have at least {least} rows, got {tuple(features.shape)}; pass more images")
    return checked
