"""From logits to tokens: pure functions, one uniform number per row, nothing shared by rows.

Only row-wise kernels (softmax, topk, cumsum) are used: their result for a row does not depend on
the other rows. A plain `exp` over the whole tensor may differ where its vectorized loop
ends. Knows no lanes and no cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor

from ostinato.arguments import NumberRange, require, require_sampling, require_types

CANDIDATES = 256
"""The most likely tokens of each row that are ranked. Whole rows are sorted only where these do not
reach `top_p`: for 16 rows of 49,152 logits that took 98 ms, ranking these 8."""


GREEDY_BELOW = 1e-5
"""Temperatures below this count as 0. Divided by them a float32 logit can overflow, and of tokens
whose logits differ by 0.001 the likelier one is drawn for certain even at this one."""

SHIFT = NumberRange(
    lambda value: -1e9 <= value <= 1e9 or value == -math.inf,
    "a number from -1e9 to 1e9, or -inf",
)
"""What may be added to a logit; minus infinity forbids the token."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn; the names and ranges are those of the Hugging Face `generate`.

    `temperature` 0 takes the most likely token, as does one below `GREEDY_BELOW`. `top_k` (0: off)
    keeps the k most likely, `top_p` in (0, 1] the smallest set with this total probability (nucleus
    sampling, Holtzman et al. 2020). `min_p` in [0, 1) keeps tokens at least this fraction as likely
    as the top one (Nguyen et al. 2024). `repetition_penalty` divides positive and multiplies
    negative logits of tokens already in the text (CTRL, Keskar et al. 2019). `logit_bias` is added
    to the logits of single tokens.
    `end_bias` is added to the end tokens' logits at the last token of the limit; it grows linearly
    from 0 over the `end_within` tokens before.
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
        require_sampling({name: getattr(self, name) for name in self.__dataclass_fields__})
        require_types(self)
        known = isinstance(self.logit_bias, Mapping)
        require(known, "logit_bias", "a mapping from token ids to numbers", self.logit_bias)
        for token, shift in self.logit_bias.items():
            is_id = isinstance(token, Integral) and not isinstance(token, bool) and token >= 0
            require(is_id, "logit_bias", "a mapping from token ids", token)
            SHIFT.require(f"logit_bias[{token}]", shift)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature < GREEDY_BELOW

    def require_vocab(self, vocab_size: int) -> None:
        """Raise `InputError` where `logit_bias` names a token that a model does not have."""
        highest = max(self.logit_bias, default=0)
        expected = f"a mapping from tokens from 0 to {vocab_size - 1}"
        require(highest < vocab_size, "logit_bias", expected, highest)

    def end_shift(self, left: int) -> float:
        """Return what is added to end tokens' logits while `left` tokens (1 or more) may follow."""
        return self.end_bias * max(0.0, 1 - (left - 1) / self.end_within)


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How one row is drawn: its settings, its uniform number, and what changes its logits.

    `seen` are the tokens that the repetition penalty applies to. `allowed`, bool (V,), wins over
    `forbid`: tokens are forbidden only as long as an allowed one is left.
    """

    sampling: SamplingParams
    uniform: float
    forbid: Sequence[int] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    seen: Sequence[int] = ()
    allowed: Tensor | None = None


def adjust(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Return logits (N, V) with penalties, biases and masks applied; the input stays unchanged."""
    adjusted = logits
    for n, row in enumerate(rows):
        penalty = row.sampling.repetition_penalty
        biases = {**row.sampling.logit_bias, **row.bias}
        unchanged = not biases and not row.forbid and row.allowed is None
        if unchanged and (penalty == 1.0 or not row.seen):
            continue
        if adjusted is logits:
            adjusted = logits.clone()
        row_logits = adjusted[n]
        if penalty != 1.0 and row.seen:
            seen = torch.tensor(sorted(set(row.seen)))
            values = row_logits[seen]
            row_logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if biases:
            row_logits[list(biases)] += torch.tensor(list(biases.values()), dtype=row_logits.dtype)
        forbid(row_logits, row)
    return adjusted


def forbid(row_logits: Tensor, row: SamplingRow, more: Sequence[int] = ()) -> None:
    """Mask what the row does not allow or forbids, and `more`, in its logits (V,), in place."""
    if row.allowed is not None:
        row_logits.masked_fill_(~row.allowed, -torch.inf)
    for tokens in (row.forbid, more):
        masked = list(tokens)
        before = row_logits[masked]
        row_logits[masked] = -torch.inf
        if row.allowed is not None and not bool(torch.isfinite(row_logits).any()):
            row_logits[masked] = before


def top_logprobs(logprobs: Tensor, count: int) -> list[tuple[int, float]]:
    """Return the most likely tokens of a row (V,) with their log-probabilities, best first."""
    values, ids = torch.topk(logprobs, min(count, logprobs.shape[-1]))
    return list(zip(ids.tolist(), values.tolist(), strict=True))


def entropy(logprobs: Tensor) -> float:
    """Return the entropy, in nats, of a row of log-probabilities (V,)."""
    probs = torch.softmax(logprobs, dim=-1)
    terms = torch.where(probs > 0, probs * logprobs, 0.0)  # 0 * -inf would be NaN
    return -float(terms.sum())


def draw(adjusted: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Draw one token per row from logits (N, V), by inverse CDF in the order of token ids."""
    count = min(CANDIDATES, adjusted.shape[-1])
    values, ids = torch.topk(adjusted, count, dim=-1)  # (N, K), the most likely first
    tokens = [0] * len(rows)
    narrow = []
    for n, row in enumerate(rows):
        if row.sampling.greedy:
            # Of equal logits the lowest id: topk orders them arbitrarily.
            tokens[n] = int(ids[n][values[n] == values[n][0]].min())
        elif 0 < row.sampling.top_k <= count:
            narrow.append(n)
        else:
            tokens[n] = _draw_wide(adjusted[n], values[n], ids[n], row)
    if narrow:
        drawn = _draw_narrow(values[narrow], ids[narrow], [rows[n] for n in narrow])
        for n, token in zip(narrow, drawn, strict=True):
            tokens[n] = token
    return tokens


def drawn_probs(row_logits: Tensor, sampling: SamplingParams) -> Tensor:
    """Return the probabilities (V,) with which `draw` takes each token of a row of logits (V,)."""
    if sampling.greedy:
        probs = torch.zeros_like(row_logits)
        probs[int((row_logits == row_logits.max()).nonzero()[0, 0])] = 1.0
        return probs
    kept, order = torch.softmax(row_logits / sampling.temperature, dim=-1).sort(
        descending=True, stable=True
    )
    if sampling.top_k:
        kept[sampling.top_k :] = 0.0
        kept = kept / kept.sum()
    kept = _nucleus(kept[None], [sampling])[0]
    return torch.zeros_like(kept).scatter_(0, order, kept / kept.sum())


def _draw_narrow(values: Tensor, ids: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Draw from the candidates (N, K), in which top-k lies: one batch for all rows."""
    settings = [row.sampling for row in rows]
    temperature = torch.tensor([[s.temperature] for s in settings])
    top_k = torch.tensor([[s.top_k] for s in settings])
    rank = torch.arange(values.shape[-1])
    scaled = (values / temperature).masked_fill(rank >= top_k, -torch.inf)
    probs = _nucleus(torch.softmax(scaled, dim=-1), settings)
    return _inverse_cdf(probs, ids, [row.uniform for row in rows])


def _draw_wide(row_logits: Tensor, values: Tensor, ids: Tensor, row: SamplingRow) -> int:
    """Draw from a whole row (V,): without top-k, or with one beyond the candidates."""
    sampling = row.sampling
    probs = torch.softmax(row_logits / sampling.temperature, dim=-1)
    if sampling.top_k == 0 and sampling.top_p == 1 and sampling.min_p == 0:
        order = torch.arange(len(probs))
        return _inverse_cdf(probs[None], order[None], [row.uniform])[0]
    top = probs[ids]
    if sampling.top_k == 0 and sampling.top_p < 1 and float(top.double().sum()) >= sampling.top_p:
        kept, order = top, ids
    else:
        kept, order = torch.sort(probs, descending=True, stable=True)
        if sampling.top_k:
            kept, order = kept[: sampling.top_k], order[: sampling.top_k]
            kept = kept / kept.sum()
    return _inverse_cdf(_nucleus(kept[None], [sampling]), order[None], [row.uniform])[0]


def _nucleus(probs: Tensor, settings: Sequence[SamplingParams]) -> Tensor:
    """Set to 0 what top-p and min-p exclude from probs (N, K), the most likely first."""
    top_p = torch.tensor([[s.top_p] for s in settings], dtype=torch.float64)
    min_p = torch.tensor([[s.min_p] for s in settings])
    before = torch.cumsum(probs.double(), dim=-1) - probs.double()
    excluded = ((before >= top_p) & (top_p < 1)) | (probs < min_p * probs[:, :1])
    return probs.masked_fill(excluded, 0.0)


def _inverse_cdf(probs: Tensor, ids: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Return the token at which the cumulative sum of probs (N, K), by id, passes the uniform.

    Summed in float64: beside a sum near 1, float32 loses the shares of unlikely tokens.
    """
    order = torch.argsort(ids, dim=-1)
    cdf = torch.cumsum(torch.gather(probs, 1, order).double(), dim=-1)
    target = torch.tensor(uniforms, dtype=torch.float64)[:, None] * cdf[:, -1:]
    index = torch.searchsorted(cdf, target, right=True).clamp_(max=cdf.shape[-1] - 1)
    return [int(i) for i in torch.gather(ids, 1, torch.gather(order, 1, index))[:, 0]]
