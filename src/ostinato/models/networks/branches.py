"""Several continuations of one prompt as one sequence, so that the prompt is computed once.

Knows no network: only where each token stands, and what it may attend to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Branches:
    """A prompt of `prompt` tokens, followed by continuations of `lengths` tokens.

    Each continuation stands right after the prompt, and sees nothing of the others: a network
    computes for its tokens what it computes for prompt and continuation alone. `positions` (T,)
    are those in their own sequence, `longest` is the length of the longest of these.
    """

    def __init__(
        self, prompt: int, lengths: Sequence[int], *, device: torch.device | str = "cpu"
    ) -> None:
        own = [torch.arange(length) for length in lengths]
        parts = [torch.arange(prompt), *(prompt + each for each in own)]
        self.positions = torch.cat(parts).to(device)
        self.longest = prompt + max(lengths, default=0)
        # Of what belongs to the prompt the branch is -1: every branch sees it.
        sizes = torch.tensor([prompt, *lengths])
        self._branch = torch.arange(-1, len(lengths)).repeat_interleave(sizes).to(device)
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None = None) -> Tensor:
        """Return what is added to attention scores (T, T): 0 where a token sees another, else -inf.

        With a `window` it sees only the tokens less than that many positions before it.
        """
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        return self._masks[window]

    def _mask(self, window: int | None) -> Tensor:
        distance = self.positions[:, None] - self.positions
        sees = (self._branch[:, None] == self._branch) | (self._branch == -1)
        sees = sees & (distance >= 0)
        if window is not None:
            sees = sees & (distance < window)
        hidden = torch.zeros(sees.shape, device=sees.device)
        return hidden.masked_fill_(~sees, -torch.inf)
