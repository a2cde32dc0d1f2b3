"""Logistic regression with an L2 penalty: one optimum, no seed, few rows of many features.

Newton's method on the dual, as for a Gaussian process (Rasmussen and Williams 2006, algorithm 3.1).
Knows no texts.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 50
CONVERGED = 1e-10


def fit_logistic(real: Tensor, made: Tensor, penalty: float) -> Tensor:
    """Return the weights (D) that tell rows (N, D) from rows (M, D); both kinds weigh the same.

    `penalty` is that of the mean loss. A last feature that is 1 everywhere is the bias.
    """
    x = torch.cat([real, made])
    y = torch.cat([torch.ones(len(real)), torch.zeros(len(made))]).to(x)
    share = torch.where(y > 0, 0.5 / max(1, len(real)), 0.5 / max(1, len(made))).to(x)
    gram, identity = x @ x.T, torch.eye(len(x)).to(x)
    dual = torch.zeros_like(y)
    for _ in range(STEPS):
        f = gram @ dual
        p = torch.sigmoid(f)
        curvature = share * p * (1 - p)
        b, root = curvature * f + share * (y - p), curvature.sqrt()
        factor = torch.linalg.cholesky(penalty * identity + root[:, None] * gram * root)
        solved = torch.cholesky_solve((root * (gram @ b))[:, None], factor)[:, 0]
        before, dual = dual, (b - root * solved) / penalty
        if float((gram @ (dual - before)).abs().max()) < CONVERGED:
            break
    return x.T @ dual
