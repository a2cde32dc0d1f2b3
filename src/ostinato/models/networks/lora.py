"""Low-rank adapters ("LoRA", Hu et al., 2021), stored in PEFT's file layout. Knows no training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require, require_at_least
from ostinato.errors import InputError, ModelError
from ostinato.models.files.checkpoint_io import reading_weights, save_tensors
from ostinato.models.files.json_values import write_json
from ostinato.models.files.peft_config import MERGE, PeftConfig
from ostinato.models.networks.llama import Llama
from ostinato.models.networks.quantized import ComputedLinear

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model."


class LoraLinear(nn.Linear):
    """A frozen linear layer plus `scale * B A`; the frozen weight keeps its name.

    A and B are float32 whatever the frozen weight's dtype: bfloat16 would round small steps away.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        # Built without storage: the frozen weight is the base layer's own.
        super().__init__(
            base.in_features, base.out_features, bias=base.bias is not None, device="meta"
        )
        self.weight, self.bias = base.weight, base.bias
        device, dtype = base.weight.device, torch.float32
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, dtype=dtype, device=device)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, dtype=dtype, device=device)
        self.scale, self.dropout = scale, dropout
        self._held: Tensor | None = None  # the merged weight, while it is known not to change

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b + scale * x A^T B^T`, (..., in) to (..., out)."""
        if self.dropout > 0.0 and self.training:
            A, B = self.lora_A.weight.to(x.dtype), self.lora_B.weight.to(x.dtype)
            low = F.linear(F.dropout(x, self.dropout), A)
            return F.linear(x, self.weight, self.bias) + self.scale * F.linear(low, B)
        # One wide product by W + s B A; with dropout, A sees another x, so it needs its own.
        return self.through(x, self.merged_weight())

    def merged_weight(self) -> Tensor:
        """Return `W + scale * B A` (out, in), in the dtype of W."""
        if self._held is not None:
            return self._held
        return add_update(self.weight, self.lora_A.weight, self.lora_B.weight, self.scale)

    def hold(self, merged: Tensor | None) -> None:
        """Use this merged weight from now on; None computes it anew whenever it is used."""
        self._held = merged

    @torch.no_grad()
    def update(self, out: Tensor) -> Tensor:
        """Write `B A` (out, in) into the first floats of `out`: the update without its scale."""
        made = out[: self.out_features * self.in_features].view(self.out_features, -1)
        return torch.mm(self.lora_B.weight, self.lora_A.weight, out=made)

    def through(self, x: Tensor, merged: Tensor) -> Tensor:
        """Return the output (..., out) for `x` (..., in), given a `merged_weight()`."""
        y: Tensor = _LowRank.apply(  # type: ignore[no-untyped-call]
            x, merged, self.weight, self.lora_A.weight, self.lora_B.weight, self.scale
        )
        return y if self.bias is None else y + self.bias

    def merged(self) -> nn.Linear:
        """Return a plain layer whose weight includes the update."""
        layer = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        layer.weight = nn.Parameter(self.merged_weight(), requires_grad=False)
        layer.bias = self.bias
        return layer


class MergedLinear(ComputedLinear):
    """A frozen layer whose weight includes the update, added anew at every access.

    What is in memory is the weight without it, perhaps mapped from a file, and the thin A and B.
    """

    def __init__(self, layer: LoraLinear) -> None:
        nn.Module.__init__(self)  # `nn.Linear` would allocate the weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.base: Tensor
        self.lora_A: Tensor
        self.lora_B: Tensor
        # Buffers move with the network; what `state_dict` holds is `weight`.
        self.register_buffer("base", layer.weight.detach(), persistent=False)
        self.register_buffer("lora_A", layer.lora_A.weight.detach(), persistent=False)
        self.register_buffer("lora_B", layer.lora_B.weight.detach(), persistent=False)
        self.scale = layer.scale

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return `W + scale * B A` (out, in), in the dtype of W."""
        return add_update(self.base, self.lora_A, self.lora_B, self.scale)


@torch.no_grad()
def add_update(W: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """Return `W + scale * B A` (out, in), in the dtype of W."""
    # The sum is computed in float32; only its result is rounded to the dtype of W.
    return (B @ A).mul_(scale).add_(W).to(W.dtype)


class _LowRank(torch.autograd.Function):
    """`x M^T` with M = W + s B A: one wide product forward and one backward, thin ones for A and B.

    M is not saved for the backward pass, which uses W, A and B: they are in memory anyway. Under
    autocast the output has a lower type than `x`; the backward pass computes in that one, too.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, M: Tensor, W: Tensor, A: Tensor, B: Tensor, scale: float
    ) -> Tensor:
        y = F.linear(x, M)
        ctx.save_for_backward(x.to(y.dtype), W, A, B)
        ctx.scale, ctx.dtype = scale, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, W, A, B = ctx.saved_tensors
        grad_y = grads[0].reshape(-1, W.size(0))
        x = x.reshape(-1, W.size(1))
        low_A, low_B = A.to(x.dtype), B.to(x.dtype)
        grad_low = (grad_y @ low_B).mul_(ctx.scale)  # (N, r)
        grad_A = (grad_low.t() @ x).to(A.dtype)
        grad_B = (grad_y.t() @ (x @ low_A.t())).to(B.dtype).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_y @ W.to(x.dtype)).addmm_(grad_low, low_A)
            grad_x = grad_x.view(*grads[0].shape[:-1], W.size(1)).to(ctx.dtype)
        return grad_x, None, None, grad_A, grad_B, None


def add_lora(
    model: Llama,
    rank: int = 16,
    alpha: float = 32.0,
    *,
    targets: Sequence[str] = PROJECTIONS,
    dropout: float = 0.0,
    seed: int = 0,
) -> Llama:
    """Add trainable low-rank updates of scale `alpha / rank` to `model`, and freeze the rest.

    A starts uniform in +-1/sqrt(in), drawn from `seed`; B starts at 0, so the output is unchanged
    at first. Matrices that stay in a file (in blocks, or under an adapter) become floats where they
    are adapted.
    Returns the same model. Raises `InputError` where it cannot be adapted.
    """
    require_at_least(1, "Use 8, 16 or 32.", rank=rank)
    require(0.0 <= dropout < 1.0, "dropout", "in [0, 1)", dropout, "Use 0 or 0.05.")
    unknown = sorted(set(targets) - set(PROJECTIONS))
    if unknown or not targets:
        raise InputError(
            f"targets must be some of {', '.join(PROJECTIONS)}, got {unknown or 'none'}. "
            "Leave it out for all seven."
        )
    shapes = {
        name: Update(rank, alpha / rank)
        for name, _ in _linear_layers(model)
        if name.rpartition(".")[2] in targets
    }
    return _add_updates(model, shapes, dropout, seed)


class Update(NamedTuple):
    """The rank of a layer's update `B A`, and its factor."""

    rank: int
    scale: float


def _add_updates(model: Llama, updates: Mapping[str, Update], dropout: float, seed: int) -> Llama:
    """Add an update to each named layer, and freeze the rest."""
    _check_adaptable(model)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in list(_linear_layers(model)):  # a list: the loop replaces modules
        if name not in updates:
            continue
        if isinstance(layer, ComputedLinear):
            layer = layer.widened()
        lora = LoraLinear(layer, *updates[name], dropout)
        bound = 1.0 / math.sqrt(layer.in_features)
        with torch.no_grad():
            lora.lora_A.weight.uniform_(-bound, bound, generator=generator)
            lora.lora_B.weight.zero_()
        model.set_submodule(name, lora)
    return model


def _check_adaptable(model: Llama) -> None:
    if model.config.family.fused:
        raise InputError(
            f"model must have a matrix for each of {', '.join(PROJECTIONS)}, got a "
            f"{model.config.model_type} network, whose files join some. Train it without one."
        )
    if has_adapter(model):
        raise InputError("model must have no adapter yet, got one. Merge it first.")


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Yield the adapted layers with their full module names."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


@contextmanager
def merged_once(network: nn.Module) -> Iterator[None]:
    """Merge each adapted weight once for all passes in the block; no weight may change in it.

    Passes over few tokens take half as long: merging costs as much as a product with 200 of them.
    """
    layers = [layer for _, layer in lora_layers(network)]
    for layer in layers:
        layer.hold(layer.merged_weight())
    try:
        yield
    finally:
        for layer in layers:
            layer.hold(None)


def has_adapter(network: nn.Module) -> bool:
    """Return whether some layer has an update that is not merged."""
    return next(lora_layers(network), None) is not None


def effective_weight(layer: nn.Linear) -> Tensor:
    """Return the weight (out, in) that a layer multiplies by: with its update, if it has one."""
    return layer.merged_weight() if isinstance(layer, LoraLinear) else layer.weight


def merge(model: Llama, *, mapped: bool = False) -> Llama:
    """Add every update to its weight and remove the adapter; return the same model.

    `mapped` leaves the weights where they are and adds the updates when a weight is used: slower,
    with no second copy of the weights, and not trainable.
    """
    for name, layer in list(lora_layers(model)):
        model.set_submodule(name, MergedLinear(layer) if mapped else layer.merged())
    return model


def save_adapter(
    model: Llama, folder: str | Path, *, base: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does.

    `base` is the name or folder of the adapter's model. Raises `InputError` without an adapter.
    """
    layers = dict(lora_layers(model))
    if not layers:
        raise InputError("model must have an adapter, got none. Call add_lora first.")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        **_described(layers),
        "lora_dropout": next(iter(layers.values())).dropout,
        "target_modules": _targets(model, layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
    }
    weights = {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).weight.detach().to(dtype).contiguous()
        for name, layer in layers.items()
        for part in ("lora_A", "lora_B")
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", config)
    save_tensors(folder / "adapter_model.safetensors", weights)


def _described(layers: Mapping[str, LoraLinear]) -> dict[str, object]:
    """Return rank and alpha of an adapter, and those of layers that differ from the first."""
    ranks = {name: layer.lora_A.out_features for name, layer in layers.items()}
    alphas = {name: layer.scale * ranks[name] for name, layer in layers.items()}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }


def _targets(model: Llama, layers: Mapping[str, LoraLinear]) -> list[str]:
    """Return the last names of the adapted layers; the full ones if others share a last name."""
    last = {name.rpartition(".")[2] for name in layers}
    sharing = {name for name, _ in _linear_layers(model) if name.rpartition(".")[2] in last}
    return sorted(last if sharing == set(layers) else layers)


def load_adapter(model: Llama, folder: str | Path) -> Llama:
    """Add the adapter in `folder` (PEFT's layout) to `model`; return the same model.

    Raises `ModelError` where a file is missing, the adapter belongs to another network, or it is
    of a kind that computes something else than `W + scale * B A`.
    """
    folder = Path(folder)
    config = PeftConfig.from_folder(folder)
    names = [name for name, _ in _linear_layers(model) if config.is_target(name)]
    if not names:
        raise ModelError(
            f"target_modules in {folder} must name some of {', '.join(PROJECTIONS)}, got "
            f"{config.values.raw['target_modules']!r}. Use the adapter of this model."
        )
    updates = {name: Update(config.rank(name), config.scale(name)) for name in names}
    path = folder / "adapter_model.safetensors"
    with reading_weights(path, "Save the adapter again."):
        weights = load_file(path)
    _add_updates(model, updates, config.dropout, seed=0)
    _fill(model, weights, folder)
    return model


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the layers that can be adapted with their full names."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in PROJECTIONS and isinstance(module, nn.Linear):
            yield name, module


@torch.no_grad()
def _fill(model: Llama, weights: dict[str, Tensor], folder: Path) -> None:
    for name, layer in lora_layers(model):
        for part in ("lora_A", "lora_B"):
            key = f"{PREFIX}{name}.{part}.weight"
            target = getattr(layer, part).weight
            if key not in weights:
                raise ModelError(
                    f"{folder} must hold {key!r}, got none. Use the adapter of this model."
                )
            if weights[key].shape != target.shape:
                raise ModelError(
                    f"{key} in {folder} must have the shape {tuple(target.shape)}, "
                    f"got {tuple(weights[key].shape)}. Use the adapter of this model."
                )
            target.copy_(weights.pop(key))
    if weights:
        raise ModelError(
            f"{folder} must hold updates of {', '.join(PROJECTIONS)} only, got "
            f"{next(iter(weights))!r} too. Use the adapter of this model, or: {MERGE}"
        )
