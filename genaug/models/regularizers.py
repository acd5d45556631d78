"""What keeps the code of an autoencoder sparse, or steady while the image changes."""

import torch
from torch import Tensor, nn


def sparsity_kl(codes: Tensor, target: float) -> Tensor:
    """Return sum_j KL(target || mean of unit j) of codes (N, D) in [0, 1], as Bernoulli variables (Ng 2011, section 3).

    >>> sparsity_kl(torch.tensor([[0.1, 0.3], [0.1, 0.1]]), 0.1).round(decimals=4)
    tensor(0.0367)
    """
    mean = codes.float().mean(0).clamp(1e-6, 1 - 1e-6)
    return (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).sum()


def keep_largest(codes: Tensor, count: int) -> Tensor:
    """Return codes (N, D) with all but the `count` largest numbers of each row at zero (Makhzani & Frey 2014, eq. 2).

    >>> keep_largest(torch.tensor([[3.0, -1.0, 2.0]]), 2)
    tensor([[3., 0., 2.]])
    """
    places = codes.topk(count, dim=1).indices
    return torch.zeros_like(codes).scatter(1, places, codes.gather(1, places))


def contraction_of_layer(layer: nn.Linear, slopes: Tensor) -> Tensor:
    """Return the mean of |J|^2 = sum_j s_j^2 sum_i W_ji^2 over images, s being the slopes (N, D) of the layer's units.

    J is the Jacobian of the code with respect to the layer's input (Rifai et al. 2011, eq. 5); the slope of a sigmoid
    unit is h (1 - h), h being its code, that of a linear one 1.

    >>> layer = nn.Linear(3, 2)
    >>> torch.allclose(contraction_of_layer(layer, torch.ones(5, 2)), layer.weight.square().sum())
    True
    """
    return (slopes.square() * layer.weight.square().sum(1)).sum(1).mean()


def contraction_estimate(codes: Tensor, images: Tensor, probe: Tensor) -> Tensor:
    """Return an unbiased estimate of the mean of |J|^2 for codes (N, D) that were computed from images (N, ...).

    E |J^T v|^2 = |J|^2 for standard normal v: one product with J^T in place of D (Hutchinson 1990). Differentiable.

    Args:
        codes: of the images, which must require a gradient.
        images: that the codes were computed from.
        probe: v (N, D).

    >>> images = torch.zeros(1, 2, requires_grad=True)
    >>> contraction_estimate(3 * images, images, torch.ones(1, 2)).item()
    18.0
    """
    (product,) = torch.autograd.grad((codes * probe).sum(), images, create_graph=True)
    return product.float().flatten(1).square().sum(1).mean()
