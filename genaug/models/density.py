"""Densities of latents per class, fitted after training: ex-post density estimation (Ghosh et al. 2020, section 4)."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from genaug.models.running import draw, draw_uniform

MIN_IMAGES_PER_COMPONENT = 20
MEAN_PRIOR_IMAGES = 1.0
JITTER = 1e-5


class LatentDensity(nn.Module):
    """A mixture of Gaussians over latents (D,) for each class and, in the last row, for the null class.

    Before `fit` every row is the standard normal prior. Buffers: `weights` (C+1, K), `means` (C+1, K, D) and
    `scales` (C+1, K, D, D), the lower Cholesky factors of the covariances.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, num_classes: int, dim: int, *, components: int) -> None:
        super().__init__()
        rows = num_classes + 1
        self.register_buffer("weights", torch.full((rows, components), 1.0 / components))
        self.register_buffer("means", torch.zeros(rows, components, dim))
        self.register_buffer("scales", torch.eye(dim).expand(rows, components, dim, dim).clone())

    @property
    def components(self) -> int:
        """Number of Gaussians in each mixture."""
        return self.weights.shape[1]

    def fit(
        self,
        row_means: Tensor,
        row_variances: Tensor,
        labels: Tensor,
        *,
        shrinkage: float,
        unlabeled: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Fit every class to the posteriors N(row_means, row_variances) of its images, both (N, D); labels (N,).

        A class is fitted to the aggregated posterior, the mean over its images of q(z|x), whose covariance is that of
        the means plus the mean variance. Covariances are shrunk toward the pooled within-class one with the weight of
        `shrinkage` images, means toward the pooled mean with the weight of one image, so that a class of few images
        borrows from the others. A class without images gets the pooled density. So does the null class, or one fitted
        to the means and variances `unlabeled` of all images as they are without their labels.
        """
        mu, var = _to_numpy(row_means, row_variances)
        classes = labels.cpu().numpy()
        num_classes = len(self.weights) - 1
        members = [np.flatnonzero(classes == c) for c in range(num_classes)]
        pooled_mean = mu.mean(0)
        within = sum((len(rows) * _covariance(mu[rows], var[rows]) for rows in members if len(rows)), np.zeros(()))
        within = within / len(mu) if num_classes else _covariance(mu, var)
        everything = np.arange(len(mu))
        for row, rows in enumerate([*members, everything]):
            rows = rows if len(rows) else everything
            if row == num_classes and unlabeled is not None:
                mu, var = _to_numpy(*unlabeled)
            parts = _split(mu[rows], self.components)
            for k, part in enumerate(parts):
                n, weight = part.sum(), part / max(part.sum(), 1e-12)
                mean = weight @ mu[rows]
                covariance = _covariance(mu[rows], var[rows], weight)
                own = rows is not everything
                if own:
                    covariance = (n * covariance + shrinkage * within) / (n + shrinkage)
                    mean = (n * mean + MEAN_PRIOR_IMAGES * pooled_mean) / (n + MEAN_PRIOR_IMAGES)
                scale = np.linalg.cholesky(covariance + JITTER * np.eye(len(mean)))
                self.weights[row, k] = float(n / len(rows))
                self.means[row, k] = torch.from_numpy(mean)
                self.scales[row, k] = torch.from_numpy(scale)
            self.weights[row, len(parts) :] = 0.0

    def sample(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw a latent (N, D) for each of `labels` (N,), which may hold the null class."""
        uniform = draw_uniform((len(labels),), generator, labels.device)
        return self.place(labels, uniform, draw((len(labels), self.means.shape[-1]), generator, labels.device))

    def place(self, labels: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
        """Return the latents (N, D) that `uniform` numbers (N,), which choose the Gaussian, and normal `noise` give."""
        edges = self.weights.cumsum(1)
        edges = (edges / edges[:, -1:])[labels]  # to 1 exactly, also of weights that were rounded
        component = (edges <= uniform[:, None].clamp(max=1 - 2**-24)).sum(1)
        return self.means[labels, component] + self._scaled(noise, labels, component)

    def perturb(self, latents: Tensor, labels: Tensor, *, strength: float, noise: Tensor) -> Tensor:
        """Move `latents` (N, D) within the density of their class: m + sqrt(1 - s^2) (z - m) + s L e.

        This is a preconditioned Crank-Nicolson step: it leaves N(m, L L^T) unchanged as a distribution. A `strength` s
        of 0 returns the latents, 1 an independent draw. m and L belong to the component that a latent most likely
        comes from, which it never leaves; e is `noise` (N, D).
        """
        component = self._likeliest(latents, labels)
        mean = self.means[labels, component]
        kept = math.sqrt(1.0 - strength**2)
        return mean + kept * (latents - mean) + strength * self._scaled(noise, labels, component)

    def _scaled(self, noise: Tensor, labels: Tensor, component: Tensor) -> Tensor:
        """Return L e for each row of `noise`; rows of one Gaussian go together, which needs no copies of L."""
        scaled = torch.empty_like(noise)
        gaussian = labels * self.components + component
        for index in gaussian.unique().tolist():
            rows = gaussian == index
            factor = self.scales[index // self.components, index % self.components].T
            scaled[rows] = (noise[rows] @ factor).to(scaled.dtype)  # of fewer bits under autocast
        return scaled

    def log_density(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return log p(z|y) (N,) in nats of latents (N, D) of the classes `labels` (N,), null class included."""
        normalizer = 0.5 * latents.shape[1] * math.log(2 * math.pi)
        return self._score(latents, labels).logsumexp(1) - normalizer

    def _likeliest(self, latents: Tensor, labels: Tensor) -> Tensor:
        found = self.weights.argmax(1)[labels]
        several = ((self.weights > 0).sum(1) > 1)[labels]  # classes of few images have one Gaussian
        if several.any():
            found[several] = self._score(latents[several], labels[several]).argmax(1)
        return found

    def _score(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return log w_k N(z; m_k, L_k L_k^T) (N, K) of the Gaussians of a class, but for the constant all have."""
        score = latents.new_empty(len(latents), self.components)
        for label in labels.unique().tolist():
            rows = labels == label
            centered = (latents[rows] - self.means[label].unsqueeze(1)).mT  # (K, D, n)
            distance = torch.linalg.solve_triangular(self.scales[label], centered, upper=False).square().sum(1).T
            log_det = self.scales[label].diagonal(dim1=-2, dim2=-1).log().sum(-1)
            score[rows] = self.weights[label].log() - distance / 2 - log_det
        return score


def _to_numpy(means: Tensor, variances: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return means.double().cpu().numpy(), variances.double().cpu().numpy()


def _covariance(mu: np.ndarray, var: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Covariance of the mixture of N(mu_i, diag(var_i)) with the given weights (equal without)."""
    weight = np.full(len(mu), 1.0 / len(mu)) if weight is None else weight
    centered = mu - weight @ mu
    return np.asarray((centered * weight[:, None]).T @ centered + np.diag(weight @ var))


def _split(mu: np.ndarray, components: int) -> list[np.ndarray]:
    """Share the rows among as many components as their number carries: a list of responsibilities (N,)."""
    if components > 1:  # the number of distinct rows is only then worth counting
        components = max(1, min(components, len(np.unique(mu, axis=0)) // MIN_IMAGES_PER_COMPONENT))
    if components == 1:
        return [np.ones(len(mu))]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(components, covariance_type="diag", reg_covar=1e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # where it stopped will do: it is shrunk and only drawn from
        mixture.fit(mu)
    return list(mixture.predict_proba(mu).T)
