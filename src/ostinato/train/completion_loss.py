"""Loss and gradients of the answers in a conversation, at about half the usual cost.

Most tokens of a conversation with records are read, not written. Here only the positions that
predict a counted token are differentiated through all layers. What is only read gets its keys and
values differentiated by the adapter, layer by layer, but no gradient runs on through it into the
layers below: a truncated backward pass, as in truncated backpropagation through time (Williams
and Peng, 1990), here over positions. The loss itself is exact. Knows adapters, no optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.errors import InputError
from ostinato.models import DecoderLayer, Llama, LoraLinear, rope_table, rotate

CHUNK = 96  # queries attended at once: few enough to leave out most of the future's keys


@dataclass(frozen=True, slots=True)
class Part:
    """Some positions of a batch: flat for linear layers, in rows for attention.

    `places` (N,) are indices into the flat batch, `at` (N,) positions in their sequences.
    `rows` (B, Q) are indices into the part itself, padded; `valid` (B, Q) marks the real ones,
    `chunks` holds for each chunk of queries the keys it can see and the mask's bias.
    """

    places: Tensor
    at: Tensor
    rows: Tensor
    valid: Tensor
    chunks: tuple[tuple[slice, int, Tensor], ...]


def completion_only_loss(
    network: Llama, tokens: Tensor, counted: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Return the summed cross-entropy, in nats, of the counted tokens.

    `tokens` (B, T) are padded on the right to `lengths`; `loss_mask` (B, T) marks the tokens that
    the network has to predict. A sequence's first token cannot be counted.
    """
    _check(network)
    B, T = tokens.shape
    device = tokens.device
    real = torch.arange(T) < torch.tensor(list(lengths))[:, None]  # (B, T)
    real = real.to(device)
    writes = torch.zeros_like(real)
    writes[:, :-1] = counted[:, 1:] & real[:, 1:]
    written, read = _part(writes), _part(real & ~writes)
    both = torch.cat((read.places, written.places))
    where = torch.zeros(B * T, dtype=torch.long, device=device)
    where[both] = torch.arange(len(both), device=device)
    dtype = network.model.embed_tokens.weight.dtype
    cos, sin = rope_table(network.config, T, dtype=dtype, device=device)
    angles = [(cos[part.at][:, None], sin[part.at][:, None]) for part in (read, written)]
    embedded = network.model.embed_tokens.weight
    x_read = embedded[tokens.reshape(-1)[read.places]].detach()  # (N, C)
    x_written = embedded[tokens.reshape(-1)[written.places]]
    blocks = list(network.blocks())
    for block in blocks:
        x_read, x_written = _block(
            block, x_read, x_written, read, written, angles, where.view(B, T), block is blocks[-1]
        )
    targets = tokens.roll(-1, 1).reshape(-1)[written.places]
    logits = network.logits(network.model.norm(x_written))
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def _check(network: Llama) -> None:
    """Refuse what this pass, written out by hand, does not know."""
    config = network.config
    if config.model_type != "llama" or config.hidden_act != "silu":
        raise InputError(
            f"the pass through answers needs a Llama network with silu, got {config.model_type} "
            f"with {config.hidden_act}. Train without it (answers=False)."
        )


def _part(mask: Tensor) -> Part:
    """Index the positions that `mask` (B, T) marks."""
    T = mask.size(1)
    places = mask.reshape(-1).nonzero().squeeze(1)
    counts = mask.sum(1)
    Q = int(counts.max())
    first = counts.cumsum(0) - counts
    slots = torch.arange(Q, device=mask.device)
    valid = slots < counts[:, None]  # (B, Q)
    rows = torch.where(valid, first[:, None] + slots, 0)
    at = places % T
    positions = torch.where(valid, at[rows], 0)
    chunks = []
    for start in range(0, Q, CHUNK):
        part = slice(start, min(start + CHUNK, Q))
        keys = int(positions[:, part].max()) + 1
        future = torch.arange(keys, device=mask.device) > positions[:, part, None]  # (B, q, keys)
        bias = torch.zeros(future.shape, device=mask.device).masked_fill_(future, float("-inf"))
        chunks.append((part, keys, bias[:, None, None]))
    return Part(places, at, rows, valid, tuple(chunks))


def _block(
    block: DecoderLayer,
    x_read: Tensor,
    x_written: Tensor,
    read: Part,
    written: Part,
    angles: list[tuple[Tensor, Tensor]],
    where: Tensor,
    last: bool,
) -> tuple[Tensor, Tensor]:
    """Take both parts through a block; what is read comes out without a gradient."""
    attention, mlp = block.self_attn, block.mlp
    children = (*attention.named_children(), *mlp.named_children())
    layers = {name: layer for name, layer in children if isinstance(layer, nn.Linear)}
    adapted = {name: layer for name, layer in layers.items() if isinstance(layer, LoraLinear)}
    merged = {name: layer.merged_weight() for name, layer in adapted.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        y: Tensor = adapted[name].through(x, merged[name]) if name in adapted else layers[name](x)
        return y

    def heads(x: Tensor) -> Tensor:
        return x.view(len(x), -1, attention.head_dim)

    with torch.no_grad():
        h_read = block.input_layernorm(x_read)
    h_written = block.input_layernorm(x_written)
    k_read = rotate(heads(linear("k_proj", h_read)), *angles[0])  # (N, H, D)
    k_written = rotate(heads(linear("k_proj", h_written)), *angles[1])
    k = torch.cat((k_read, k_written)).flatten(1).index_select(0, where.reshape(-1))
    v = torch.cat((linear("v_proj", h_read), linear("v_proj", h_written)))
    v = v.index_select(0, where.reshape(-1))
    k = k.view(*where.shape, -1, attention.head_dim).transpose(1, 2)  # (B, H, T, D)
    v = v.view(*where.shape, -1, attention.head_dim).transpose(1, 2)

    def through(x: Tensor, h: Tensor, part: Part, turn: tuple[Tensor, Tensor]) -> Tensor:
        q = rotate(heads(linear("q_proj", h)), *turn).flatten(1)
        x = x + linear("o_proj", _attend(q, k, v, part))
        h = block.post_attention_layernorm(x)
        gated = F.silu(linear("gate_proj", h)) * linear("up_proj", h)
        return x + linear("down_proj", gated)

    if not last:  # nothing reads what the last block makes of what was read
        with torch.no_grad():
            x_read = through(x_read, h_read, read, angles[0])
    return x_read, through(x_written, h_written, written, angles[1])


def _attend(q: Tensor, k: Tensor, v: Tensor, part: Part) -> Tensor:
    """Attend from the part's queries (N, H * D) to keys and values (B, H_kv, T, D)."""
    B, Q = part.rows.shape
    H_kv, D = k.size(1), k.size(3)
    dtype, q, k, v = q.dtype, q.float(), k.float(), v.float()
    q = q.index_select(0, part.rows.reshape(-1)) * D**-0.5
    q = q.view(B, Q, H_kv, -1, D).permute(0, 2, 3, 1, 4)  # (B, H_kv, G, Q, D)
    pieces = []
    for queries, keys, bias in part.chunks:
        some = q[:, :, :, queries]
        scores = _grouped(some, k[:, :, :keys].transpose(2, 3)) + bias
        pieces.append(_grouped(scores.softmax(-1), v[:, :, :keys]))
    y = torch.cat(pieces, 3).permute(0, 3, 1, 2, 4).reshape(B * Q, -1).to(dtype)
    return y.index_select(0, part.valid.reshape(-1).nonzero().squeeze(1))


def _grouped(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (B, H, G, Q, X) by (B, H, X, Y): the queries of a group share their keys."""
    y: Tensor = a.flatten(2, 3) @ b
    return y.view(*a.shape[:4], b.size(3))
