"""The prior of an autoencoder's points: fitted to classes, drawn from, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ostinato.image import Images
from ostinato.image.vae import VAE, Prior, VAEConfig
from ostinato.image.vae.prior import Points, fitted

CENTERS = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 6.0]])


def clusters(count: int, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return points (3 * count, 2) around the centers, and the numbers of these."""
    draws = torch.Generator().manual_seed(0)
    numbers = torch.arange(3 * count) % 3
    return CENTERS[numbers] + spread * torch.randn(3 * count, 2, generator=draws), numbers


def drawn(prior: Prior, count: int, label: int | None = None) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.stack([prior.draw(draws, label) for _ in range(count)])


def test_components_find_the_clusters_and_their_spread() -> None:
    means, _ = clusters(100)
    prior = fitted(Points(means, torch.full_like(means, 0.01)), 3)
    found = prior.means[0][torch.cdist(CENTERS, prior.means[0]).argmin(1)]
    assert torch.allclose(found, CENTERS, atol=0.2)
    assert torch.allclose(prior.shares[0], torch.full((3,), 1 / 3), atol=0.02)
    covariance = prior.factors[0] @ prior.factors[0].mT
    # The points' own variance is a part of a component's, beside that of their means.
    assert torch.allclose(covariance, 0.1 * torch.eye(2).expand(3, 2, 2), atol=0.05)


def test_a_point_is_drawn_of_its_class_or_of_any_as_often_as_in_the_data() -> None:
    means, numbers = clusters(100)
    labels = (numbers == 2).long()  # two clusters are class 0
    prior = fitted(Points(means, torch.full_like(means, 0.01), labels, 2), 2)
    one = drawn(prior, 200, 1)
    assert bool((torch.cdist(one, CENTERS).argmin(1) == 2).all())
    both = torch.cdist(drawn(prior, 200, 0), CENTERS).argmin(1)
    assert sorted(set(both.tolist())) == [0, 1]
    any_class = torch.cdist(drawn(prior, 600), CENTERS).argmin(1) == 2
    assert abs(float(any_class.float().mean()) - 1 / 3) < 0.06


def test_a_class_of_few_points_has_fewer_components_and_one_of_none_the_standard_normal() -> None:
    means, _ = clusters(4)
    labels = torch.zeros(12, dtype=torch.long)
    labels[11] = 1
    prior = fitted(Points(means, torch.full_like(means, 0.01), labels, 3), 4)
    assert (prior.shares[0] > 0).sum() == 1 and (prior.shares[1] > 0).sum() == 1
    near = (drawn(prior, 50, 1) - means[11]).square().mean()
    assert bool(prior.factors.isfinite().all()) and float(near) < 20
    assert abs(float(drawn(prior, 500, 2).std()) - 1) < 0.1
    assert prior.class_shares.tolist() == pytest.approx([11 / 12, 1 / 12, 0])


def test_points_that_are_all_the_same_have_a_prior() -> None:
    same = torch.ones(40, 3)
    points = drawn(fitted(Points(same, torch.zeros(40, 3)), 3), 20)
    assert torch.allclose(points, torch.ones(20, 3), atol=0.2)


def test_points_that_are_not_finite_leave_the_standard_normal() -> None:
    prior = fitted(Points(torch.full((40, 3), torch.nan), torch.ones(40, 3)), 3)
    assert abs(float(drawn(prior, 500).std()) - 1) < 0.1


def images(classes: int) -> Images:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=draws, dtype=torch.uint8)
    return Images(pixels, torch.arange(30) % classes, tuple("abc"[:classes]))


def test_a_prior_is_saved_with_its_network_and_may_be_fitted_again(tmp_path: Path) -> None:
    network = VAE(VAEConfig.for_images(1, 8, width=16, latent=3))
    network.save(tmp_path / "before")
    plain = VAE.load(tmp_path / "before")
    assert plain.classes == 0 and not any("prior" in name for name in plain.state_dict())
    assert abs(float(drawn(plain.prior, 500).std()) - 1) < 0.1
    for count in (2, 3):
        network.fit_prior(images(count), 2)
        network.save(tmp_path / "after")
        loaded = VAE.load(tmp_path / "after")
        assert loaded.classes == count and loaded.config.names == tuple("abc"[:count])
        assert torch.equal(drawn(loaded.prior, 9), drawn(network.prior, 9))
    network.fit_prior(images(2), 0)
    assert network.classes == 0 and torch.equal(drawn(network.prior, 9), drawn(plain.prior, 9))
