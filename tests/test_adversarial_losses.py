"""Losses of duels: the papers' formulas, and the gradients through their penalties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ostinato.adversarial import (
    AdversarialLoss,
    Hinge,
    NonSaturating,
    Relativistic,
    Term,
    Wasserstein,
)
from ostinato.errors import InputError

LOSSES: list[AdversarialLoss] = [
    Relativistic(gamma=0.7),
    NonSaturating(gamma=0.7),
    Hinge(),
    Wasserstein(weight=3.0),
]


class Quadratic:
    """D(x) = a |x|^2 + b: its gradient at x is 2 a x, so that every penalty is known."""

    def __init__(self, a: float = 0.3, b: float = 0.1) -> None:
        self.a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        self.b = torch.tensor(b, dtype=torch.float64, requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.a * x.square().flatten(1).sum(1) + self.b


def images(seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=draws)


REAL, GENERATED = images(1), images(2)


def squares(x: Tensor) -> list[float]:
    return x.square().flatten(1).sum(1).tolist()


def loss_of(term: Term) -> float:
    return float(term.loss.detach())


def backward(term: Term) -> None:
    term.loss.backward()  # type: ignore[no-untyped-call]


def mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def softplus(t: float) -> float:
    return math.log1p(math.exp(t))


def pairs() -> list[tuple[float, float]]:
    """Return D(x) and D(G(z)) of each pair."""
    return [
        (0.3 * x + 0.1, 0.3 * g + 0.1)
        for x, g in zip(squares(REAL), squares(GENERATED), strict=True)
    ]


def penalty(x: Tensor, a: float = 0.3) -> float:
    return mean((2 * a) ** 2 * s for s in squares(x))


def test_the_relativistic_loss_is_that_of_r3gan() -> None:
    term = Relativistic(gamma=0.7).discriminator(Quadratic(), REAL, GENERATED, 0)
    r1, r2 = penalty(REAL), penalty(GENERATED)
    expected = mean(softplus(g - x) for x, g in pairs()) + 0.35 * (r1 + r2)
    assert loss_of(term) == pytest.approx(expected)
    assert term.parts == pytest.approx(
        {
            "score/real": mean(x for x, _ in pairs()),
            "score/generated": mean(g for _, g in pairs()),
            "accuracy": mean(x > g for x, g in pairs()),
            "r1": r1,
            "r2": r2,
        }
    )
    term = Relativistic().generator(Quadratic(), REAL, GENERATED)
    assert loss_of(term) == pytest.approx(mean(softplus(x - g) for x, g in pairs()))


def test_the_non_saturating_loss_penalizes_gradients_at_real_images() -> None:
    term = NonSaturating(gamma=0.7).discriminator(Quadratic(), REAL, GENERATED, 0)
    expected = mean(softplus(-x) + softplus(g) for x, g in pairs()) + 0.35 * penalty(REAL)
    assert loss_of(term) == pytest.approx(expected)
    assert term.parts["r1"] == pytest.approx(penalty(REAL)) and "r2" not in term.parts
    term = NonSaturating().generator(Quadratic(), REAL, GENERATED)
    assert loss_of(term) == pytest.approx(mean(softplus(-g) for _, g in pairs()))


def test_the_hinge_loss_is_flat_beyond_the_margin() -> None:
    term = Hinge().discriminator(Quadratic(), REAL, GENERATED, 0)
    expected = mean(max(0, 1 - x) + max(0, 1 + g) for x, g in pairs())
    assert loss_of(term) == pytest.approx(expected)
    apart = Quadratic(a=-5.0, b=12.0)  # 12 at the origin, far below -1 at the generated images
    assert loss_of(Hinge().discriminator(apart, 0 * REAL, GENERATED * 10, 0)) == 0
    term = Hinge().generator(Quadratic(), REAL, GENERATED)
    assert loss_of(term) == pytest.approx(-mean(g for _, g in pairs()))


def test_the_wasserstein_penalty_draws_norms_between_pairs_to_one() -> None:
    term = Wasserstein(weight=3.0).discriminator(Quadratic(), REAL, GENERATED, 5)
    share = torch.rand(3, 1, 1, 1, generator=torch.Generator().manual_seed(5)).double()
    between = share * REAL + (1 - share) * GENERATED
    gradient = mean((0.6 * math.sqrt(s) - 1) ** 2 for s in squares(between))
    expected = mean(g - x for x, g in pairs()) + 3 * gradient
    assert loss_of(term) == pytest.approx(expected)
    assert term.parts["gradient"] == pytest.approx(gradient)
    # D(x) = sum of 4 pixels / 2 has a gradient of norm 1 everywhere: nothing is penalized.
    level = Wasserstein().discriminator(lambda x: x.flatten(1).sum(1) / 2, REAL, GENERATED, 0)
    assert level.parts["gradient"] == pytest.approx(0, abs=1e-12)
    assert loss_of(Wasserstein().generator(Quadratic(), REAL, GENERATED)) == pytest.approx(
        -mean(g for _, g in pairs())
    )


def test_a_flat_discriminator_has_finite_gradients() -> None:
    flat = Quadratic(a=0.0)
    for loss in LOSSES:
        backward(loss.discriminator(flat, REAL, GENERATED, 0))
        assert flat.a.grad is not None and flat.a.grad.isfinite()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_through_the_penalties_are_those_of_the_formula(loss: AdversarialLoss) -> None:
    """Compare double backward with finite differences of the loss's value."""

    def value(a: float) -> float:
        return loss_of(loss.discriminator(Quadratic(a), REAL, GENERATED, 0))

    score = Quadratic()
    backward(loss.discriminator(score, REAL, GENERATED, 0))
    assert score.a.grad is not None
    slope = (value(0.3 + 1e-6) - value(0.3 - 1e-6)) / 2e-6
    assert float(score.a.grad) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_only_the_generators_term_reaches_the_generator(loss: AdversarialLoss) -> None:
    made = GENERATED.clone().requires_grad_()
    backward(loss.discriminator(Quadratic(), REAL, made * 1, 0))
    assert made.grad is None
    backward(loss.generator(Quadratic(), REAL, made * 1))
    assert made.grad is not None
    # It raises the scores of generated images, which grow with their distance from the origin.
    assert ((made - 0.1 * made.grad).square().sum() > made.square().sum()).item()


def test_a_weight_of_zero_computes_no_penalty() -> None:
    terms = [
        loss.discriminator(Quadratic(), REAL, GENERATED, 0)
        for loss in (Relativistic(gamma=0.0), NonSaturating(gamma=0.0), Wasserstein(weight=0.0))
    ]
    assert all(set(term.parts) == {"score/real", "score/generated", "accuracy"} for term in terms)


@pytest.mark.parametrize(("kind", "name"), [(Relativistic, "gamma"), (Wasserstein, "weight")])
def test_a_weight_must_be_a_number_of_zero_or_more(kind: Any, name: str) -> None:
    for value in (-1.0, math.nan, "much"):
        with pytest.raises(InputError, match=rf"{kind.__name__}\({name}\) must be"):
            kind(**{name: value})
