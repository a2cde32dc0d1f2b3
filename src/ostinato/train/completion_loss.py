"""Loss and gradients of the completions in a conversation, at about half the usual cost.

Most tokens of a conversation are context: they are read, not predicted. Here only the positions
that predict a counted token (the completion) are differentiated through all layers. Context
positions pass gradients to the adapters of their keys and values, layer by layer, but none to the
layers below. This is a truncated backward pass, as in truncated backpropagation through time
(Williams and Peng, 1990), over positions. The loss itself is exact. Knows adapters, no optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.errors import InputError
from ostinato.models import DecoderLayer, Llama, LoraLinear, rope_table, rotate

CHUNK = 96
"""Queries attended to at once. Small enough to skip most keys that lie in a query's future."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some positions of a batch (B, T): flat for linear layers, in rows for attention.

    `flat` (N,) are indices into the flattened batch, `positions` (N,) those in their sequences.
    `rows` (B, Q) are indices into the part itself, padded; `valid` (B, Q) marks the real ones.
    `chunks` holds a slice of queries, the number of keys they can see, and the mask's bias.
    `rotation` is the cosines and sines (N, 1, D) of the rotary embedding.
    """

    flat: Tensor
    positions: Tensor
    rows: Tensor
    valid: Tensor
    chunks: tuple[tuple[slice, int, Tensor], ...]
    rotation: tuple[Tensor, Tensor]


def completion_only_loss(
    network: Llama, tokens: Tensor, loss_mask: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Return the summed cross-entropy, in nats, of the counted tokens.

    `tokens` (B, T) are padded on the right to `lengths`; `loss_mask` (B, T) marks the tokens that
    the network has to predict. A sequence's first token cannot be counted.
    """
    _require_llama(network)
    B, T = tokens.shape
    device = tokens.device
    real = torch.arange(T) < torch.tensor(list(lengths))[:, None]  # (B, T)
    real = real.to(device)
    predicts = torch.zeros_like(real)
    predicts[:, :-1] = loss_mask[:, 1:] & real[:, 1:]
    embedding = network.model.embed_tokens.weight
    table = rope_table(network.config, T, dtype=embedding.dtype, device=device)
    context, completion = _part(real & ~predicts, *table), _part(predicts, *table)

    # Keys and values are computed by parts; `order` puts them back into the sequences' order.
    both = torch.cat((context.flat, completion.flat))
    order = torch.zeros(B * T, dtype=torch.long, device=device)
    order[both] = torch.arange(len(both), device=device)
    order = order.view(B, T)

    x_context = embedding[tokens.reshape(-1)[context.flat]].detach()  # (N, C)
    x_completion = embedding[tokens.reshape(-1)[completion.flat]]
    layers = list(network.blocks())
    for layer in layers:
        is_last = layer is layers[-1]
        x_context, x_completion = _layer(
            layer, x_context, x_completion, context, completion, order, is_last=is_last
        )
    targets = tokens.roll(-1, 1).reshape(-1)[completion.flat]
    logits = network.logits(network.model.norm(x_completion))
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def _require_llama(network: Llama) -> None:
    """Refuse layers that `_layer`, a forward pass written out by hand, does not compute."""
    config = network.config
    if config.model_type != "llama" or config.hidden_act != "silu":
        raise InputError(
            f"completion_only must be False for this network: it needs a Llama network with silu, "
            f"got {config.model_type} with {config.hidden_act}. Train with the full backward pass."
        )


def _part(mask: Tensor, cos: Tensor, sin: Tensor) -> Part:
    """Index the positions that `mask` (B, T) marks; `cos` and `sin` are (T, D)."""
    T = mask.size(1)
    flat = mask.reshape(-1).nonzero().squeeze(1)
    counts = mask.sum(1)
    Q = int(counts.max())
    first = counts.cumsum(0) - counts
    columns = torch.arange(Q, device=mask.device)
    valid = columns < counts[:, None]  # (B, Q)
    rows = torch.where(valid, first[:, None] + columns, 0)
    positions = flat % T
    row_positions = torch.where(valid, positions[rows], 0)
    chunks = []
    for start in range(0, Q, CHUNK):
        queries = slice(start, min(start + CHUNK, Q))
        keys = int(row_positions[:, queries].max()) + 1
        future = torch.arange(keys, device=mask.device) > row_positions[:, queries, None]
        bias = torch.zeros(future.shape, device=mask.device)  # (B, q, keys)
        bias.masked_fill_(future, float("-inf"))
        chunks.append((queries, keys, bias[:, None, None]))
    rotation = (cos[positions][:, None], sin[positions][:, None])
    return Part(flat, positions, rows, valid, tuple(chunks), rotation)


def _layer(
    layer: DecoderLayer,
    x_context: Tensor,
    x_completion: Tensor,
    context: Part,
    completion: Part,
    order: Tensor,
    *,
    is_last: bool,
) -> tuple[Tensor, Tensor]:
    """Run both parts through a decoder layer; the context comes out without a gradient."""
    linear, head_dim = _linears(layer), layer.self_attn.head_dim

    def heads(x: Tensor) -> Tensor:
        return x.view(len(x), x.size(-1) // head_dim, head_dim)

    # The cut: the context's hidden states carry no gradient, but its keys and values do. So the
    # adapters of k_proj and v_proj still learn from what the completion attends to.
    with torch.no_grad():
        h_context = layer.input_layernorm(x_context)
    h_completion = layer.input_layernorm(x_completion)
    k_context = rotate(heads(linear("k_proj", h_context)), *context.rotation)  # (N, H, D)
    k_completion = rotate(heads(linear("k_proj", h_completion)), *completion.rotation)
    k = torch.cat((k_context, k_completion)).flatten(1).index_select(0, order.reshape(-1))
    v = torch.cat((linear("v_proj", h_context), linear("v_proj", h_completion)))
    v = v.index_select(0, order.reshape(-1))
    k = k.view(*order.shape, -1, head_dim).transpose(1, 2)  # (B, H, T, D)
    v = v.view(*order.shape, -1, head_dim).transpose(1, 2)

    def forward(x: Tensor, h: Tensor, part: Part) -> Tensor:
        q = rotate(heads(linear("q_proj", h)), *part.rotation).flatten(1)
        x = x + linear("o_proj", _attend(q, k, v, part))
        h = layer.post_attention_layernorm(x)
        gated = F.silu(linear("gate_proj", h)) * linear("up_proj", h)
        return x + linear("down_proj", gated)

    if not is_last:  # no layer above reads the context that the last one would make
        with torch.no_grad():
            x_context = forward(x_context, h_context, context)
    return x_context, forward(x_completion, h_completion, completion)


def _linears(layer: DecoderLayer) -> Callable[[str, Tensor], Tensor]:
    """Return a function that applies a linear layer by its name, with its adapter."""
    children = (*layer.self_attn.named_children(), *layer.mlp.named_children())
    linears = {name: module for name, module in children if isinstance(module, nn.Linear)}
    adapted = {name: module for name, module in linears.items() if isinstance(module, LoraLinear)}
    # Both parts use each adapter: merging it once costs less than two low-rank products.
    merged = {name: module.merged_weight() for name, module in adapted.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        y: Tensor = adapted[name].through(x, merged[name]) if name in adapted else linears[name](x)
        return y

    return linear


def _attend(q: Tensor, k: Tensor, v: Tensor, part: Part) -> Tensor:
    """Attend from the part's queries (N, H * D) to keys and values (B, H_kv, T, D)."""
    if not part.chunks:  # a batch without a counted token has an empty completion
        return q
    B, Q = part.rows.shape
    H_kv, D = k.size(1), k.size(3)
    dtype, q, k, v = q.dtype, q.float(), k.float(), v.float()
    q = q.index_select(0, part.rows.reshape(-1)) * D**-0.5
    q = q.view(B, Q, H_kv, -1, D).permute(0, 2, 3, 1, 4)  # (B, H_kv, G, Q, D)
    outputs = []
    for queries, keys, bias in part.chunks:
        scores = _grouped_matmul(q[:, :, :, queries], k[:, :, :keys].transpose(2, 3)) + bias
        outputs.append(_grouped_matmul(scores.softmax(-1), v[:, :, :keys]))
    y = torch.cat(outputs, 3).permute(0, 3, 1, 2, 4).reshape(B * Q, -1).to(dtype)
    return y.index_select(0, part.valid.reshape(-1).nonzero().squeeze(1))


def _grouped_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (B, H, G, Q, X) by (B, H, X, Y): the queries of a group share their keys."""
    y: Tensor = a.flatten(2, 3) @ b
    return y.view(*a.shape[:4], b.size(3))
