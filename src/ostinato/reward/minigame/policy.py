"""The policies that play the mini-game: the shipped one, and those of `ostinato train policy`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ostinato.errors import InputError
from ostinato.reward.games import load_policy, policy_digest
from ostinato.reward.minigame.config import NO_POLICY
from ostinato.reward.minigame.environment import RIVER, SEEN
from ostinato.reward.minigame.teaching import Logits


def load_logits(name: str | Path) -> Logits:
    """Return the logits of a policy, of a folder or shipped, for the symbolic view.

    Raises `ModelError` where there is none, `InputError` for a policy of another game.
    """
    policy = load_policy(name)
    spaces = policy.spaces
    if (spaces.seen, spaces.choices) != ((SEEN,), (3,)):
        raise InputError(
            f"policy must be one of {RIVER}, got one of {policy.shape.game}. Train one with "
            f"ostinato train policy {RIVER}."
        )

    @torch.no_grad()
    def logits(view: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = policy.act(torch.from_numpy(view)[None])[0].double().numpy()
        return found

    return logits


def policy_place(name: str) -> str:
    """Return a policy's name for a record: the absolute path of a folder, or a shipped name."""
    path = Path(name)
    return str(path.absolute()) if name != NO_POLICY and path.is_dir() else name


def player_digest(name: str) -> str:
    """Return a hash of the files of a policy; empty for one that knows nothing."""
    return "" if name == NO_POLICY else policy_digest(name)
