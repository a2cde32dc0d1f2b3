"""Adapters: the same as PEFT's in file and in result, with the gradients of the plain formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ostinato.errors import InputError, ModelError
from ostinato.models import (
    Llama,
    LlamaConfig,
    add_lora,
    load_adapter,
    merge,
    merged_once,
    save_adapter,
)
from ostinato.models.networks.lora import lora_layers

TINY = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
    initializer_range=0.2,
)
TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(1))


def stirred(model: Llama) -> Llama:
    """Give every B a value, so that the adapter does something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.lora_B.weight.normal_(0, 0.1, generator=generator)
    return model


def logits(model: Llama) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(TOKENS))


def test_a_new_adapter_changes_nothing_and_is_all_that_trains() -> None:
    model = Llama(TINY, seed=0)
    before = logits(model)
    add_lora(model, rank=4, alpha=8, seed=1)
    assert torch.equal(before, logits(model))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert {k for k in model.state_dict() if "lora" not in k} == set(Llama(TINY).state_dict())


def test_the_seed_decides_the_first_weights() -> None:
    a, b, c = (add_lora(Llama(TINY, seed=0), rank=4, seed=s) for s in (1, 1, 2))
    name = "model.layers.1.mlp.up_proj.lora_A.weight"
    assert torch.equal(a.state_dict()[name], b.state_dict()[name])
    assert not torch.equal(a.state_dict()[name], c.state_dict()[name])


def test_gradients_are_those_of_the_plain_formula() -> None:
    model = stirred(add_lora(Llama(TINY, seed=0), rank=4, alpha=8))
    layer = dict(lora_layers(model))["model.layers.0.mlp.up_proj"]
    W, A, B = layer.weight, layer.lora_A.weight, layer.lora_B.weight
    results = []
    for plain in (False, True):
        x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(2), requires_grad=True)
        y = F.linear(x, W) + 2.0 * F.linear(F.linear(x, A), B) if plain else layer(x)
        grads = torch.autograd.grad(y.pow(3).sum(), [x, A, B])
        results.append([y, *grads])
    for ours, formula in zip(*results, strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_bfloat16_weights_learns_in_float32() -> None:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        model = stirred(add_lora(Llama(TINY, seed=0).to(dtype), rank=4, alpha=8))
        learned = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in learned} == {torch.float32}
        loss = model.logits(model(TOKENS)).float().pow(2).mean()
        grads = torch.autograd.grad(loss, learned)
        results.append(torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(results[1].norm(), results[0].norm(), rtol=0.05, atol=0.0)
    assert float(torch.cosine_similarity(results[0], results[1], dim=0)) > 0.99


def test_merging_gives_the_same_logits_and_plain_keys() -> None:
    model = stirred(add_lora(Llama(TINY, seed=0), rank=4))
    before = logits(model)
    merge(model)
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == set(Llama(TINY).state_dict())


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj", "k_proj")])
def test_saving_and_loading_gives_the_same_adapter(tmp_path: Path, targets: list[str]) -> None:
    model = stirred(add_lora(Llama(TINY, seed=0), rank=4, targets=targets))
    save_adapter(model, tmp_path, base="tiny")
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = stirred(add_lora(Llama(TINY, seed=0), rank=8))
    sizes = []
    for dtype in (torch.float32, torch.float16):
        save_adapter(model, tmp_path, base="tiny", dtype=dtype)
        sizes.append((tmp_path / "adapter_model.safetensors").stat().st_size)
    assert sizes[1] < 0.7 * sizes[0]
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=2e-2, atol=2e-2)


def saved_for_transformers(folder: Path) -> Llama:
    from safetensors.torch import save_file

    model = Llama(TINY, seed=0)
    folder.mkdir()
    weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(TINY.to_dict()))
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft and transformers disagree
def test_peft_loads_what_we_save(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = stirred(add_lora(saved_for_transformers(tmp_path / "base"), rank=4, alpha=12))
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft and transformers disagree
def test_we_load_what_peft_saves(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    ours = saved_for_transformers(tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    theirs = peft.get_peft_model(base, config)
    theirs.save_pretrained(tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter")
    theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(ours), rtol=1e-4, atol=1e-4)


def test_the_adapter_of_another_network_is_refused(tmp_path: Path) -> None:
    save_adapter(add_lora(Llama(TINY, seed=0), rank=4), tmp_path, base="tiny")
    wider = LlamaConfig(**{**TINY.__dict__, "intermediate_size": 64})
    with pytest.raises(ModelError, match=r"must have the shape .* Use the adapter of this model"):
        load_adapter(Llama(wider, seed=0), tmp_path)


def test_a_missing_adapter_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json must exist"):
        load_adapter(Llama(TINY, seed=0), tmp_path)


def test_what_cannot_be_added_is_refused() -> None:
    model = Llama(TINY, seed=0)
    with pytest.raises(InputError, match="rank must be at least 1, got 0"):
        add_lora(model, rank=0)
    with pytest.raises(InputError, match=r"targets must be some of q_proj.*got \['query'\]"):
        add_lora(model, targets=["query"])
    add_lora(model, rank=2)
    with pytest.raises(InputError, match="no adapter yet"):
        add_lora(model, rank=2)


def test_weights_that_are_merged_once_give_the_same_bits_until_the_block_ends() -> None:
    model = stirred(add_lora(Llama(TINY, seed=0), 2))
    before = model(TOKENS)
    with merged_once(model):
        inside = model(TOKENS)
        inside.sum().backward()
    assert inside.equal(before)
    assert all(layer.lora_A.weight.grad is not None for _, layer in lora_layers(model))
    with torch.no_grad():
        next(lora_layers(model))[1].lora_B.weight.add_(1)
    assert not model(TOKENS).equal(before)
