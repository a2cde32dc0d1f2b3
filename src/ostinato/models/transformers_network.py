"""Any causal network of `transformers`, with the interface of ours (extra `hf`).

What such a network can do is tested when it is loaded, not read from a list: whether it is causal,
whether its cache can be cropped and continued, and whether its logits are a head on its hidden
states. Code in a checkpoint is not run, and only safetensors are read. Knows no slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.errors import MissingExtra, ModelError, UnknownLayout
from ostinato.text_files import unmarked

UNBOUNDED = 1 << 20  # positions, for networks that name no limit
PROBE = 8  # tokens of the tests at loading
# RoPE scalings that choose the angles of all positions by the length of the sequence.
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True, kw_only=True)
class TransformersConfig:
    """What the rest of the library needs to know of a network of `transformers`.

    `bounded` is a sentence on why sequences must be shorter than the network allows, or "".
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    bounded: str = ""


class TransformersNetwork(nn.Module):
    """A causal network of `transformers`.

    `cached`: it has a cache that can be cropped; without one, every token computes its whole
    sequence again. `headed`: its logits are `head(hidden)`. Where they are not (some networks cap
    or scale them), `forward` returns the logits instead of hidden states.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a `PreTrainedModel`. Raises `ModelError` where it is not causal."""
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
        """Return the hidden states (B, T, C) of `tokens` (B, T), or logits if not `headed`."""
        return self.states(tokens, None)

    def states(self, tokens: Tensor, cache: Any) -> Tensor:
        """Return the same for `tokens` (1, T) that continue `cache`, which is extended by them."""
        values: dict[str, Any] = {"input_ids": tokens, "use_cache": cache is not None}
        if cache is not None:
            values["past_key_values"] = cache
        if self.headed:
            return self.model.base_model(**values).last_hidden_state  # type: ignore[no-any-return]
        return self.model(**values).logits  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of what `forward` returned."""
        if not self.headed:
            return hidden
        return self.model.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def empty_cache(self) -> Any:
        """Return a cache that keeps every position, also in layers with a window.

        Their default drops positions beyond the window, so it cannot be rewound.
        """
        import transformers

        return transformers.DynamicCache()

    def _is_headed(self, tokens: Tensor) -> bool:
        self.headed = False  # so that the call below returns the network's own logits
        expected = self(tokens)
        head, base = self.model.get_output_embeddings(), self.model.base_model
        if head is None or base is self.model:
            return False
        hidden = getattr(base(input_ids=tokens, use_cache=False), "last_hidden_state", None)
        if hidden is None or hidden.size(-1) != head.weight.size(-1):
            return False
        logits: Tensor = head(hidden)
        return logits.shape == expected.shape and torch.allclose(logits, expected)

    def _can_crop(self, tokens: Tensor) -> bool:
        """Compute some tokens, rewind, and compute the next one again: is the result the same?"""
        expected, kept = self(tokens), PROBE // 2
        try:
            cache = self.empty_cache()
            self.states(tokens, cache)
            crop(cache, kept)
            again = self.states(tokens[:, kept : kept + 1], cache)
            complete = cache.get_seq_length() == kept + 1
        except Exception:  # each network without such a cache raises its own errors
            return False
        # bfloat16 rounds to 8 significant bits in every layer.
        tolerance = 1e-4 if expected.dtype == torch.float32 else 0.1
        scale = float(expected.float().abs().max())
        difference = (again[:, 0] - expected[:, kept]).float().abs().max()
        return complete and float(difference) <= tolerance * max(scale, 1.0)

    def _check_causal(self, tokens: Tensor, hidden: Tensor) -> None:
        changed = tokens.clone()
        changed[0, -1] = 1
        before = slice(None, PROBE - 1)  # a causal network gives these the same states
        if not torch.allclose(self(changed)[:, before], hidden[:, before], rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"the network must be causal, got {self.model.config.model_type!r}, in which a "
                "later token changes earlier states. Use a model that writes text."
            )


def _limit(config: Any) -> tuple[int, str]:
    """Return the number of positions that a cache supports, and why it is not more, or "".

    `dynamic` and `longrope` choose their angles by the length of the sequence. Once it exceeds the
    unscaled length, the cached keys are no longer those that the network would compute.
    """
    limit = int(getattr(config, "max_position_embeddings", None) or UNBOUNDED)
    rope = getattr(config, "rope_parameters", None) or {}
    for scaling in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        kind = scaling.get("rope_type")
        if kind in LENGTH_DEPENDENT:
            unscaled = limit if kind == "dynamic" else scaling["original_max_position_embeddings"]
            return min(limit, int(unscaled)), (
                f"Its {kind!r} position scaling changes every cached position beyond that. Use a "
                "server for longer ones."
            )
    return limit, ""


def _check_writes(config: Any, folder: Path) -> None:
    """Refuse a network without a causal head, and one configured as an encoder."""
    import transformers

    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    # Encoders such as BERT are also listed as causal: for them `is_decoder` decides.
    if causal and not (masked and getattr(config, "is_decoder", None) is False):
        return
    what = "an encoder, which reads both ways" if masked else "which has no head that writes"
    use = (
        " For a BERT layout, ostinato.models.Encoder computes sentence vectors and ostinato fill "
        "fills gaps."
        if config.model_type == "bert"
        else ""
    )
    raise ModelError(
        f"{folder} must hold a model that writes text, got {config.model_type!r}, {what}. "
        f"Use a causal model.{use}"
    )


def crop(cache: Any, length: int) -> None:
    """Remove the positions from `length` on from a cache that has more."""
    surplus = cache.get_seq_length() - length
    if surplus > 0:
        cache.crop(-surplus)  # some versions of transformers accept no length to keep


def load_network(folder: Path, dtype: torch.dtype, reason: UnknownLayout) -> TransformersNetwork:
    """Load the folder through `transformers`; `reason` is why our network cannot.

    Raises `MissingExtra` without `transformers`, `ModelError` where the folder does not load.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f"{reason} Or load it through transformers, which", "hf") from None
    local = {"trust_remote_code": False, "local_files_only": True}
    try:
        with unmarked(folder) as readable:
            _check_writes(transformers.AutoConfig.from_pretrained(readable, **local), folder)
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                readable, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
            )
    except ModelError:
        raise
    except Exception as error:  # the library documents no errors: any may come
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
            "Download the weights again."
        )
    return TransformersNetwork(model)
