"""The words and codes of an image as a language model's tokens, so that `Decode` draws it.

The codes come first in the vocabulary, as " 0", " 1", …; the words after them, as "<seven>". The
folder of such a model is an ordinary one in the Hugging Face layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from ostinato.decode import Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.image.tokens.attributes import PROMPT_TOKENS, Attributes
from ostinato.image.tokens.prompt import UNKNOWN, ImagePrompt
from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer


def row_model(
    codes: int,
    positions: int,
    words: Attributes,
    *,
    layers: int,
    width: int,
    heads: int,
    seed: int = 0,
) -> LanguageModel:
    """Return a model of drawn weights for images of `positions` codes, each one of `codes`."""
    vocabulary = {f"▁{code}": code for code in range(codes)}
    vocabulary |= {f"<{word}>": codes + n for n, word in enumerate(words.vocabulary)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="<any>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    config = LlamaConfig.from_scratch(
        vocab_size=len(vocabulary),
        width=width,
        layers=layers,
        heads=heads,
        context=PROMPT_TOKENS + positions,
    )
    return LanguageModel(Llama(config, seed=seed), Tokenizer(backend), config, Path(), "drawing")


def decode_rows(
    model: LanguageModel, words: Attributes, *, sampling: SamplingParams, slots: int = 16
) -> Decode:
    """Return the lane process that draws code after code; an item is a `ImagePrompt` of words."""

    first = model.config.vocab_size - len(words.vocabulary)
    no_words = {first + n: -math.inf for n in range(len(words.vocabulary))}

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        wish = ImagePrompt.of(item)
        try:
            ids = words.encode(wish.words)
        except InputError as error:
            raise ItemError(str(error)) from None
        if any(code != UNKNOWN for code in wish.codes):
            raise ItemError(
                "A row is drawn from its beginning and knows no codes. Force them by an edit: "
                "{'force': [codes]}."
            )
        return TokenPrompt([first + i for i in ids])

    biased = replace(sampling, logit_bias={**sampling.logit_bias, **no_words})
    return Decode(model, prompt, sampling=biased, slots=slots)
