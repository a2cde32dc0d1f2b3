"""Layers over the blocks of a GGUF file, which stay as the file has them and where it is mapped.

They compute what the same layers in floats compute, by making the floats anew in every call: slow,
and with no matrix in memory twice. A backend that is fast takes their `groups`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.models.files.gguf_blocks import FORMATS, read_groups
from ostinato.models.networks.groups import Groups


class BlockMatrix(nn.Module):
    """A matrix (O, I) as raw blocks of a type in `FORMATS`: uint8 (O, bytes of a row).

    `order` (O,) has the block row of each output, where the file orders them otherwise. Layers
    that are tied share one of these.
    """

    def __init__(self, blocks: Tensor, kind: str, order: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.blocks: Tensor
        self.order: Tensor | None
        # Buffers move with the network; what `state_dict` holds is the layers' `weight`.
        self.register_buffer("blocks", blocks, persistent=False)
        self.register_buffer("order", order, persistent=False)

    @property
    def shape(self) -> torch.Size:
        """Outputs and inputs."""
        form = FORMATS[self.kind]
        outputs, size = self.blocks.shape
        return torch.Size((outputs, size // form.bytes * form.weights))

    def groups(self) -> Groups:
        """Return the whole numbers of the blocks, unpacked."""
        return read_groups(self._ordered(), self.kind)

    def rows(self, index: Tensor) -> Groups:
        """Return the outputs that `index` (n,) names."""
        rows = index if self.order is None else self.order[index]
        return read_groups(self.blocks[rows], self.kind)

    def _ordered(self) -> Tensor:
        return self.blocks if self.order is None else self.blocks[self.order]


class ComputedWeight(nn.Module):
    """A layer that makes its `weight` anew at every access, and saves it as if it had it."""

    weight: Tensor

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


class ComputedLinear(ComputedWeight, nn.Linear):
    """A linear layer with such a weight."""

    def widened(self) -> nn.Linear:
        """Return the same layer with its weight in memory, frozen."""
        layer = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        layer.weight = nn.Parameter(self.weight, requires_grad=False)
        layer.bias = self.bias
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b`, (..., in) to (..., out)."""
        return F.linear(x, self.weight, self.bias)


class InBlocks(ComputedWeight):
    """A layer whose weight stays in blocks; it computes in a dtype of floats."""

    def hold(self, matrix: BlockMatrix, dtype: torch.dtype) -> None:
        """Take the weight's blocks, and the dtype to compute in."""
        self.matrix = matrix
        self._like: Tensor
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight in floats, made anew at every access."""
        return self.groups().dequantized(self._like.dtype)

    def groups(self) -> Groups:
        """Return the weight as whole numbers in groups."""
        return self.matrix.groups()


class QuantizedLinear(InBlocks, ComputedLinear):  # type: ignore[override]
    """A linear layer whose weight (O, I) stays in blocks."""

    def __init__(
        self, matrix: BlockMatrix, dtype: torch.dtype, bias: nn.Parameter | None = None
    ) -> None:
        nn.Module.__init__(self)  # `nn.Linear` would allocate the weight
        self.out_features, self.in_features = matrix.shape
        self.hold(matrix, dtype)
        self.register_parameter("bias", bias)


class QuantizedEmbedding(InBlocks, nn.Embedding):  # type: ignore[override]
    """An embedding whose weight (V, C) stays in blocks."""

    def __init__(self, matrix: BlockMatrix, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # `nn.Embedding` would allocate the weight
        self.num_embeddings, self.embedding_dim = matrix.shape
        self.padding_idx = None
        self.hold(matrix, dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows (..., C) of `tokens` (...); only they are made floats."""
        rows = self.matrix.rows(tokens.flatten()).dequantized(self._like.dtype)
        return rows.view(*tokens.shape, self.embedding_dim)


def has_computed_weights(network: nn.Module) -> bool:
    """Return whether some matrix is made anew when it is used: it cannot be trained."""
    return any(isinstance(module, ComputedWeight) for module in network.modules())


def is_quantized(network: nn.Module) -> bool:
    """Return whether some matrix of a network stays in blocks."""
    return any(isinstance(module, BlockMatrix) for module in network.modules())
