from __future__ import annotations

import torch
from test_duel_benchmark import digits

from benchmarks.digit_bench import Bench
from benchmarks.vae import BATCH, MARKS, Peer, decoded, train_ours
from ostinato.image.vae import VAE
from recipes.digit_measures import FeatureClassifier


def test_the_peer_has_the_sizes_of_the_example_and_learns() -> None:
    peer = Peer(digits(2 * BATCH))
    sizes = {name: tuple(p.shape) for name, p in peer.named_parameters() if p.dim() == 2}
    assert sizes == {
        "encoder.weight": (400, 784),
        "mean.weight": (20, 400),
        "log_variance.weight": (20, 400),
        "decoder.0.weight": (400, 20),
        "decoder.2.weight": (784, 400),
    }
    losses = [peer.step(number) for number in range(20)]
    assert losses[-1] < losses[0]


def test_the_peer_is_measured_at_the_end_also_where_a_step_passes_all_marks() -> None:
    peer = Peer(digits(8))
    assert len(list(peer.trained(1e-9))) == 1
    assert len(list(peer.trained(0.05))) <= len(MARKS)
    figures = peer.figures(Bench(FeatureClassifier(), digits(20), 20))
    assert set(figures) == {"fd", "precision", "recall", "reconstruction"}
    assert 0 < figures["reconstruction"] < 1


def test_ours_makes_a_step_at_least_and_keeps_no_best_weights() -> None:
    training, steps = train_ours(digits(40), digits(8), 1e-9)
    assert steps >= 1 and not training.best
    network = training.network
    assert isinstance(network, VAE)
    assert decoded(network, torch.zeros(3, network.config.latent)).shape == (3, 1, 28, 28)
