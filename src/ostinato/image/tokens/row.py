"""Codes as the tokens of a language model, so that `Decode` samples an image code after code.

The codes come first in the vocabulary, as " 0", " 1", …; the words after them, as "<seven>". The
folder of such a model has the ordinary Hugging Face layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from ostinato.decode import MASKED, Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.image.tokens.attributes import PROMPT_TOKENS, Attributes
from ostinato.image.tokens.prompt import ImagePrompt
from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer


def row_model(
    codes: int,
    positions: int,
    attributes: Attributes,
    *,
    layers: int,
    width: int,
    heads: int,
    seed: int = 0,
) -> LanguageModel:
    """Return an untrained model for images of `positions` codes, each one of `codes`."""
    vocabulary = {f"▁{code}": code for code in range(codes)}
    vocabulary |= {f"<{word}>": codes + n for n, word in enumerate(attributes.vocabulary)}
    # `WordLevel` raises for an unknown word unless it has a token for it.
    backend = Backend(models.WordLevel(vocabulary, unk_token="<any>"))
    # The space is part of the code's token, so a row of tokens is the text that `codes_of` splits.
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    config = LlamaConfig.from_scratch(
        vocab_size=len(vocabulary),
        width=width,
        layers=layers,
        heads=heads,
        context=PROMPT_TOKENS + positions,
    )
    return LanguageModel(
        Llama(config, seed=seed), Tokenizer(backend), config, Path(), "image-tokens"
    )


def decode_rows(
    model: LanguageModel, attributes: Attributes, *, sampling: SamplingParams, slots: int = 16
) -> Decode:
    """Return the lane process that samples code after code.

    An item is an `ImagePrompt` without codes.
    """
    first = model.config.vocab_size - len(attributes.vocabulary)  # the token of the first word
    no_words = {first + n: -math.inf for n in range(len(attributes.vocabulary))}

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        image_prompt = ImagePrompt.of(item)
        try:
            ids = attributes.encode(image_prompt.text)
        except InputError as error:
            raise ItemError(str(error)) from None
        if any(code != MASKED for code in image_prompt.codes):
            raise ItemError(
                "A row is sampled from its first code on and takes none. Force codes by an edit: "
                "{'force': [codes]}."
            )
        return TokenPrompt([first + i for i in ids])

    # Only codes may be sampled: a word among them could not be decoded to an image.
    biased = replace(sampling, logit_bias={**sampling.logit_bias, **no_words})
    positions = model.config.max_position_embeddings - PROMPT_TOKENS
    return Decode(model, prompt, sampling=biased, slots=slots, length=positions)
