"""The networks of `benchmarks/decode.py`: the same weights for ours and for the peers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer, load_model

SMALL = LlamaConfig(
    vocab_size=4096,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=8,
    num_attention_heads=6,
    num_key_value_heads=6,
    head_dim=64,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
SHAPED = {"small": SMALL, "135m": SMOLLM2}
Form = gguf.GGMLQuantizationType
LLAMA_FORMS = {"llama": Form.BF16, "llama_q8": Form.Q8_0, "llama_q4": Form.Q4_0}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def open_network(name: str, dtype: torch.dtype, device: torch.device) -> LanguageModel:
    """Return a model without an end token: an installed one, or a random one of a known shape.

    The shapes are `small` (15.7 M weights) and `135m` (smollm2's).
    """
    if name not in SHAPED:
        model = load_model(name, dtype=dtype, device=str(device))
        endless = Tokenizer(model.tokenizer.backend)
        return LanguageModel(model.network, endless, model.config, model.folder, name)
    config = SHAPED[name]
    network = Llama(config, seed=0).to(device, dtype).eval()
    return LanguageModel(network, _tokenizer(), config, Path(name), name)


def save_folder(model: LanguageModel, folder: Path) -> Path:
    """Write the network in the Hugging Face layout."""
    weights = {k: v.contiguous() for k, v in model.llama().state_dict().items()}
    if model.llama().config.tie_word_embeddings:
        weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in asdict(model.llama().config).items() if v not in (None, ())}
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_gguf(model: LanguageModel, path: Path, form: Form) -> Path:
    """Write the network as a GGUF file without a vocabulary: tokens go in and out as ids."""
    network, config = model.llama(), model.llama().config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    for name, weight in _named(network):
        kind = form if weight.dim() == 2 else Form.F32
        values = np.ascontiguousarray(weight.float().cpu().numpy())
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _named(network: Llama) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under llama.cpp's names.

    llama.cpp rotates neighboring elements of a head, Hugging Face the two halves: the rows of
    queries and keys are reordered.
    """
    heads = {
        "self_attn.q_proj": network.config.num_attention_heads,
        "self_attn.k_proj": network.config.num_key_value_heads,
    }
    yield "token_embd.weight", network.model.embed_tokens.weight.detach()
    yield "output_norm.weight", network.model.norm.weight.detach()
    if not network.config.tie_word_embeddings:
        yield "output.weight", network.lm_head.weight.detach()
    for number, block in enumerate(network.blocks()):
        for part, theirs in PARTS.items():
            weight = block.get_parameter(f"{part}.weight").detach()
            if part in heads:
                rows, columns = weight.shape
                halves = weight.view(heads[part], 2, rows // heads[part] // 2, columns)
                weight = halves.transpose(1, 2).reshape(rows, columns)
            yield f"blk.{number}.{theirs}.weight", weight


def _tokenizer() -> Tokenizer:
    """Return a vocabulary in which each token is two letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:64]
    words = [a + b for a in alphabet for b in alphabet]
    backend = Backend(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="!!"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)
