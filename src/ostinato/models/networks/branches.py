"""Several continuations of one prompt as one sequence, so that the prompt is computed once.

Knows no network: only where each token stands, and what it attends to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ostinato.models.networks.train_kernels import attend


class Branches:
    """A prompt of `prompt` tokens, followed by continuations of `lengths` tokens.

    Each continuation stands right after the prompt, and sees nothing of the others: a network
    computes for its tokens what it computes for prompt and continuation alone. `positions` (T,)
    are those in their own sequence, `longest` is the length of the longest of these.
    """

    def __init__(
        self, prompt: int, lengths: Sequence[int], *, device: torch.device | str = "cpu"
    ) -> None:
        self._prompt, self._device = prompt, device
        own = [torch.arange(length) for length in lengths]
        parts = [torch.arange(prompt), *(prompt + each for each in own)]
        self.positions = torch.cat(parts).to(device)
        self._width = max(lengths, default=0)
        self.longest = prompt + self._width
        # In rows (G, L), padded on the right: `_rows` are places in the sequence, `_real` those in
        # the rows of what is no padding.
        sizes = torch.tensor(list(lengths))
        columns = torch.arange(self._width)
        first = prompt + sizes.cumsum(0) - sizes
        real = columns < sizes[:, None]
        self._rows = torch.where(real, first[:, None] + columns, 0).reshape(-1).to(device)
        self._real = real.reshape(-1).nonzero().squeeze(1).to(device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Return the attention (1, H, T, D) of each token over the prompt and its own branch.

        With a `window` a token sees only those less than that many positions before it.
        """
        p, G = self._prompt, len(self._rows) // max(1, self._width)
        mask = None if window is None or window >= p else self._mask(0, p, window)
        prompt = attend(q[:, :, :p], k[:, :, :p], v[:, :, :p], mask)
        if not self._width:
            return prompt
        # The branches side by side, as a batch whose keys begin with those of the prompt.
        own_q, own_k, own_v = (self._in_rows(each) for each in (q, k, v))  # (G, H, L, D)
        keys = torch.cat((k[:, :, :p].expand(G, -1, -1, -1), own_k), 2)
        values = torch.cat((v[:, :, :p].expand(G, -1, -1, -1), own_v), 2)
        own = attend(own_q, keys, values, self._mask(p, self.longest, window))
        flat = own.transpose(0, 1).flatten(1, 2).index_select(1, self._real)  # (H, N, D)
        return torch.cat((prompt, flat[None]), 2)

    def _in_rows(self, x: Tensor) -> Tensor:
        """Return what belongs to the branches, (1, H, T, D) to (G, H, L, D)."""
        rows = x[0].index_select(1, self._rows)
        return rows.view(len(rows), -1, self._width, rows.size(-1)).transpose(0, 1)

    def _mask(self, start: int, stop: int, window: int | None) -> Tensor:
        """Return what is added to the scores of positions from `start` on: 0, or -inf (T, stop)."""
        at = torch.arange(stop, device=self._device)
        distance = at[start:, None] - at
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        return torch.zeros(hidden.shape, device=self._device).masked_fill_(hidden, -torch.inf)
