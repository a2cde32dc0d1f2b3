"""Any causal model of `transformers` is loaded, written with and gone back in."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from ostinato.decode import Decode, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError
from ostinato.inference import TransformersBackend, open_backend
from ostinato.loop import Lanes, Loop, Policy, Steps
from ostinato.models import LanguageModel, TransformersNetwork, load_model
from ostinato.testing import check_lane_process

transformers = pytest.importorskip("transformers")

VOCAB = tiny_model().tokenizer.vocab_size
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 24, "init_std": 0.2}
GEMMA = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 16,
    "final_logit_softcapping": 5.0,
    "layer_types": ["sliding_attention", "full_attention"],
}
LONGROPE = {
    "num_key_value_heads": 2,
    "original_max_position_embeddings": 60,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 500.0,
        "factor": 128 / 60,
        "original_max_position_embeddings": 60,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    },
}
MAMBA = {"state_size": 4, "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "neox": ("GPTNeoX", SIZES),
    "opt": ("OPT", {**SIZES, **OPT}),
    "gemma2": ("Gemma2", {**SIZES, **GEMMA}),  # logits capped: no head's; windows
    "yarn": (
        "Qwen2",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 500.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "longrope": ("Phi3", {**SIZES, **LONGROPE}),
    "dynamic": (
        "Qwen2",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "max_position_embeddings": 60,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0},
        },
    ),
    "mamba": ("Mamba", MAMBA),  # a state that cannot be cropped
}
FULL = [case for case in CASES if case not in ("longrope", "dynamic")]  # 128 positions and more
TOKENS = [(7 * i + 3) % VOCAB for i in range(100)]


def build(case: str) -> Any:
    family, config = CASES[case]
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**config)
    ).eval()


@cache
def network(case: str) -> TransformersNetwork:
    return TransformersNetwork(build(case))


def write(case: str, folder: Path) -> Path:
    build(case).save_pretrained(folder)
    tiny_model().tokenizer.backend.save(str(folder / "tokenizer.json"))
    return folder


def language_model(case: str) -> LanguageModel:
    own = network(case)
    return LanguageModel(own, tiny_model().tokenizer, own.config, Path(), case)


@pytest.mark.parametrize("case", ["neox", "opt", "gemma2", "yarn"])
def test_a_folder_of_another_layout_goes_through_transformers(case: str, tmp_path: Path) -> None:
    model = load_model(write(case, tmp_path), dtype=torch.float32)
    assert isinstance(model.network, TransformersNetwork)
    tokens = torch.tensor([TOKENS])
    with torch.no_grad():
        found = model.network.logits(model.network(tokens))
        torch.testing.assert_close(found, build(case)(tokens).logits)
    assert model.config.max_position_embeddings == 128


@pytest.mark.parametrize("case", FULL)
def test_logits_over_the_cache_are_those_of_the_whole_sequence(case: str) -> None:
    inference = TransformersBackend(network(case), 2)
    inference.prefill(1, TOKENS[:70])
    inference.feed([(1, 5, p) for p in range(70, 76)])  # gone back from
    rows = [(1, TOKENS[p], p) for p in range(70, 100)]
    found = inference.logits(inference.feed(rows))
    with torch.no_grad():
        wanted = network(case).model(torch.tensor([TOKENS])).logits[0, 70:]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert network(case).cached == (case != "mamba")
    assert network(case).headed == (case != "gemma2")


@pytest.mark.parametrize("case", FULL)
def test_decode_conforms(case: str) -> None:
    model = language_model(case)
    items = {"short": "The", "long": "Your table is booked for two. " * 3, "other": "We can help"}

    def decode(slots: int) -> Decode:
        prompt = plain_prompt(model.tokenizer.encode)
        return Decode(model, prompt, slots=slots, sampling=SamplingParams(temperature=1.0))

    assert decode(2).deterministic
    check_lane_process(decode, items, steps=5, edits={"forbid": [5, 6]})


@pytest.mark.parametrize("case", ["neox", "opt"])
def test_a_kept_prefix_gives_the_same_bits(case: str) -> None:
    inference = TransformersBackend(network(case), 3)
    inference.prefill(0, TOKENS)
    inference.copy(0, 2, 64)
    inference.prefill(2, TOKENS[64:80], start=64)
    inference.copy(0, 1, 80)
    rows = inference.feed([(0, 9, 80), (1, 9, 80), (2, 9, 80)])
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("case", ["longrope", "dynamic"])
def test_scaling_that_depends_on_the_length_ends_at_the_unscaled_length(case: str) -> None:
    """Beyond it, a cache started below has other angles than the whole sequence."""
    inference = TransformersBackend(network(case), 1)
    assert inference.limit == 60
    inference.prefill(0, TOKENS[:59])
    found = inference.logits(inference.feed([(0, TOKENS[59], 59)]))
    with torch.no_grad():
        expected = build(case)(torch.tensor([TOKENS[:60]])).logits[0, -1:]
        longer = build(case)(torch.tensor([TOKENS[:61]])).logits[0, -2:-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(longer, expected, atol=1e-2)  # why it ends there
    message = rf"at most 60 tokens for this model, got 61\. Shorten it\. Its '{case}' position scal"
    with pytest.raises(InputError, match=message):
        inference.feed([(0, 1, 60)])
    with pytest.raises(InputError, match=message):
        inference.prefill(0, TOKENS[:61])
    assert inference.self_test().batch_invariant


def test_a_draft_may_fill_the_context_to_its_last_position() -> None:
    model = language_model("opt")
    endless = SamplingParams(logit_bias={2: -100.0})
    process = Decode(model, plain_prompt(model.tokenizer.encode), slots=1, sampling=endless)
    prompt = "Your table is booked for two. " * 10
    length = len(model.tokenizer.encode(prompt))
    assert 64 < length < 128
    lanes = Lanes(process, [("a", prompt)], Policy(each=Steps(128)))
    (row,) = [one.to_json() for step in Loop(lanes, until=Steps(999)) for one in step.results]
    assert "context of 128 tokens is full" in row["stopped"]["sentence"]  # type: ignore[index]


def test_bits_that_depend_on_earlier_computations_are_reported() -> None:
    """As in a mixture of experts, what follows in a prompt's chunk shows in what precedes it."""

    class Mixed(TransformersNetwork):
        def states(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
            mixed = super().states(tokens, cache)
            if cache is not None and tokens.size(1) > 1:
                cache.layers[0].values.mul_(1 + 1e-6 * float(tokens.float().mean()))
            return mixed

    test = TransformersBackend(Mixed(build("neox")), 4).self_test()
    assert not test.batch_invariant
    assert "gave other bits after a longer prompt than alone" in test.sentence


def test_what_is_not_causal_is_refused() -> None:
    config = transformers.BertConfig(**SIZES, is_decoder=False)
    with pytest.raises(ModelError, match="must be causal, got 'bert'"):
        TransformersNetwork(transformers.BertLMHeadModel(config))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Bert", r"got 'bert', an encoder, .* ostinato\.models\.Encoder computes"),
        ("MPNet", r"got 'mpnet', an encoder, which reads both ways\. Use a causal model\.$"),
        ("ViT", r"got 'vit', which has no head that writes"),
    ],
)
def test_what_does_not_write_is_refused_before_it_is_loaded(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    getattr(transformers, f"{kind}Config")().save_pretrained(tmp_path)
    tiny_model().tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.delattr(transformers.AutoModelForCausalLM, "from_pretrained")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)


def test_what_transformers_cannot_load_is_a_sentence(tmp_path: Path) -> None:
    folder = write("neox", tmp_path)
    path = folder / "model.safetensors"
    weights = load_file(path)
    lost = weights.pop("gpt_neox.final_layer_norm.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"must hold 'gpt_neox\.final_layer_norm\.weight'"):
        load_model(folder, dtype=torch.float32)
    path.unlink()
    torch.save({"gpt_neox.final_layer_norm.weight": lost}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"as safetensors, got pytorch_model\.bin\. Pickled"):
        load_model(folder, dtype=torch.float32)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="must hold a causal model that transformers loads"):
        load_model(folder, dtype=torch.float32)
    (folder / "config.json").write_text('{"model_type": "made-up"}')
    with pytest.raises(ModelError, match="must hold a causal model that transformers loads"):
        load_model(folder, dtype=torch.float32)


def test_training_and_adapters_want_a_network_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be one of gpt2, llama, .* got 'gpt_neox'"):
        language_model("neox").llama()
    with pytest.raises(ModelError, match="train it with transformers and peft"):
        load_model(write("neox", tmp_path), adapter="support", dtype=torch.float32)


def test_what_cannot_be_computed_is_refused() -> None:
    inference = open_backend(language_model("neox"), 2)
    with pytest.raises(InputError, match=r"slot must be from 0 to 1, got 2"):
        inference.feed([(2, 0, 0)])
    with pytest.raises(InputError, match=rf"token must be from 0 to {VOCAB - 1}"):
        inference.prefill(0, [0, VOCAB])
    with pytest.raises(InputError, match=r"start must be a multiple of the chunk \(64\), got 3"):
        inference.prefill(0, [1], start=3)
    with pytest.raises(InputError, match="position must be from 0 to 0, which the slot holds"):
        inference.feed([(0, 1, 7)])
    with pytest.raises(InputError, match=r"at most 128 tokens .* got 200"):
        inference.prefill(0, [1] * 200)
    assert inference.logits(inference.feed([])).shape == (0, VOCAB)
