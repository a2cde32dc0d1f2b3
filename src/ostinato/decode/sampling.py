"""From logits to a token: pure functions, one uniform number a row, nothing shared by rows.

Only row-wise kernels (softmax, topk, cumsum) are used, whose result for a row does not depend on
the other rows; a plain `exp` over the whole tensor could differ at the edges of its vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ostinato.arguments import require

CANDIDATES = 256
"""How many of the likeliest tokens are looked at before the whole row has to be sorted."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn; the names and ranges are those of the Hugging Face `generate`.

    `temperature` 0 takes the likeliest token. `top_k` (0: off) keeps the k likeliest, `top_p` in
    (0, 1] the smallest set that holds this share (nucleus sampling, Holtzman et al. 2020), `min_p`
    in [0, 1) those at least this share as likely as the likeliest (Nguyen et al. 2024);
    `repetition_penalty` divides positive and multiplies negative logits of tokens that stand
    already (CTRL, Keskar et al. 2019); `logit_bias` is added to the logits of single tokens.
    `end_bias` is what the end tokens' logits are raised by at the last token of a limit that the
    process knows; over the `end_within` tokens before it this grows evenly from 0.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    end_bias: float = 0.0
    end_within: int = 32

    def __post_init__(self) -> None:
        require(self.temperature >= 0, "temperature", "0 or more", self.temperature)
        require(self.top_k >= 0, "top_k", "0 (off) or more", self.top_k)
        require(0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)
        require(0 <= self.min_p < 1, "min_p", "in [0, 1)", self.min_p)
        right = self.repetition_penalty > 0
        require(right, "repetition_penalty", "above 0", self.repetition_penalty)
        require(self.end_bias >= 0, "end_bias", "0 (off) or more", self.end_bias)
        require(self.end_within >= 1, "end_within", "1 token or more", self.end_within)

    def end_shift(self, left: int) -> float:
        """Return what end tokens' logits are raised by where `left` tokens, 1 or more, may come."""
        return self.end_bias * max(0.0, 1 - (left - 1) / self.end_within)


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What one row is drawn with: its settings, its uniform number, and what changes its logits.

    `allowed`, bool (V,), goes before `forbid`: where nothing would be left, that lapses.
    """

    sampling: SamplingParams
    uniform: float
    forbid: Sequence[int] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    seen: Sequence[int] = ()
    allowed: Tensor | None = None


def adjust(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Return logits (N, V) with penalties, biases and forbids put in; a copy where it changes."""
    adjusted = logits
    for n, row in enumerate(rows):
        penalty = row.sampling.repetition_penalty
        biases = {**row.sampling.logit_bias, **row.bias}
        unchanged = not biases and not row.forbid and row.allowed is None
        if unchanged and (penalty == 1.0 or not row.seen):
            continue
        if adjusted is logits:
            adjusted = logits.clone()
        one = adjusted[n]
        if penalty != 1.0 and row.seen:
            seen = torch.tensor(sorted(set(row.seen)))
            values = one[seen]
            one[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if biases:
            one[list(biases)] += torch.tensor(list(biases.values()), dtype=one.dtype)
        forbid(one, row)
    return adjusted


def forbid(one: Tensor, row: SamplingRow, more: Sequence[int] = ()) -> None:
    """Take what must not come, and `more`, out of one row of logits (V,), in place."""
    if row.allowed is not None:
        one.masked_fill_(~row.allowed, -torch.inf)
    for tokens in (row.forbid, more):
        out = list(tokens)
        kept = one[out]
        one[out] = -torch.inf
        if row.allowed is not None and not bool(torch.isfinite(one).any()):
            one[out] = kept


def top_logprobs(logprobs: Tensor, count: int) -> list[tuple[int, float]]:
    """Return the likeliest tokens of a row of log-probabilities (V,) with these, best first."""
    values, ids = torch.topk(logprobs, min(count, logprobs.shape[-1]))
    return list(zip(ids.tolist(), values.tolist(), strict=True))


def spread(logprobs: Tensor, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the entropy in nats of a row (V,), and its likeliest tokens with probabilities."""
    probs = torch.softmax(logprobs, dim=-1)
    finite = torch.where(probs > 0, probs * logprobs, 0.0)
    return -float(finite.sum()), top_logprobs(probs, count)


def draw(adjusted: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Draw one token a row from logits (N, V), by inverse CDF in the order of token ids."""
    count = min(CANDIDATES, adjusted.shape[-1])
    values, ids = torch.topk(adjusted, count, dim=-1)  # (N, K), the likeliest first
    tokens = [0] * len(rows)
    narrow = [n for n, row in enumerate(rows) if 0 < row.sampling.top_k <= count]
    for n, row in enumerate(rows):
        if row.sampling.temperature == 0:
            tokens[n] = int(ids[n][values[n] == values[n][0]].min())
        elif not 0 < row.sampling.top_k <= count:
            tokens[n] = _draw_wide(adjusted[n], values[n], ids[n], row)
    drawn = [n for n in narrow if rows[n].sampling.temperature > 0]
    if drawn:
        picked = _draw_narrow(values[drawn], ids[drawn], [rows[n] for n in drawn])
        for n, token in zip(drawn, picked, strict=True):
            tokens[n] = token
    return tokens


def _draw_narrow(values: Tensor, ids: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Draw where top-k keeps the choice among the candidates (N, K)."""
    settings = [row.sampling for row in rows]
    temperature = torch.tensor([[s.temperature] for s in settings])
    top_k = torch.tensor([[s.top_k] for s in settings])
    rank = torch.arange(values.shape[-1])
    scaled = (values / temperature).masked_fill(rank >= top_k, -torch.inf)
    probs = _nucleus(torch.softmax(scaled, dim=-1), settings)
    return _inverse_cdf(probs, ids, [row.uniform for row in rows])


def _draw_wide(row_logits: Tensor, values: Tensor, ids: Tensor, row: SamplingRow) -> int:
    """Draw from a whole row (V,): no top-k, or one beyond the candidates."""
    sampling = row.sampling
    probs = torch.softmax(row_logits / sampling.temperature, dim=-1)
    if sampling.top_k == 0 and sampling.top_p == 1 and sampling.min_p == 0:
        order = torch.arange(len(probs))
        return _inverse_cdf(probs[None], order[None], [row.uniform])[0]
    few = probs[ids]
    if sampling.top_k == 0 and sampling.top_p < 1 and float(few.double().sum()) >= sampling.top_p:
        kept, order = few, ids
    else:
        kept, order = torch.sort(probs, descending=True, stable=True)
        if sampling.top_k:
            kept, order = kept[: sampling.top_k], order[: sampling.top_k]
            kept = kept / kept.sum()
    return _inverse_cdf(_nucleus(kept[None], [sampling]), order[None], [row.uniform])[0]


def _nucleus(probs: Tensor, settings: Sequence[SamplingParams]) -> Tensor:
    """Set to 0 what top-p and min-p leave out of probs (N, K), the likeliest first."""
    top_p = torch.tensor([[s.top_p] for s in settings], dtype=torch.float64)
    min_p = torch.tensor([[s.min_p] for s in settings])
    before = torch.cumsum(probs.double(), dim=-1) - probs.double()
    out = ((before >= top_p) & (top_p < 1)) | (probs < min_p * probs[:, :1])
    return probs.masked_fill(out, 0.0)


def _inverse_cdf(probs: Tensor, ids: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Return the token at which the cumulated share of probs (N, K), by id, passes the uniform."""
    order = torch.argsort(ids, dim=-1)
    shares = torch.cumsum(torch.gather(probs, 1, order).double(), dim=-1)
    target = torch.tensor(uniforms, dtype=torch.float64)[:, None] * shares[:, -1:]
    index = torch.searchsorted(shares, target, right=True).clamp_(max=shares.shape[-1] - 1)
    return [int(i) for i in torch.gather(ids, 1, torch.gather(order, 1, index))[:, 0]]
