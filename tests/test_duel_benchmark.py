from __future__ import annotations

import torch

from benchmarks.digit_bench import Bench, trained_for
from benchmarks.duel import BATCH, MARKS, Dcgan, Setting, measured, train_ours
from ostinato.image import Images
from ostinato.loop.adapters import CallableProcess
from recipes.digit_measures import FeatureClassifier

SMALL = Setting(2e-4, 2e-4, 4)


def digits(number: int) -> Images:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, 1, 28, 28), generator=draws, dtype=torch.uint8)
    return Images(pixels, torch.arange(number) % 10, tuple("0123456789"))


class ByBrightness(FeatureClassifier):
    """Classifies an image by the tenth of its mean."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[(x.mean((1, 2, 3)) * 10).long()]


def test_a_class_counts_from_a_tenth_of_its_due_share() -> None:
    bench = Bench(ByBrightness(), digits(10), 1000)
    shades = [0.05] * 970 + [0.15] * 10 + [0.25] * 9 + [0.35] * 11
    images = torch.tensor(shades).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    assert bench.classes(images) == 3


def test_the_peer_has_the_sizes_and_initial_weights_of_the_tutorial() -> None:
    peer = Dcgan(digits(8), Setting(2e-4, 2e-4, 64))
    images = peer.samples(BATCH + 2)
    assert images.shape == (BATCH + 2, 1, 28, 28)
    assert peer.discriminator(images[:3]).shape == (3, 1, 1, 1)
    for network in (peer.generator, peer.discriminator):
        for name, p in network.named_parameters():
            if p.dim() == 4:
                assert abs(float(p.detach().std()) - 0.02) < 0.003, name


def test_a_step_of_the_peer_changes_both_sides() -> None:
    peer = Dcgan(digits(8), SMALL)
    before = [p.clone() for side in (peer.generator, peer.discriminator) for p in side.parameters()]
    peer.step(0)
    after = [p for side in (peer.generator, peer.discriminator) for p in side.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_peer_is_measured_at_the_end_also_where_a_step_passes_all_marks() -> None:
    assert len(list(Dcgan(digits(8), SMALL).trained(1e-9, MARKS))) == 1


def test_a_peer_whose_weights_are_not_finite_has_no_figures() -> None:
    peer = Dcgan(digits(8), SMALL)
    with torch.no_grad():
        next(peer.generator.parameters()).fill_(torch.nan)
    assert measured(peer, Bench(FeatureClassifier(), digits(8), 8), 1e-9) == []


def test_ours_makes_a_step_at_least_and_keeps_no_best_weights_by_distance() -> None:
    duel, steps = train_ours(digits(8), digits(8), 1e-9)
    assert steps >= 1
    assert not duel.best


def test_training_for_steps_makes_so_many() -> None:
    made = []

    def make(steps: int) -> CallableProcess:
        made.append(steps)
        return CallableProcess(lambda: {"loss": 1.0})

    assert trained_for(make, 0, steps=3)[1] == 3
    assert made == [3]
