"""Any causal network of `transformers`, called as ours are (extra `hf`).

What such a network can do is tried when it is loaded, not read from a list: that it is causal,
that its cache can be cropped and gone on with, and that its logits are its head's on its hidden
states. Code that comes with a checkpoint is not run, and only safetensors are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.errors import MissingExtra, ModelError, UnknownLayout

UNBOUNDED = 1 << 20  # positions, of networks that name no limit
PROBE = 8  # tokens
RETURNING = ("dynamic", "longrope")  # scalings that turn all positions anew in a longer sequence


@dataclass(frozen=True, kw_only=True)
class TransformersConfig:
    """What is asked of such a network. `bounded` says what ends it before its own last position."""

    model_type: str
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    bounded: str = ""


class TransformersNetwork(nn.Module):
    """A causal network of `transformers`.

    `cached` tells whether it has a cache that can be cropped; without one, whole sequences are
    computed again for every token. `headed` tells that logits are `head(hidden)`; where they are
    not (they are capped or scaled), the logits themselves are what `forward` returns.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a `PreTrainedModel`; raise `ModelError` where it is not causal."""
        super().__init__()
        self.model = model.eval()
        text = model.config.get_text_config()
        limit, bounded = _limit(text)
        tokens = torch.arange(3, 3 + PROBE)[None] % int(text.vocab_size)  # (1, PROBE)
        with torch.inference_mode():
            self.headed = self._is_headed(tokens)
            self.cached = self._can_crop(tokens)
            hidden = self(tokens)
            width, vocab = hidden.size(-1), self.logits(hidden).size(-1)
            self._check_causal(tokens, hidden)
        self.config = TransformersConfig(
            model_type=str(model.config.model_type),
            vocab_size=min(vocab, int(text.vocab_size)),
            hidden_size=width,
            max_position_embeddings=limit,
            bounded=bounded,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the hidden states (B, T, C), or the logits where they are no head's, (B, T, V)."""
        return self.states(tokens, None)

    def states(self, tokens: Tensor, cache: Any) -> Tensor:
        """Return the same for `tokens` (1, T) that go on from `cache`, which takes them up."""
        values: dict[str, Any] = {"input_ids": tokens, "use_cache": cache is not None}
        if cache is not None:
            values["past_key_values"] = cache
        if self.headed:
            return self.model.base_model(**values).last_hidden_state  # type: ignore[no-any-return]
        return self.model(**values).logits  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) at what `forward` returned."""
        if not self.headed:
            return hidden
        return self.model.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def empty_cache(self) -> Any:
        """Return a cache that holds every position, in layers with a window too."""
        import transformers

        return transformers.DynamicCache()

    def _is_headed(self, tokens: Tensor) -> bool:
        self.headed = False
        expected = self(tokens)
        head, base = self.model.get_output_embeddings(), self.model.base_model
        if head is None or base is self.model:
            return False
        hidden = getattr(base(input_ids=tokens, use_cache=False), "last_hidden_state", None)
        if hidden is None or hidden.size(-1) != head.weight.size(-1):
            return False
        made: Tensor = head(hidden)
        return made.shape == expected.shape and torch.allclose(made, expected)

    def _can_crop(self, tokens: Tensor) -> bool:
        """Try to compute some tokens, go back, and on again with one of them."""
        expected, kept = self(tokens), PROBE // 2
        try:
            cache = self.empty_cache()
            self.states(tokens, cache)
            crop(cache, kept)
            again = self.states(tokens[:, kept : kept + 1], cache)
            whole = cache.get_seq_length() == kept + 1
        except Exception:  # networks without such a cache fail in ways of their own
            return False
        near = 1e-4 if expected.dtype == torch.float32 else 0.1
        scale = float(expected.float().abs().max())
        difference = (again[:, 0] - expected[:, kept]).float().abs().max()
        return whole and float(difference) <= near * max(scale, 1.0)

    def _check_causal(self, tokens: Tensor, hidden: Tensor) -> None:
        changed = tokens.clone()
        changed[0, -1] = 1
        before = slice(None, PROBE - 1)
        if not torch.allclose(self(changed)[:, before], hidden[:, before], rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"the network must be causal, got {self.model.config.model_type!r}, in which a "
                "later token changes what comes before it. Take a model that writes text."
            )


def _limit(config: Any) -> tuple[int, str]:
    """Return how many positions a cache can go on through, and why no more where it ends early.

    `dynamic` and `longrope` choose their angles by the length of the sequence: where it grows
    beyond the unscaled length, what the cache holds is no longer what the network would compute.
    """
    most = int(getattr(config, "max_position_embeddings", None) or UNBOUNDED)
    rope = getattr(config, "rope_parameters", None) or {}
    for scaling in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        kind = scaling.get("rope_type")
        if kind in RETURNING:
            unscaled = most if kind == "dynamic" else scaling["original_max_position_embeddings"]
            return min(most, int(unscaled)), (
                f"Its {kind!r} position scaling turns every position anew beyond these, which is "
                "not computed here: for longer ones take a server."
            )
    return most, ""


def _check_writes(config: Any, folder: Path) -> None:
    """Refuse a network without a causal head, and one that is configured to read both ways."""
    import transformers

    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if causal and not (masked and getattr(config, "is_decoder", None) is False):
        return
    what = "an encoder, which reads both ways" if masked else "which has no head that writes"
    use = (
        " In the layout of BERT it makes vectors of texts (ostinato.models.Encoder) or fills gaps "
        "(ostinato fill)."
        if config.model_type == "bert"
        else ""
    )
    raise ModelError(
        f"{folder} must hold a model that writes text, got {config.model_type!r}, {what}. "
        f"Take a causal model.{use}"
    )


def crop(cache: Any, length: int) -> None:
    """Take everything from position `length` on out of a cache that holds more."""
    more = cache.get_seq_length() - length
    if more > 0:
        cache.crop(-more)  # a length to keep is not taken by every version


def load_network(folder: Path, dtype: torch.dtype, reason: UnknownLayout) -> TransformersNetwork:
    """Load the folder through `transformers`. `reason` says why it is no network of ours."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f"{reason} Or go through transformers, which", "hf") from None
    local = {"trust_remote_code": False, "local_files_only": True}
    try:
        _check_writes(transformers.AutoConfig.from_pretrained(folder, **local), folder)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
        )
    except ModelError:
        raise
    except Exception as error:  # the library raises whatever it runs into
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{folder} must hold a causal model that transformers loads from safetensors, got: "
            f"{line} Run it behind a server instead."
        ) from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} must hold {missing[0]!r} ({len(missing)} missing), got none. "
            "Download the weights anew."
        )
    return TransformersNetwork(model)
