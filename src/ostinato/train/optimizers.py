"""AdamW and Muon with their state by parameter name, which checkpoints save as it is.

torch's own optimizers number their state by the order of the parameters, which a changed network
would silently shift. Knows no schedule and no clipping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ostinato.train.config import TrainingConfig

State = dict[str, dict[str, Tensor]]

SMALL = 1 << 16  # numbers of a parameter that is updated together with others


class Optimizer(Protocol):
    """Updates named parameters from their gradients."""

    state: State

    def step(self, parameters: Mapping[str, Tensor], lr: float, step: int) -> None:
        """Update in place; `step` counts from 1, `lr` is the learning rate of this step."""
        ...


def optimizer_of(config: TrainingConfig) -> Optimizer:
    """Return the optimizer that a configuration names."""
    if config.optimizer == "adamw":
        return AdamW(weight_decay=config.weight_decay)
    return Muon(
        weight_decay=config.weight_decay,
        adamw_lr_scale=config.adamw_lr_scale,
        dtype=getattr(torch, config.precision),
    )


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2).

    Weight decay is applied to matrices only. The state is float32 for parameters of any type.
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
        """Update in place; parameters without a gradient stay as they are."""
        beta1, beta2 = self.betas
        # Both bias corrections as one factor of the update, so that m and v are read as stored;
        # eps is scaled with them to stay the epsilon of the paper.
        root = math.sqrt(1 - beta2**step)
        rate, eps = lr * (root / (1 - beta1**step)), self.eps * root
        for group in _together({n: p for n, p in parameters.items() if p.grad is not None}):
            self._step_group(group, lr, rate, eps)

    def _step_group(
        self, parameters: Mapping[str, Tensor], lr: float, rate: float, eps: float
    ) -> None:
        (beta1, beta2), weights = self.betas, list(parameters.values())
        grads = [p.grad.float() for p in weights if p.grad is not None]
        for name, g in zip(parameters, grads, strict=True):
            if name not in self.state:
                self.state[name] = {"m": torch.zeros_like(g), "v": torch.zeros_like(g)}
        m, v = ([self.state[name][key] for name in parameters] for key in ("m", "v"))
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        if self.weight_decay and (matrices := [p for p in weights if p.dim() > 1]):
            torch._foreach_mul_(matrices, 1 - lr * self.weight_decay)
        update, root = torch._foreach_mul(m, rate), torch._foreach_sqrt(v)
        torch._foreach_add_(root, eps)
        torch._foreach_div_(update, root)
        torch._foreach_sub_(weights, update)


def _together(parameters: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """Yield parameters to update at once: all small ones, whose calls cost more than their sums.

    Large ones come one by one, so that what lies between takes no more room than one of them.
    """
    small = {name: p for name, p in parameters.items() if p.numel() <= SMALL}
    if small:
        yield small
    yield from ({name: p} for name, p in parameters.items() if name not in small)


class Muon:
    """Momentum orthogonalized by Newton-Schulz, for matrices (Jordan et al. 2024, "Muon").

    As its authors advise, a convolution counts as one matrix (outputs, inputs times kernel size).
    Embeddings, the head and vectors are updated by AdamW at `adamw_lr_scale` times the learning
    rate. `dtype` is the type of the Newton-Schulz iteration; bfloat16 is precise enough.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        adamw_lr_scale: float = 0.15,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.momentum, self.weight_decay = momentum, weight_decay
        self.adamw_lr_scale = adamw_lr_scale
        self.state: State = {}
        self._adamw = AdamW(betas=betas, weight_decay=weight_decay)
        self._adamw.state = self.state

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: float, step: int) -> None:
        """Update in place; parameters without a gradient stay as they are."""
        matrices = {n: p for n, p in parameters.items() if p.dim() >= 2 and _is_hidden(n)}
        rest = {name: p for name, p in parameters.items() if name not in matrices}
        self._adamw.state = self.state  # `state` may have been replaced by a loaded one
        self._adamw.step(rest, lr * self.adamw_lr_scale, step)
        groups: dict[tuple[torch.Size, torch.dtype], dict[str, Tensor]] = {}
        for name, p in matrices.items():
            if p.grad is not None:
                groups.setdefault((p.shape, p.dtype), {})[name] = p
        for group in groups.values():
            self._step_group(group, lr)

    def _step_group(self, matrices: Mapping[str, Tensor], lr: float) -> None:
        """Update matrices of one shape: one batched product instead of many small ones."""
        parameters = list(matrices.values())
        grads = [p.grad.float() for p in parameters if p.grad is not None]
        for name, g in zip(matrices, grads, strict=True):
            self.state.setdefault(name, {"moment": torch.zeros_like(g)})
        moments = [self.state[name]["moment"] for name in matrices]
        torch._foreach_lerp_(moments, grads, 1 - self.momentum)
        nesterov = torch.stack(torch._foreach_lerp(grads, moments, self.momentum))
        nesterov = nesterov.flatten(2)  # (N, rows, columns), also for convolutions
        update = orthogonal(nesterov.to(self.dtype)).float()
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        rows, columns = update.shape[1:]
        # An orthogonal update of a tall matrix is smaller per weight; the factor evens it out.
        update *= lr * math.sqrt(max(1.0, rows / columns))
        torch._foreach_sub_(parameters, list(update.view(-1, *parameters[0].shape)))


def _is_hidden(name: str) -> bool:
    """Whether a matrix is inside the network, neither an embedding nor the head."""
    return "embed" not in name and "lm_head" not in name


def orthogonal(G: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T of matrices G = U S V^T (..., rows, columns).

    The quintic Newton-Schulz iteration of Muon; singular values come out at about 0.7 to 1.2.
    """
    # Coefficients of Jordan et al.: steepest at 0, so that 5 steps suffice. They do not converge
    # to 1, which training does not need.
    a, b, c = 3.4445, -4.7750, 2.0315
    X: Tensor = G / (torch.linalg.matrix_norm(G, keepdim=True) + 1e-7)
    tall = G.size(-2) > G.size(-1)  # X X^T is the smaller product for a wide matrix
    X = X.mT if tall else X
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X
