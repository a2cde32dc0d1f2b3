"""Read a GGUF file of a family that our network supports: configuration, weights, tokenizer.

The format is documented in `docs/gguf.md` of ggml; the `gguf` package reads and dequantizes it.
Knows no network: it yields tensors of the Hugging Face layout.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    ReaderField,
    ReaderTensor,
    dequantize,
)
from torch import Tensor

from ostinato.arguments import counted
from ostinato.errors import ModelError
from ostinato.models.files.gguf_blocks import FORMATS
from ostinato.models.files.gguf_tokenizer import build_tokenizer, end_ids, special_id
from ostinato.models.files.weight_mapping import split_heads
from ostinato.models.networks.config import LlamaConfig
from ostinato.models.networks.quantized import BlockMatrix
from ostinato.models.tokenizer import Tokenizer

ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")  # Mistral files are labeled "llama"

_TENSORS = {
    "position_embd.weight": "model.embed_positions.weight",
    "output_norm.bias": "model.norm.bias",
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TEXTS = [GGUFValueType.ARRAY, GGUFValueType.STRING]
_FUSED = re.compile(r"blk\.(\d+)\.attn_qkv\.(weight|bias)")
_BLOCK_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


class _Reader(GGUFReader):
    """A reader that reads lists whole, and names the tensor whose type it does not know.

    The base class makes three arrays for each element: 5 s for 49,000 tokens and their merges.
    """

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        start = orig_offs + kind.nbytes + count.nbytes
        of, length = GGUFValueType(int(kind[0])), int(count[0])
        values: Any
        if of == GGUFValueType.STRING:
            values, size = _texts(self.data.data[start:], length)
        elif of in self.gguf_scalar_to_np:
            values = self._get(start, self.gguf_scalar_to_np[of], length)
            size = values.nbytes
        else:
            return super()._get_field_parts(orig_offs, raw_type)
        return start - orig_offs + size, [kind, count, values], [2], [GGUFValueType.ARRAY, of]

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        known, file = {int(kind) for kind in GGMLQuantizationType}, Path(str(self.data.filename))
        for field in fields:
            kind = int(field.parts[4][0])
            if kind not in known:
                raise ModelError(
                    f"{field.name} in {file.name} must be of a type that gguf "
                    f"knows, got number {kind}. Use another quantization (Q4_K_M, Q8_0, F16), a "
                    "newer version of the package gguf, or llama.cpp: llama:FILE.gguf."
                )
        super()._build_tensors(start_offs, fields)


class GGUFModel:
    """An open GGUF file of one of `ARCHITECTURES`."""

    def __init__(self, path: str | Path) -> None:
        """Open the file. Raises `ModelError` where it is not a complete GGUF file."""
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"{self.path} must exist, got no such file. Check the path.")
        try:
            # Copy on write, since PyTorch takes no memory that is only for reading.
            self._reader = _Reader(self.path, "c")
        except ModelError:
            raise
        except Exception as error:  # a damaged file makes the reader raise any error
            # Its words are numpy's, of shapes and buffers; they stay in the chain.
            raise ModelError(
                f"{self.path} must be a whole GGUF file, got a damaged or cut one of "
                f"{self.path.stat().st_size:,} bytes. Download it again."
            ) from error
        self._kind = self._get("general.architecture")
        if (self._get("split.count") or 1) > 1:
            raise ModelError(
                f"{self.path.name} must be a whole model, got one of {self._get('split.count')} "
                "parts. Join them with: llama-gguf-split --merge"
            )
        self._names = {tensor.name for tensor in self._reader.tensors}

    def config(self) -> LlamaConfig:
        """Return the configuration. Raises `ModelError` for an unsupported architecture."""
        if self._kind not in ARCHITECTURES:
            raise ModelError(
                f"the architecture of {self.path.name} must be one of {', '.join(ARCHITECTURES)}, "
                f"got {self._kind!r}. Use the model's Hugging Face folder, or run the file through "
                "llama.cpp: llama:FILE.gguf."
            )
        heads = int(self._need("head_count", "attention"))
        size = int(self._need("embedding_length"))
        window = self._window()
        return LlamaConfig(
            model_type="mistral" if window else self._kind,
            hidden_act="gelu_new" if self._kind == "gpt2" else "silu",
            vocab_size=len(self._require("tokenizer.ggml.tokens")),
            hidden_size=size,
            intermediate_size=int(self._need("feed_forward_length")),
            num_hidden_layers=int(self._need("block_count")),
            num_attention_heads=heads,
            num_key_value_heads=int(self._of_architecture("attention.head_count_kv") or heads),
            head_dim=int(self._of_architecture("attention.key_length") or size // heads),
            max_position_embeddings=int(self._need("context_length")),
            rms_norm_eps=self._eps(),
            rope_theta=float(self._of_architecture("rope.freq_base") or 10_000.0),
            rope_scaling=self._rope_scaling(),
            tie_word_embeddings="output.weight" not in self._names,
            attention_bias=self._has_bias("attn_q") or self._has_bias("attn_qkv"),
            output_bias=self._has_bias("attn_output"),
            mlp_bias=self._has_bias("ffn_up"),
            sliding_window=window,
            **self._special_ids(),
        )

    def stored(
        self, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[str, Tensor | BlockMatrix]]:
        """Yield what `weights` does, with matrices of a type in `FORMATS` as blocks, mapped."""
        config = self.config()
        for tensor in self._tensors():
            if self._stays(tensor):
                name = _hugging_face_name(tensor.name)
                order = self._row_order(name, config, int(tensor.shape[1]))
                blocks = torch.from_numpy(np.asarray(tensor.data))
                yield name, BlockMatrix(blocks, tensor.tensor_type.name, order)
            else:
                yield from self._renamed(tensor, config, dtype)

    def weights(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor under its Hugging Face name, dequantized."""
        config = self.config()
        for tensor in self._tensors():
            yield from self._renamed(tensor, config, dtype)

    def tensors(self) -> Iterator[tuple[str, int, bool]]:
        """Yield the type and size of each tensor, and whether `stored` leaves it in blocks."""
        for tensor in self._tensors():
            yield tensor.tensor_type.name, int(tensor.n_elements), self._stays(tensor)

    @property
    def mapped(self) -> mmap:
        """The map of the file, in which `stored` matrices lie."""
        mapped: mmap = vars(self._reader.data)["_mmap"]
        return mapped

    def matrix_kind(self) -> str:
        """Return the type of the file's first matrix."""
        return next((t.tensor_type.name for t in self._tensors() if len(t.shape) > 1), "")

    def _tensors(self) -> Iterator[ReaderTensor]:
        for tensor in self._reader.tensors:
            if tensor.name != "rope_freqs.weight":  # no weight: `_llama3_scaling` reads it
                yield tensor

    def _stays(self, tensor: ReaderTensor) -> bool:
        """Return whether a matrix can stay in blocks; GPT-2's are small, and some are joined."""
        kind = tensor.tensor_type.name
        return kind in FORMATS and len(tensor.shape) == 2 and self._kind != "gpt2"

    def _row_order(self, name: str, config: LlamaConfig, rows: int) -> Tensor | None:
        """Return the file's row of each output of a matrix, None where they are the same."""
        heads = self._permuted_heads(name, config, rows)
        return None if heads is None else torch.from_numpy(_unpermute(np.arange(rows), heads))

    def _permuted_heads(self, name: str, config: LlamaConfig, rows: int) -> int | None:
        """Return the number of heads whose rows the file reorders (see `_unpermute`), if any."""
        if self._kind != "llama" or not (".q_proj." in name or ".k_proj." in name):
            return None
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        if rows % (2 * heads):
            raise ModelError(
                f"{name} in {self.path.name} must have pairs of rows for each of {heads} heads, "
                f"got {counted(rows, 'rows')}. The header is damaged: download the file again."
            )
        return heads

    def _renamed(
        self, tensor: ReaderTensor, config: LlamaConfig, dtype: torch.dtype
    ) -> Iterator[tuple[str, Tensor]]:
        values = self._values(tensor)
        fused = _FUSED.fullmatch(tensor.name)
        if fused is not None:
            joined = torch.from_numpy(np.array(values, order="C")).to(dtype)
            yield from split_heads(fused[1], fused[2], joined)
            return
        name = _hugging_face_name(tensor.name)
        heads = self._permuted_heads(name, config, len(values))
        if heads is not None:
            values = _unpermute(values, heads)
        yield name, torch.from_numpy(np.array(values, order="C")).to(dtype)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer. Raises `ModelError` for an unsupported kind."""
        backend = build_tokenizer(self._get, self.path.name)
        tokens = self._require("tokenizer.ggml.tokens")
        keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        specials = {
            f"{name}_token": tokens[i]
            for name, key in keys.items()
            if (i := special_id(self._get, key)) is not None
        }
        return Tokenizer(
            backend,
            eos_ids=end_ids(self._get),
            chat_template=self._get("tokenizer.chat_template"),
            specials=specials,
        )

    def license(self) -> str | None:
        """Return the license named in the file, if any."""
        return self._get("general.license")  # type: ignore[no-any-return]

    def _values(self, tensor: ReaderTensor) -> np.ndarray:
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise ModelError(
                f"{tensor.name} in {self.path.name} must be of a type that gguf dequantizes, got "
                f"{tensor.tensor_type.name}. Use another quantization (Q4_K_M, Q8_0, F16)."
            ) from None
        return values.astype(np.float32, copy=False).reshape([int(n) for n in tensor.shape[::-1]])

    def _rope_scaling(self) -> dict[str, Any] | None:
        if "rope_freqs.weight" in self._names:
            return self._llama3_scaling()
        kind = self._of_architecture("rope.scaling.type")
        if kind in (None, "none"):
            return None
        if kind != "linear":
            raise ModelError(
                f"the position scaling of {self.path.name} must be none, linear or llama3, "
                f"got {kind!r}. Run this model behind a server."
            )
        return {"rope_type": "linear", "factor": float(self._need("factor", "rope.scaling"))}

    def _llama3_scaling(self) -> dict[str, Any]:
        """Recover the parameters of llama3 scaling; the file has only the resulting factors."""
        tensor = next(t for t in self._reader.tensors if t.name == "rope_freqs.weight")
        factors = np.asarray(tensor.data, dtype=np.float32)
        # All published models share these three numbers; only the factor varies.
        return {
            "rope_type": "llama3",
            "factor": float(f"{factors.max():.6g}"),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }

    def _window(self) -> int | None:
        """Return the sliding window in positions, None where every layer sees the whole context."""
        window = self._of_architecture("attention.sliding_window")
        if not window or int(window) >= int(self._need("context_length")):
            return None
        if self._kind != "llama":
            raise ModelError(
                f"{self.path.name} must see its whole context in every layer, got a window of "
                f"{window}: the file does not say in which layers. Use the model's Hugging Face "
                "folder instead."
            )
        return int(window)

    def _eps(self) -> float:
        name = "layer_norm_epsilon" if self._kind == "gpt2" else "layer_norm_rms_epsilon"
        # Stored as float32: six digits restore the decimal number of the original configuration.
        return float(f"{self._need(name, 'attention'):.6g}")

    def _has_bias(self, layer: str) -> bool:
        return f"blk.0.{layer}.bias" in self._names

    def sampling(self) -> dict[str, Any]:
        """Return what `general.sampling` recommends, by the keys of llama.cpp; None for nothing."""
        keys = ("temp", "top_p", "top_k", "min_p", "penalty_repeat")
        return {key: self._get(f"general.sampling.{key}") for key in keys}

    def _special_ids(self) -> dict[str, Any]:
        eos = special_id(self._get, "eos")
        return {
            "bos_token_id": special_id(self._get, "bos"),
            "eos_token_id": () if eos is None else (eos,),
            "pad_token_id": special_id(self._get, "padding"),
        }

    def _get(self, key: str) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            return None
        return field.parts[field.data[0]] if field.types == _TEXTS else field.contents()

    def _of_architecture(self, key: str) -> Any:
        """Return a value stored under the architecture's name, or None."""
        return self._get(f"{self._kind}.{key}")

    def _need(self, key: str, group: str = "") -> Any:
        return self._require(".".join(filter(None, (self._kind, group, key))))

    def _require(self, key: str) -> Any:
        value = self._get(key)
        if value is None:
            raise ModelError(
                f"{self.path.name} must hold {key!r}, got none. Use a newer GGUF of the model."
            )
        return value


def _texts(memory: memoryview, count: int) -> tuple[list[str], int]:
    """Return `count` texts, each after its length in 8 bytes, and the bytes that they take."""
    texts, at = [], 0
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", memory, at)
        at += 8 + length
        texts.append(str(memory[at - length : at], "utf-8"))
    return texts, at


def _hugging_face_name(name: str) -> str:
    if name in _TENSORS:
        return _TENSORS[name]
    match = _BLOCK_TENSOR.fullmatch(name)
    if match is None or match[2] not in _BLOCK:
        raise ModelError(
            f"tensors must be those of a supported network, got {name!r}. "
            "Run mixtures of experts and other layouts through llama.cpp: llama:FILE.gguf."
        )
    return f"model.layers.{match[1]}.{_BLOCK[match[2]]}.{match[3]}"


def _unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """Undo the reordering of a head's rows in GGUF files of Llama networks.

    They store the pairs of RoPE side by side (2i, 2i+1); the Hugging Face layout pairs i with
    i + D/2.
    """
    shape = values.shape
    pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)
