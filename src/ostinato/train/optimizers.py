"""AdamW and Muon with their state by parameter name, so that it is saved and loaded as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

State = dict[str, dict[str, Tensor]]


class Optimizer(Protocol):
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
    `dtype` is that of the iteration, which bfloat16 serves as well.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        adam_share: float = 0.15,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
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
        alike: dict[tuple[torch.Size, torch.dtype], dict[str, Tensor]] = {}
        for name, p in matrices.items():
            if p.grad is not None:
                alike.setdefault((p.shape, p.dtype), {})[name] = p
        for some in alike.values():
            self._step_alike(some, lr)

    def _step_alike(self, matrices: Mapping[str, Tensor], lr: float) -> None:
        """Update matrices of one shape: what is small alone is one product together."""
        parameters = list(matrices.values())
        grads = [p.grad.float() for p in parameters if p.grad is not None]
        for name, g in zip(matrices, grads, strict=True):
            self.state.setdefault(name, {"moment": torch.zeros_like(g)})
        moments = [self.state[name]["moment"] for name in matrices]
        torch._foreach_lerp_(moments, grads, 1 - self.momentum)
        nesterov = torch.stack(torch._foreach_lerp(grads, moments, self.momentum)).flatten(2)
        update = orthogonal(nesterov.to(self.dtype)).float()  # (N, rows, columns)
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        rows, columns = update.shape[1:]
        update *= lr * math.sqrt(max(1.0, rows / columns))
        torch._foreach_sub_(parameters, list(update.view(-1, *parameters[0].shape)))


def _inner(name: str) -> bool:
    return "embed" not in name and "lm_head" not in name


def orthogonal(G: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T of matrices G = U S V^T (..., rows, columns), by the quintic
    Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X: Tensor = G / (torch.linalg.matrix_norm(G, keepdim=True) + 1e-7)
    tall = G.size(-2) > G.size(-1)
    X = X.mT if tall else X
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X
