"""A GGUF file loaded by llama.cpp into this process (extra `llama`); its weights stay quantized.

Knows no tokens: `LlamaCppBackend` computes them.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ostinato.errors import MissingExtra, ModelError

MAX_POSITIONS = 2048  # of a slot by default: llama.cpp allocates all slots at once


@dataclass(frozen=True, kw_only=True)
class LlamaCppConfig:
    """What the rest of the library needs to know of a llama.cpp network."""

    model_type: str
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int


class LlamaCppNetwork(nn.Module):
    """The weights of a GGUF file in llama.cpp. `room` limits the positions of a slot."""

    def __init__(self, path: Path, *, room: int = MAX_POSITIONS) -> None:
        """Load the file. Raises `ModelError` where llama.cpp cannot."""
        super().__init__()
        self.handle: Any = None
        self.library = library = _library()
        self.path = path
        parameters = library.llama_model_default_params()
        self.handle = library.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise ModelError(
                f"{path} must be a GGUF file that llama.cpp loads, got another. Set "
                "OSTINATO_LLAMA_LOG=1 to see its messages."
            )
        trained = int(library.llama_model_n_ctx_train(self.handle))
        self.config = LlamaCppConfig(
            model_type=_architecture(library, self.handle),
            vocab_size=int(
                library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.handle))
            ),
            hidden_size=int(library.llama_model_n_embd(self.handle)),
            max_position_embeddings=min(trained, room),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Refuse: llama.cpp keeps its state in slots, which a backend manages."""
        raise ModelError(
            f"the network of {self.path.name} must be called through a backend, got a call with "
            f"tokens of shape {tuple(tokens.shape)}. Use ostinato.inference.open_backend."
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Return `hidden`: a backend's `feed` returns logits (n, V) already."""
        return hidden

    def __del__(self) -> None:
        # Past `nn.Module.__getattr__`, which raises where the constructor failed early.
        handle, self.__dict__["handle"] = self.__dict__.get("handle"), None
        if handle:
            self.library.llama_model_free(handle)


def _architecture(library: Any, handle: Any) -> str:
    text = ctypes.create_string_buffer(128)
    library.llama_model_meta_val_str(handle, b"general.architecture", text, len(text))
    return text.value.decode("utf-8", "replace")


def _library() -> Any:
    """Return llama-cpp-python's binding, silent unless OSTINATO_LLAMA_LOG is set."""
    try:
        import llama_cpp
    except ImportError:
        raise MissingExtra("A GGUF file through llama.cpp", "llama") from None
    library = llama_cpp.llama_cpp
    if not os.environ.get("OSTINATO_LLAMA_LOG"):
        library.llama_log_set(_quiet(library), None)
    library.llama_backend_init()
    return library


@cache
def _quiet(library: Any) -> Any:
    """Return a log callback that does nothing; cached, as it must outlive the library's use."""
    return library.llama_log_callback(lambda level, text, data: None)
