"""Where the points of images lie: a mixture of normal distributions for each class.

A decoder draws well only near points that it was trained on, and the points of images do not fill
the standard normal distribution that they are pulled toward. Random points are therefore drawn from
a density that is fitted to the points of the training images (Ghosh et al. 2020, "From Variational
to Deterministic Autoencoders", section 4: ex-post density estimation). Knows no images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROUNDS = 40  # of expectation and maximization; the likelihood rises little after 20
FEWEST = 8  # points for each component
LEAST_VARIANCE = 1e-4  # of a component in any direction


class Prior(nn.Module):
    """A mixture of K normal distributions of points (Z,) for each of G classes.

    As it is made, it is the standard normal distribution; with 0 components it stays that, and
    has nothing to save.
    """

    class_shares: Tensor  # (G,)
    shares: Tensor  # (G, K)
    means: Tensor  # (G, K, Z)
    factors: Tensor  # (G, K, Z, Z), the lower triangular roots of the covariances

    def __init__(self, classes: int, components: int, latent: int) -> None:
        super().__init__()
        G, K, Z, kept = max(1, classes), max(1, components), latent, components > 0
        self.register_buffer("class_shares", torch.full((G,), 1 / G), persistent=kept)
        self.register_buffer("shares", torch.full((G, K), 1 / K), persistent=kept)
        self.register_buffer("means", torch.zeros(G, K, Z), persistent=kept)
        factors = torch.eye(Z).expand(G, K, Z, Z).clone()
        self.register_buffer("factors", factors, persistent=kept)

    def draw(self, generator: torch.Generator, label: int | None = None) -> Tensor:
        """Return a random point (Z,) of a class; None: of any, as often as in the data."""
        if label is None:
            label = _choice(self.class_shares, generator)
        k = _choice(self.shares[label], generator)
        noise = torch.randn(self.means.size(-1), generator=generator)
        point: Tensor = self.means[label, k] + self.factors[label, k] @ noise
        return point


def _choice(shares: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(shares, 1, generator=generator)) if len(shares) > 1 else 0


@dataclass(frozen=True)
class Points:
    """Points of images as normal distributions: their means and variances (N, Z), their classes.

    `labels` (N,) are below `classes`; None where there are none.
    """

    means: Tensor
    variances: Tensor
    labels: Tensor | None = None
    classes: int = 0

    def of(self, label: int) -> Points:
        """Return those of a class."""
        chosen = self.labels == label
        return Points(self.means[chosen], self.variances[chosen])


def fitted(points: Points, components: int, *, seed: int = 0) -> Prior:
    """Return the prior of points, with at most `components` for each class.

    A class has fewer where it has few points, and the standard normal distribution without any. So
    have all where points are not finite: a training that diverged is for its conditions to judge.
    """
    prior = Prior(points.classes, components, points.means.size(1))
    if not bool(points.means.isfinite().all() and points.variances.isfinite().all()):
        return prior
    for label in range(len(prior.class_shares) if components else 0):
        own = points.of(label) if points.classes else points
        prior.class_shares[label] = len(own.means) / max(1, len(points.means))
        K = min(components, len(own.means) // FEWEST) or min(1, len(own.means))
        if K:
            shares, means, factors = _mixture(own, K, torch.Generator().manual_seed(seed))
            prior.shares[label] = 0.0
            prior.shares[label, :K] = shares.float()
            prior.means[label, :K] = means.float()
            prior.factors[label, :K] = factors.float()
    return prior


def _mixture(points: Points, K: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return shares (K,), means (K, Z), factors (K, Z, Z) by expectation-maximization.

    It maximizes the expected log density over the points' own distributions, so a component is as
    wide as these are at least.
    """
    x, variance = points.means.double(), points.variances.double()
    N, Z = x.shape
    nearest = torch.cdist(x, _starts(x, K, draws)).argmin(1)
    weight = nn.functional.one_hot(nearest, K).double()  # (N, K)
    for _ in range(ROUNDS):
        counts = weight.sum(0).clamp(min=1e-9)
        means = weight.T @ x / counts[:, None]
        apart = x - means[:, None]  # (K, N, Z)
        covariance = (weight.T[:, :, None] * apart).mT @ apart / counts[:, None, None]
        covariance = covariance + torch.diag_embed(weight.T @ variance / counts[:, None])
        covariance = covariance + LEAST_VARIANCE * torch.eye(Z, dtype=x.dtype)
        factors = torch.linalg.cholesky(covariance)
        weight = _log_density(x, variance, counts / N, means, factors).softmax(1)
    return counts / N, means, factors


def _starts(x: Tensor, K: int, draws: torch.Generator) -> Tensor:
    """Return K points far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(x), (1,), generator=draws))]
    nearest = torch.full((len(x),), math.inf, dtype=x.dtype)
    for _ in range(K - 1):
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
        # Where all points are the same, any will do.
        chosen.append(int(torch.multinomial(nearest + 1e-12, 1, generator=draws)))
    return x[chosen]


def _log_density(
    x: Tensor, variance: Tensor, shares: Tensor, means: Tensor, factors: Tensor
) -> Tensor:
    """Return the expected log density (N, K) of points in each component, its share included."""
    apart = torch.linalg.solve_triangular(factors, (x - means[:, None]).mT, upper=False)
    precision = torch.cholesky_inverse(factors).diagonal(dim1=1, dim2=2)  # (K, Z)
    squares = apart.square().sum(1).T + variance @ precision.T
    volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    density: Tensor = shares.log() - volume - squares / 2
    return density
