"""How good a set of images is, from features of its images and of real ones (N, F).

The Fréchet distance (Heusel et al. 2017), precision and recall (Kynkäänniemi et al. 2019), and
diversity. Knows no network: what makes features of images is the caller's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.arguments import counted, require


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared Fréchet distance of two sets of features, as if normally distributed.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium" (2017), equation 6. Each set has at least two rows.
    """
    for name, features in (("a", a), ("b", b)):
        require(len(features) > 1, name, "features of at least two images", len(features))
    # In float64: the distance is a small difference of large traces.
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a.double()), _moments(b.double())
    # The trace of sqrt(cov_a cov_b), by a symmetric matrix with the same eigenvalues.
    root = _root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    apart = (mean_a - mean_b).square().sum()
    return float(apart + cov_a.trace() + cov_b.trace() - 2 * cross)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), torch.cov(x.T).reshape(x.size(1), x.size(1))


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    # Clamped: rounding can make the smallest eigenvalues negative.
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


class PrecisionRecall(NamedTuple):
    """The share of generated images among real ones, and of real ones among generated ones."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, neighbors: int = 3) -> PrecisionRecall:
    """Return the improved precision and recall of generated features.

    Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models"
    (2019), section 2, equations 1 and 2: a set covers what lies no further from one of its members
    than that member's neighbor number `neighbors`.
    """
    for name, features in (("real", real), ("generated", generated)):
        expected = f"features of more than {counted(neighbors, 'images')}"
        require(len(features) > neighbors, name, expected, len(features))
    apart = torch.cdist(real, generated)  # (real, generated)
    precision = (apart <= _radii(real, neighbors)[:, None]).any(0).float().mean()
    recall = (apart <= _radii(generated, neighbors)).any(1).float().mean()
    return PrecisionRecall(float(precision), float(recall))


def _radii(features: Tensor, neighbors: int) -> Tensor:
    """Return each row's distance (N,) to its neighbor of that number."""
    apart = torch.cdist(features, features).fill_diagonal_(0)
    return apart.kthvalue(neighbors + 1, 1).values  # the nearest to each is itself


def diversity(features: Tensor, labels: Tensor | None = None) -> float:
    """Return the mean distance between two images; with labels (N,), of the same class.

    A generator that makes one image a class has many images, but no diversity within classes.
    0 where there are no two images to compare.
    """
    apart = torch.cdist(features, features)
    pairs = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    if labels is not None:
        pairs &= labels[:, None] == labels
    return float(apart[pairs].mean()) if bool(pairs.any()) else 0.0
