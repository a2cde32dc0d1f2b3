"""The memory of mapped weights is given back, and no weight changes by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_models_gguf_families import network as gguf_network
from tiny import save_tiny
from tiny_gguf import Form, write_gguf

from ostinato.errors import InputError
from ostinato.models import (
    Llama,
    QuantizedEmbedding,
    add_lora,
    load_adapter,
    load_model,
    merge,
    save_adapter,
)
from ostinato.models.files.mapped import release_pages
from ostinato.train import Example, TextTask, Training

TASK = [Example((1, 5, 6, 2), (True,) * 4)]


def loaded(folder: Path) -> Llama:
    return load_model(save_tiny(folder), compile=False).llama()


def weights(network: Llama) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def check_equal(network: Llama, before: dict[str, torch.Tensor]) -> None:
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name]), name


def addresses(network: Llama) -> set[int]:
    return {weight.data_ptr() for weight in network.parameters()}


def test_weights_that_the_file_has_get_another_place_and_keep_their_values(tmp_path: Path) -> None:
    network = load_model(save_tiny(tmp_path / "tiny"), dtype=torch.float32).llama()
    before, places = weights(network), addresses(network)
    release_pages(network)
    check_equal(network, before)
    assert not places & addresses(network)
    release_pages(network)  # again, from where they are now
    check_equal(network, before)
    assert network.lm_head.weight is network.model.embed_tokens.weight  # still tied


def test_changed_weights_stay_where_they_are(tmp_path: Path) -> None:
    network = load_model(save_tiny(tmp_path / "tiny"), dtype=torch.float32).llama()
    changed = next(network.blocks()).self_attn.q_proj.weight
    changed.data[0, 0] += 1.0  # which PyTorch does not count
    before, place = weights(network), changed.data_ptr()
    release_pages(network)
    check_equal(network, before)
    assert changed.data_ptr() == place


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    network = load_model(folder, dtype=torch.float32).llama()
    before = weights(network)
    (folder / "model.safetensors").unlink()
    release_pages(network)
    check_equal(network, before)


def test_a_network_can_be_trained_after_it(tmp_path: Path) -> None:
    network = load_model(save_tiny(tmp_path / "tiny"), dtype=torch.float32).llama()
    with torch.inference_mode():
        release_pages(network)
    assert not any(weight.is_inference() for weight in network.parameters())
    Training(network, TextTask(TASK)).step()


def test_changed_blocks_of_a_gguf_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, gguf_network("llama"), Form.Q8_0)
    network = load_model(path).llama()
    before = weights(network)
    release_pages(network)
    check_equal(network, before)
    embedding = network.model.embed_tokens
    assert isinstance(embedding, QuantizedEmbedding)
    blocks = embedding.matrix.blocks
    blocks[3, 2] = 7
    release_pages(network)
    assert blocks[3, 2] == 7


def adapted(folder: Path) -> tuple[Path, Path]:
    """Save a model and an adapter that changes it."""
    base = save_tiny(folder / "tiny")
    tuned = add_lora(load_model(base, dtype=torch.float32).llama(), 4)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(5))
    save_adapter(tuned, folder / "adapter", base=str(base))
    return base, folder / "adapter"


def test_an_adapter_is_added_when_a_weight_is_used_and_gives_the_same_weights(
    tmp_path: Path,
) -> None:
    base, adapter = adapted(tmp_path)
    mapped = load_model(base, adapter=adapter).llama()
    merged = merge(load_adapter(load_model(base).llama(), adapter))
    check_equal(mapped, weights(merged))
    assert sum(p.numel() for p in mapped.parameters()) < sum(p.numel() for p in merged.parameters())
    release_pages(mapped)
    check_equal(mapped, weights(merged))


def test_a_network_with_a_mapped_adapter_can_be_adapted_but_not_trained(tmp_path: Path) -> None:
    base, adapter = adapted(tmp_path)
    network = load_model(base, adapter=adapter).llama()
    with pytest.raises(InputError, match=r"got some that stay in a file\. Load it with dtype"):
        Training(network, TextTask(TASK))
    before = weights(network)
    merge(add_lora(network, 2))  # starts at 0
    check_equal(network, before)
    assert not any("lora" in name for name, _ in network.named_buffers())
