"""What a text training is made of: files, tokenizer, network. Builds, does not run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from ostinato.errors import InputError
from ostinato.models import (
    GRU,
    MASK,
    BertConfig,
    GRUConfig,
    LanguageModel,
    Llama,
    LlamaConfig,
    MaskedBert,
    MaskedModel,
    Tokenizer,
    add_lora,
    compute_dtype,
    find_device,
    load_model,
)
from ostinato.text.config import TextTrainingConfig
from ostinato.train import Example, examples, read_text, split

END = "<|endoftext|>"


def fingerprint(settings: TextTrainingConfig) -> str:
    """Return a hash of the settings and of the files' contents."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (*settings.files, *settings.valid):
        digest.update(read_text(path).encode())
    rest = [settings.start, settings.lora_rank, settings.context, settings.layers, settings.width]
    rest += [settings.heads, settings.tokenizer, settings.vocab_size, settings.seed]
    rest += [] if settings.kind == "causal" else [settings.kind]
    rest += [] if settings.layout == "llama" else [settings.layout]
    rest += ["untied"] if settings.untied else []
    rest += ["zero_init"] if settings.zero_init else []
    rest += [] if settings.device == "cpu" else [f"device {settings.device}"]
    digest.update(json.dumps([*rest, len(settings.files)]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class TextTraining:
    """The parts of a text training; `left_out` names the rows of which nothing counts."""

    model: LanguageModel | MaskedModel
    train: Sequence[Example]
    valid: Sequence[Example]
    left_out: Sequence[str] = ()


def set_up(settings: TextTrainingConfig) -> TextTraining:
    """Read the files, and load or make the model. Raises `InputError` for what cannot work."""
    for path in (*settings.files, *settings.valid):
        read_text(path)  # everything is read before anything is loaded
    device = find_device(settings.device)
    model: LanguageModel | MaskedModel
    if settings.start is not None:
        # Small updates get lost in bfloat16 weights: what learns is float32, and only a frozen
        # base beside an adapter is in the type that is fast here.
        model = load_model(
            settings.start,
            dtype=compute_dtype(device) if settings.lora_rank else torch.float32,
            compile=False,
        )
        network = model.llama()
        if settings.lora_rank:
            add_lora(network, settings.lora_rank, 2.0 * settings.lora_rank, seed=settings.seed)
    else:
        model = _from_scratch(settings)
    end = min(model.tokenizer.eos_ids, default=None)
    context = settings.context
    if context > model.config.max_position_embeddings:
        raise InputError(
            f"context must be at most {model.config.max_position_embeddings} for "
            f"{settings.start}, got {context}. Give a smaller --context."
        )
    model.network.to(device)
    left_out: list[str] = []

    def read(files: Sequence[Path]) -> list[Example]:
        found = list(examples(files, model.tokenizer, context, end=end, left_out=left_out))
        if not found:
            raise InputError(
                f"{', '.join(path.name for path in files)} must hold something that counts within "
                f"{context} tokens, got nothing. Raise --context, or shorten the prompts."
            )
        return found

    train = read(settings.files)
    parts = (train, read(settings.valid)) if settings.valid else split(train)
    return TextTraining(model, *parts, left_out)


def _from_scratch(settings: TextTrainingConfig) -> LanguageModel | MaskedModel:
    texts = [read_text(path) for path in settings.files]
    tokenizer = Tokenizer(make_tokenizer(texts, settings.tokenizer, settings.vocab_size))
    end = tokenizer.id_of(END)
    assert end is not None
    if settings.kind == "masked":
        return _masked(tokenizer.backend, settings)
    tokenizer = Tokenizer(tokenizer.backend, eos_ids=[end], specials={"eos_token": END})
    if settings.kind == "gru":
        shape = GRUConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            eos_token_id=(end,),
        )
        network = GRU(shape, seed=settings.seed)
        return LanguageModel(network, tokenizer, shape, Path(), "scratch")
    config = LlamaConfig.from_dict(
        {
            "model_type": settings.layout,
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": settings.width,
            "head_dim": settings.width // settings.heads,
            "intermediate_size": -(-settings.width * 8 // 3 // 32) * 32,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.heads,
            "num_key_value_heads": settings.heads,
            "max_position_embeddings": max(settings.context, 64),
            "tie_word_embeddings": not settings.untied,
            "rope_theta": 10000.0,
            "eos_token_id": end,
        }
    )
    made = Llama(config, seed=settings.seed)
    if settings.zero_init:
        made.zero_init()
    return LanguageModel(made, tokenizer, config, Path(), "scratch")


def _masked(backend: Backend, settings: TextTrainingConfig) -> MaskedModel:
    """Make a masked language model, whose examples are one token longer than the context."""
    backend.add_special_tokens([MASK])
    tokenizer = Tokenizer(backend, specials={"mask_token": MASK})
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=-(-(settings.context + 1) // 32) * 32,
    )
    return MaskedModel(MaskedBert(config, seed=settings.seed), tokenizer, "scratch")


def make_tokenizer(texts: Sequence[str], kind: str, vocabulary: int) -> Backend:
    """Train a byte-level BPE tokenizer of at most `vocabulary` tokens, or one of characters."""
    if kind == "char":
        words = {c: i for i, c in enumerate([END, *sorted(set("".join(texts)))])}
        backend = Backend(models.BPE(vocab=words, merges=[], fuse_unk=False))
        backend.decoder = decoders.Fuse()
        backend.add_special_tokens([END])
        return backend
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + 1:
        raise InputError(
            f"vocabulary must be at least {len(alphabet) + 1} for a byte-level tokenizer, got "
            f"{vocabulary}. Raise --vocab-size, or take --tokenizer char."
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend
