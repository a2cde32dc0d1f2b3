"""A tiny random language model for tests: real layout, real tokenizer, no training."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer, load_model

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The reply to your message is here. We can help you with that today, at 11:30 am.",
    "Your table is booked for two. The phone number is 408-247-8880. Anything else?",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def tiny_model(vocabulary: int = 400, context: int = 256) -> LanguageModel:
    """Return the one tiny model: 2 layers, width 32, drawn from a seed."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIALS, initial_alphabet=alphabet
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = Tokenizer(backend, eos_ids=[2], chat_template=TEMPLATE)
    sizes = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }
    config = LlamaConfig.from_dict(sizes)
    network = Llama(config, seed=3)
    for parameter in network.parameters():
        parameter.data.mul_(4)  # sharper logits: a random network that prefers some tokens
    return LanguageModel(network, tokenizer, config, Path("tiny"), "tiny")


def compiled_tiny(form: str) -> LanguageModel:
    """Return the tiny model, compiled, in a number format: a dtype, bits, or a GGUF file's path."""
    if form.endswith(".gguf"):
        return load_model(form, compile=True)
    model = replace(tiny_model(), compile=True)
    if form.isdecimal():
        return replace(model, bits=int(form))
    return replace(model, network=deepcopy(model.llama()).to(getattr(torch, form)))


def save_tiny(folder: Path) -> Path:
    """Write the tiny model as a folder in the Hugging Face layout."""
    model = tiny_model()
    folder.mkdir(parents=True)
    weights = {k: v.contiguous() for k, v in model.network.state_dict().items()}
    weights.pop("lm_head.weight")  # tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in asdict(model.config).items() if v is not None}
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    model.tokenizer.backend.save(str(folder / "tokenizer.json"))
    names = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder
