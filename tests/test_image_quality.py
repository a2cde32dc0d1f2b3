"""Measures of sets of images, against closed forms and sets whose quality is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image import diversity, frechet_distance, precision_recall


def normal(count: int, size: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def white(count: int, size: int = 3) -> Tensor:
    """Return rows of mean 0 and covariance 1, exactly."""
    x = normal(count, size).double()
    x -= x.mean(0)
    whitened: Tensor = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return whitened


def test_the_frechet_distance_is_that_of_normal_distributions() -> None:
    x = white(50)
    root = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    # Of N(0, 1) and N(m, C): |m|^2 + tr(1 + C - 2 C^(1/2)), here with C = root^2.
    expected = shift.square().sum() + (torch.eye(3) - root).square().sum()
    assert frechet_distance(x, x @ root + shift) == pytest.approx(float(expected))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_takes_more_features_than_images() -> None:
    a, b = normal(5, 8), normal(4, 8, seed=1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(normal(9, 1), normal(9, 1) + 3) == pytest.approx(9, rel=1e-5)
    with pytest.raises(InputError, match="b must be features of at least two images, got 1"):
        frechet_distance(a, b[:1])


def test_precision_and_recall_follow_the_definition() -> None:
    """Compare with the formulas written as loops over two small sets."""
    real, generated = normal(12, 2), 0.5 * normal(9, 2, seed=1) + 0.5

    def share(of: Tensor, within: Tensor) -> float:
        def covered(x: Tensor) -> bool:
            return any(
                float((x - y).norm()) <= float((within - y).norm(dim=1).sort().values[3])
                for y in within
            )

        return sum(covered(x) for x in of) / len(of)

    found = precision_recall(real, generated)
    assert found == pytest.approx((share(generated, real), share(real, generated)))
    assert 0 < found.recall < found.precision


def test_a_part_of_the_data_is_precise_and_not_complete() -> None:
    real = normal(200)
    some = real[:100][real[:100, 0] > 0]
    assert precision_recall(real, real) == (1, 1)
    precision, recall = precision_recall(real, some)
    assert precision == 1 and recall < 0.8
    precision, recall = precision_recall(real, 30 + normal(50, seed=1))
    assert (precision, recall) == (0, 0)


def test_sets_that_are_too_small_for_neighbors_are_refused() -> None:
    with pytest.raises(InputError, match="generated must be features of more than 3 images, got 3"):
        precision_recall(normal(9), normal(3))


def test_diversity_is_the_mean_distance_within_classes() -> None:
    x, labels = torch.tensor([[0.0], [1.0], [10.0], [13.0]]), torch.tensor([0, 0, 1, 1])
    assert diversity(x) == pytest.approx((1 + 10 + 13 + 9 + 12 + 3) / 6)
    assert diversity(x, labels) == pytest.approx(2)
    one_each = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    assert diversity(one_each) > 5 and diversity(one_each, labels) == 0
    assert diversity(x[:1]) == 0 and diversity(x, torch.arange(4)) == 0
