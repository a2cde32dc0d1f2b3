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
