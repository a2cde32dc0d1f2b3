"""Denoising and training on images, killed at random steps: the same bits as never stopped."""

from __future__ import annotations

import pytest

from ostinato.image import SOLVERS
from ostinato.testing import Forks, check_killed

KILLS = {**dict.fromkeys(SOLVERS, 8), "training": 10}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_of_images_leave_no_trace() -> None:
    """All are forked from one process, as fifty imports would take minutes."""
    done = 0
    with Forks("killable_images") as forks:
        for seed, (name, kills) in enumerate(KILLS.items()):
            drawn = name in SOLVERS
            make = f"killable_images:{'denoise' if drawn else 'train'}"
            arguments = {"solver": name} if drawn else {}
            done += check_killed(make, kills=kills, seed=seed, arguments=arguments, forks=forks)
    assert done == sum(KILLS.values()) == 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_in_color_that_are_killed_come_back_bit_for_bit() -> None:
    """Their tensors are kept in the journal whole, and compared."""
    with Forks("killable_images") as forks:
        check_killed("killable_images:denoise_in_color", kills=8, seed=7, forks=forks)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_of_one_step_and_an_autoencoder_that_are_killed_end_alike() -> None:
    """A killed training of one goes back, too, as its posterior collapses."""
    with Forks("killable_images") as forks:
        for seed, make in enumerate(("train_vae", "decode", "generate")):
            assert check_killed(f"killable_images:{make}", kills=6, seed=seed, forks=forks) >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pipeline_that_is_killed_comes_back_bit_for_bit() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    with Forks("killable_pipelines") as forks:
        check_killed("killable_pipelines:pipeline", kills=8, seed=8, forks=forks)
