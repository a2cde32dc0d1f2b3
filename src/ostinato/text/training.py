"""The parts of a text training: examples, tokenizer, network. Builds them, runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from ostinato.arguments import counted
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
    hash_parts,
    load_model,
)
from ostinato.text.config import TextTrainingConfig
from ostinato.train import Example, examples, read_corpus, split

END = "<|endoftext|>"
SHOWN = 200  # characters of a prompt before its sample


def data_hash(settings: TextTrainingConfig) -> str:
    """Return a hash of the files' contents and endings: a file is read by its ending."""
    parts = []
    for files in (settings.files, settings.valid):
        parts.append(counted(len(files), "files"))
        parts += [part for path in files for part in (path.suffix.lower(), read_corpus(path))]
    return hash_parts(parts)


@dataclass(frozen=True)
class TextTraining:
    """The parts of a text training; `left_out` names the rows without a counted token."""

    model: LanguageModel | MaskedModel
    train: Sequence[Example]
    valid: Sequence[Example]
    left_out: Sequence[str] = ()


def set_up(settings: TextTrainingConfig) -> TextTraining:
    """Read the files, and load or make the model. Raises `InputError` for bad input."""
    for path in (*settings.files, *settings.valid):
        read_corpus(path)  # a bad file is reported before a model is loaded
    device = find_device(settings.device)
    model = _from_scratch(settings) if settings.start is None else _load(settings.start, settings)
    context, longest = settings.context, model.config.max_position_embeddings
    if context > longest:
        name = settings.start or "this network"
        raise InputError(
            f"context must be at most {longest} for {name}, got {context}. "
            "Give a smaller --context."
        )
    model.network.to(device)
    end = min(model.tokenizer.eos_ids, default=None)
    left_out: list[str] = []

    def read(files: Sequence[Path]) -> list[Example]:
        found = list(examples(files, model.tokenizer, context, end=end, left_out=left_out))
        if not found:
            raise InputError(
                f"{', '.join(path.name for path in files)} must hold something that counts within "
                f"{counted(context, 'tokens')}, got nothing. Raise --context, or shorten the "
                "prompts."
            )
        return found

    train = read(settings.files)
    parts = (train, read(settings.valid)) if settings.valid else split(train)
    return TextTraining(model, *parts, left_out)


class SamplePrompt(NamedTuple):
    """What a sample begins with: tokens, and how they are shown before what follows."""

    tokens: Sequence[int]
    shown: str


def sample_prompt(parts: TextTraining, tokens: int) -> SamplePrompt:
    """Return what samples of `tokens` tokens during a training begin with.

    The prompt of a held-out example, in the chat form where it is a dialogue. A plain text has
    none: there it is a line break, if the texts have any, else a text's first token.
    """
    model = parts.model
    assert isinstance(model, LanguageModel)
    held_out, longest = parts.valid or parts.train, model.config.max_position_embeddings
    for example in held_out:
        start = example.loss_mask.index(True)
        if 1 < start < longest - tokens:
            prompt = example.tokens[:start]
            return SamplePrompt(prompt, f"{_last(model.tokenizer.decode(prompt).strip())} => ")
    new_line = model.tokenizer.encode("\n")
    known = new_line and any(set(new_line) <= set(example.tokens) for example in parts.train)
    if known:
        return SamplePrompt([*model.tokenizer.bos_ids, *new_line], "")
    first = held_out[0].tokens[:1]
    return SamplePrompt(first, model.tokenizer.decode(first))


def _last(text: str) -> str:
    return text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"


def _load(name: str, settings: TextTrainingConfig) -> LanguageModel:
    """Load the model to train, with a new adapter where `lora_rank` asks for one."""
    # Small updates are lost in bfloat16 weights. What learns is float32; only a frozen base beside
    # an adapter has the type that is fast on the device.
    device = find_device(settings.device)
    dtype = compute_dtype(device) if settings.lora_rank else torch.float32
    model = load_model(name, dtype=dtype, compile=False)
    if settings.lora_rank:
        # alpha is twice the rank, as in the defaults of `add_lora`.
        add_lora(model.llama(), settings.lora_rank, 2.0 * settings.lora_rank, seed=settings.seed)
    return model


def _from_scratch(settings: TextTrainingConfig) -> LanguageModel | MaskedModel:
    texts = [read_corpus(path) for path in settings.files]
    tokenizer = Tokenizer(make_tokenizer(texts, settings.tokenizer, settings.vocab_size))
    end = tokenizer.id_of(END)
    assert end is not None
    if settings.kind == "masked":
        return _masked(tokenizer.backend, settings)
    tokenizer = Tokenizer(tokenizer.backend, eos_ids=[end], specials={"eos_token": END})
    if settings.kind == "gru":
        gru_config = GRUConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            eos_token_id=(end,),
        )
        gru = GRU(gru_config, seed=settings.seed)
        return LanguageModel(gru, tokenizer, gru_config, Path(), "scratch")
    config = LlamaConfig.from_scratch(
        vocab_size=tokenizer.vocab_size,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        context=max(settings.context, 64),
        model_type=settings.layout,
        tied=not settings.untied,
        eos_token_id=end,
    )
    llama = Llama(config, seed=settings.seed)
    if settings.zero_init:
        llama.zero_init()
    return LanguageModel(llama, tokenizer, config, Path(), "scratch")


def _masked(backend: Backend, settings: TextTrainingConfig) -> MaskedModel:
    """Make a masked language model."""
    backend.add_special_tokens([MASK])
    tokenizer = Tokenizer(backend, specials={"mask_token": MASK})
    # A window has one token more than the context: a causal model needs it as the last target.
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,  # as in the paper (Devlin et al. 2019)
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=-(-(settings.context + 1) // 32) * 32,
    )
    return MaskedModel(MaskedBert(config, seed=settings.seed), tokenizer, "scratch")


def make_tokenizer(texts: Sequence[str], kind: str, vocab_size: int) -> Backend:
    """Train a byte-level BPE tokenizer of up to `vocab_size` tokens, or one of characters."""
    if kind == "char":
        vocab = {c: i for i, c in enumerate([END, *sorted(set("".join(texts)))])}
        backend = Backend(models.BPE(vocab=vocab, merges=[], fuse_unk=False))  # BPE, nothing merged
        backend.decoder = decoders.Fuse()
        backend.add_special_tokens([END])
        return backend
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + 1:
        raise InputError(
            f"vocab_size must be at least {len(alphabet) + 1} for a byte-level tokenizer, got "
            f"{vocab_size}. Raise --vocab-size, or use --tokenizer char."
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend
