"""Writes a network as a folder in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from ostinato.models import GRU, Llama, MaskedBert, Tokenizer, save_masked, to_file


def save_model(folder: str | Path, network: Llama | GRU | MaskedBert, tokenizer: Tokenizer) -> Path:
    """Write `config.json`, `model.safetensors` and the tokenizer's files; return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, MaskedBert):
        save_masked(folder, network)
    elif isinstance(network, GRU):
        network.save(folder)
    else:
        _save_llama(folder, network, sorted(tokenizer.eos_ids))
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": network.config.max_position_embeddings,
        **tokenizer.specials,
    }
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    _write_json(folder / "tokenizer_config.json", settings)
    return folder


def _save_llama(folder: Path, network: Llama, ends: list[int]) -> None:
    weights = to_file(network.config, network.state_dict())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {name: v for name, v in network.config.to_dict().items() if v is not None}
    config |= {
        "torch_dtype": str(network.model.embed_tokens.weight.dtype).removeprefix("torch."),
        "eos_token_id": ends if len(ends) > 1 else (ends[0] if ends else None),
    }
    _write_json(folder / "config.json", config)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
