"""AdamW and Muon with their state by parameter name, so that it is saved and loaded as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

State = dict[str, dict[str, Tensor]]


class Optimiser(Protocol):
    """Updates named parameters from their gradients."""

    state: State

    def step(self, parameters: Mapping[str, Tensor], lr: float, step: int) -> None:
        """Update in place; `step` counts from 1, `lr` is the rate of this step."""
        ...


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2).

    Decay is applied to matrices only. The state is float32 whatever the parameters are.
    """

    def __init__(
        self,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.state: State = {}

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: float, step: int) -> None:
        """Update in place."""
        beta1, beta2 = self.betas
        scale = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        root = math.sqrt(1 - beta2**step)
        for name, p in parameters.items():
            if p.grad is None:
                continue
            g = p.grad.float()
            if name not in self.state:
                self.state[name] = {"m": torch.zeros_like(g), "v": torch.zeros_like(g)}
            m, v = self.state[name]["m"], self.state[name]["v"]
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            if self.weight_decay and p.dim() > 1:
                p.mul_(1 - lr * self.weight_decay)
            p.sub_(lr * scale * m / (v.sqrt() + self.eps * root))


class Muon:
    """Momentum orthogonalised by Newton-Schulz, for matrices (Jordan et al. 2024, "Muon").

    A convolution's kernels count as one matrix of outputs by inputs and places, as its authors do.
    Embeddings, the head and vectors go to AdamW at `adam_share` of the rate, as its authors advise.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        adam_share: float = 0.15,
    ) -> None:
        self.momentum, self.weight_decay, self.adam_share = momentum, weight_decay, adam_share
        self.state: State = {}
        self._adam = AdamW(betas=betas, weight_decay=weight_decay)
        self._adam.state = self.state

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: float, step: int) -> None:
        """Update in place."""
        matrices = {n: p for n, p in parameters.items() if p.dim() >= 2 and _inner(n)}
        rest = {name: p for name, p in parameters.items() if name not in matrices}
        self._adam.state = self.state
        self._adam.step(rest, lr * self.adam_share, step)
        for name, p in matrices.items():
            if p.grad is None:
                continue
            g = p.grad.float()
            moment = self.state.setdefault(name, {"moment": torch.zeros_like(g)})["moment"]
            moment.lerp_(g, 1 - self.momentum)
            update = orthogonal(g.lerp(moment, self.momentum).flatten(1))  # Nesterov
            if self.weight_decay:
                p.mul_(1 - lr * self.weight_decay)
            rows, columns = update.shape
            p.sub_(lr * math.sqrt(max(1.0, rows / columns)) * update.view(p.shape))


def _inner(name: str) -> bool:
    return "embed" not in name and "lm_head" not in name


def orthogonal(G: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T of the matrix G = U S V^T, by the quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X: Tensor = G / (G.norm() + 1e-7)
    tall = G.size(0) > G.size(1)
    X = X.T if tall else X
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if tall else X
