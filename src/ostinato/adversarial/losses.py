"""Losses of generator and discriminator, with penalties on the discriminator's gradients.

Knows no network: a loss is given a function from images (B, C, H, W) to scores (B,), high for real
ones. Each score must depend on its own image alone, as without batch normalization: the penalties
are on the gradients of the sum of all scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from ostinato.arguments import require, require_types

Score = Callable[[Tensor], Tensor]
"""Scores (B,) of images (B, C, H, W)."""


class Term(NamedTuple):
    """What one side minimizes: a scalar with a graph, and what to report of it by name.

    The parts are `score/real` and `score/generated` (means, where they were computed), `accuracy`
    (the share of pairs whose real image scores higher), and the penalties before their weight
    (`r1`, `r2`, `gradient`).
    """

    loss: Tensor
    parts: Mapping[str, float]


class AdversarialLoss(Protocol):
    """What discriminator and generator minimize.

    Images are (B, C, H, W); where a loss compares pairs, the two of a pair have the same class.
    `seed` decides what is random in it.
    """

    def discriminator(self, score: Score, real: Tensor, generated: Tensor, seed: int) -> Term:
        """Return the discriminator's term. No gradient reaches the generator."""
        ...

    def generator(self, score: Score, real: Tensor, generated: Tensor) -> Term:
        """Return the generator's term. Its gradient reaches the discriminator's weights, too."""
        ...


@dataclass(frozen=True, kw_only=True)
class Relativistic:
    """The relativistic pairing loss with R1 and R2 penalties, of R3GAN.

    Huang et al., "The GAN is dead; long live the GAN!" (2024), section 2, equations 2 to 4:
    L = f(D(G(z)) - D(x)) with f(t) = -log(1 + exp(-t)), here with its sign turned. The
    discriminator minimizes softplus(D(G(z)) - D(x)) and half of `gamma` times both penalties.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        _require_weight(self, "gamma", self.gamma)

    def discriminator(self, score: Score, real: Tensor, generated: Tensor, seed: int) -> Term:
        """Return softplus(generated - real), with both zero-centered gradient penalties."""
        real, generated = _leaf(real), _leaf(generated)
        reals, fakes = score(real), score(generated)
        loss = softplus(fakes - reals).mean()
        parts = _scores(real=reals, generated=fakes)
        if self.gamma:
            r1, r2 = (
                squared_gradients(reals, real).mean(),
                squared_gradients(fakes, generated).mean(),
            )
            loss = loss + self.gamma / 2 * (r1 + r2)
            parts |= {"r1": float(r1.detach()), "r2": float(r2.detach())}
        return Term(loss, parts)

    def generator(self, score: Score, real: Tensor, generated: Tensor) -> Term:
        """Return softplus(real - generated)."""
        reals, fakes = score(real), score(generated)
        return Term(softplus(reals - fakes).mean(), _scores(real=reals, generated=fakes))


@dataclass(frozen=True, kw_only=True)
class NonSaturating:
    """The non-saturating loss with a penalty on gradients at real images (R1).

    Mescheder et al., "Which Training Methods for GANs do actually Converge?" (2018), section 4.1,
    equation 9; the losses are those of Goodfellow et al. 2014, section 3.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        _require_weight(self, "gamma", self.gamma)

    def discriminator(self, score: Score, real: Tensor, generated: Tensor, seed: int) -> Term:
        """Return softplus(-real) + softplus(generated), with the penalty at real images."""
        real = _leaf(real)
        reals, fakes = score(real), score(generated.detach())
        loss = softplus(-reals).mean() + softplus(fakes).mean()
        parts = _scores(real=reals, generated=fakes)
        if self.gamma:
            r1 = squared_gradients(reals, real).mean()
            loss = loss + self.gamma / 2 * r1
            parts["r1"] = float(r1.detach())
        return Term(loss, parts)

    def generator(self, score: Score, real: Tensor, generated: Tensor) -> Term:
        """Return softplus(-generated)."""
        fakes = score(generated)
        return Term(softplus(-fakes).mean(), _scores(generated=fakes))


@dataclass(frozen=True)
class Hinge:
    """The hinge loss, without a penalty: for discriminators that are bounded otherwise.

    Lim and Ye, "Geometric GAN" (2017), section 3; Miyato et al., "Spectral Normalization for GANs"
    (2018), equations 16 and 17.
    """

    def discriminator(self, score: Score, real: Tensor, generated: Tensor, seed: int) -> Term:
        """Return relu(1 - real) + relu(1 + generated)."""
        reals, fakes = score(real), score(generated.detach())
        loss = relu(1 - reals).mean() + relu(1 + fakes).mean()
        return Term(loss, _scores(real=reals, generated=fakes))

    def generator(self, score: Score, real: Tensor, generated: Tensor) -> Term:
        """Return -generated."""
        fakes = score(generated)
        return Term(-fakes.mean(), _scores(generated=fakes))


@dataclass(frozen=True, kw_only=True)
class Wasserstein:
    """The Wasserstein loss with a penalty on gradients between real and generated images.

    Gulrajani et al., "Improved Training of Wasserstein GANs" (2017), section 4, equation 3 and
    Algorithm 1: the norm is drawn to 1 at random points between pairs. Take several discriminator
    updates a step, as in the paper (5).
    """

    weight: float = 10.0

    def __post_init__(self) -> None:
        _require_weight(self, "weight", self.weight)

    def discriminator(self, score: Score, real: Tensor, generated: Tensor, seed: int) -> Term:
        """Return generated - real, with the penalty at points between them."""
        generated = generated.detach()
        reals, fakes = score(real), score(generated)
        loss = fakes.mean() - reals.mean()
        parts = _scores(real=reals, generated=fakes)
        if self.weight:
            draws = torch.Generator().manual_seed(seed)
            share = torch.rand(len(real), 1, 1, 1, generator=draws).to(real)
            between = _leaf(torch.lerp(generated, real, share))
            norms = squared_gradients(score(between), between).clamp(min=1e-12).sqrt()
            gradient = (norms - 1).square().mean()
            loss = loss + self.weight * gradient
            parts["gradient"] = float(gradient.detach())
        return Term(loss, parts)

    def generator(self, score: Score, real: Tensor, generated: Tensor) -> Term:
        """Return -generated."""
        fakes = score(generated)
        return Term(-fakes.mean(), _scores(generated=fakes))


def squared_gradients(scores: Tensor, images: Tensor) -> Tensor:
    """Return the squared norms (B,) of the gradients of scores (B,), to be derived further."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def _leaf(images: Tensor) -> Tensor:
    return images.detach().requires_grad_()


def _scores(**scores: Tensor) -> dict[str, float]:
    parts = {f"score/{name}": float(each.detach().mean()) for name, each in scores.items()}
    if len(scores) > 1:
        right = scores["real"].detach() > scores["generated"].detach()
        parts["accuracy"] = float(right.float().mean())
    return parts


def _require_weight(
    loss: Relativistic | NonSaturating | Wasserstein, name: str, value: float
) -> None:
    kind = type(loss).__name__
    require_types(loss, f"{kind}({{}})")
    require(value >= 0, f"{kind}({name})", "0 (no penalty) or more", value)
