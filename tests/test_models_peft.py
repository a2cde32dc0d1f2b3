"""Every setting that PEFT can save: the same logits, or a refusal that names the setting."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ostinato.errors import ModelError
from ostinato.models import Llama, LlamaConfig, load_adapter, save_adapter
from ostinato.models.files.peft_config import PeftConfig
from ostinato.models.networks.lora import lora_layers

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns of its settings, not of ours

TINY = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=False,
    initializer_range=0.2,
)
TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(1))
QV = ["q_proj", "v_proj"]
LOADED: dict[str, dict[str, Any]] = {
    "plain": {},
    **{
        f"init {init}": {"init_lora_weights": init}
        for init in (True, False, "gaussian", "Gaussian", "orthogonal", "eva", "mica")
    },
    "rslora": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6}},
    "alpha_pattern": {"alpha_pattern": {"^model.layers.2.self_attn.v_proj": 3}},
    "both patterns and rslora": {
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"v_proj": 7},
        "use_rslora": True,
    },
    "one layer": {"layers_to_transform": 1},
    "some layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "lists that are not there": {"layers_to_transform": [0], "layers_pattern": ["h", "layers"]},
    "regex": {"target_modules": r".*\.(1|2)\..*(q|down)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "full names": {"target_modules": ["model.layers.0.mlp.up_proj", "layers.2.self_attn.o_proj"]},
    "excluded": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "excluded by regex": {"exclude_modules": r".*layers\.[01]\..*"},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "dropout": {"lora_dropout": 0.5},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        init: ({"init_lora_weights": init}, "init_lora_weights")
        for init in ("pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "lora_ga")
    },
    "loftq": ({"init_lora_weights": "loftq", "loftq_config": {"a": 1}}, "init_lora_weights"),
    "dora": ({"use_dora": True}, "use_dora"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "bias all": ({"bias": "all"}, "bias"),
    "bias lora_only": ({"bias": "lora_only"}, "bias"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "alora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "replication": ({"layer_replication": [(0, 2), (1, 3)]}, "layer_replication"),
    "parameters": ({"target_parameters": ["mlp.up_proj.weight"]}, "target_parameters"),
    "qalora": ({"use_qalora": True}, "use_qalora"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_file(Llama(TINY, seed=0).state_dict(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(TINY.to_dict()))
    return folder


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


@cache
def loaded_base(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base)


def fresh(base: Path) -> Any:
    return copy.deepcopy(loaded_base(base))


def saved(base: Path, folder: Path, config: Any) -> None:
    """Save an adapter of random weights as PEFT does."""
    model = peft.get_peft_model(fresh(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)


@torch.no_grad()
def theirs(base: Path, folder: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(fresh(base), folder).eval()
    logits: torch.Tensor = model(TOKENS).logits
    return logits


@torch.no_grad()
def ours(model: Llama) -> torch.Tensor:
    return model.logits(model.eval()(TOKENS))


@pytest.mark.parametrize("settings", LOADED.values(), ids=LOADED.keys())
def test_an_adapter_of_peft_has_the_same_logits_and_keeps_them_when_saved_again(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": QV, **settings})
    saved(base, tmp_path / "theirs", config)
    expected = theirs(base, tmp_path / "theirs")
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path / "theirs")
    assert not torch.allclose(ours(Llama(TINY, seed=0)), expected, atol=0.05)
    torch.testing.assert_close(ours(loaded), expected, rtol=1e-4, atol=1e-4)
    save_adapter(loaded, tmp_path / "ours", base=str(base))
    torch.testing.assert_close(theirs(base, tmp_path / "ours"), expected, rtol=1e-4, atol=1e-4)
    again = load_adapter(Llama(TINY, seed=0), tmp_path / "ours")
    assert torch.equal(ours(again), ours(loaded))


@pytest.mark.parametrize("key", ["target_modules", "layers_pattern", "rank_pattern"])
def test_a_wrong_pattern_is_refused_by_its_name(base: Path, tmp_path: Path, key: str) -> None:
    saved(base, tmp_path, peft.LoraConfig(r=4, target_modules=QV, layers_to_transform=[0]))
    path = tmp_path / "adapter_config.json"
    wrong = {"(": 4} if key == "rank_pattern" else "("
    path.write_text(json.dumps({**json.loads(path.read_text()), key: wrong}))
    with pytest.raises(ModelError, match=r"adapter_config\.json must be a pattern"):
        load_adapter(Llama(TINY, seed=0), tmp_path)


@pytest.mark.parametrize("missing", ["lora_alpha", "r"])
def test_a_setting_that_is_left_out_has_peft_s_default(
    base: Path, tmp_path: Path, missing: str
) -> None:
    settings = {"r": 4, "lora_alpha": 6, "target_modules": QV}
    if missing == "r":
        settings["r"] = 8  # the weights have the rank that the file does not name
    saved(base, tmp_path, peft.LoraConfig(**settings))
    path = tmp_path / "adapter_config.json"
    values = json.loads(path.read_text())
    del values[missing]
    path.write_text(json.dumps(values))
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path)
    torch.testing.assert_close(ours(loaded), theirs(base, tmp_path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("settings", "key"), REFUSED.values(), ids=REFUSED.keys())
def test_a_setting_that_computes_something_else_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], key: str
) -> None:
    peft.LoraConfig(**{"target_modules": QV, **settings}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{key} in .* must be .*peft"):
        load_adapter(Llama(TINY, seed=0), tmp_path)


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "AdaLoraConfig", "VeraConfig"])
def test_other_kinds_of_adapters_are_refused(tmp_path: Path, kind: str) -> None:
    extra = {"total_step": 9} if kind == "AdaLoraConfig" else {}
    getattr(peft, kind)(target_modules=QV, **extra).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"peft_type in .* must be 'LORA', got .*merge"):
        load_adapter(Llama(TINY, seed=0), tmp_path)


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["q_proj", "embed_tokens"]])
def test_updates_of_other_layers_are_refused(
    base: Path, tmp_path: Path, targets: list[str]
) -> None:
    saved(base, tmp_path, peft.LoraConfig(target_modules=targets))
    with pytest.raises(ModelError, match=r"got 'base_model\.model\..* too\..*merge_and_unload"):
        load_adapter(Llama(TINY, seed=0), tmp_path)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_init_that_changes_the_base_loads_once_peft_has_converted_it(
    base: Path, tmp_path: Path, init: str
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=QV, init_lora_weights=init)
    model = peft.get_peft_model(fresh(base), config)
    model.peft_config["default"].init_lora_weights = True  # as PEFT's own guide says
    model.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        expected = model.eval()(TOKENS).logits
    model.peft_config["default"].init_lora_weights = init
    model.save_pretrained(
        tmp_path / "last", path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path / "last")
    torch.testing.assert_close(ours(loaded), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "missing"), (r"(?:(?:.|..)+)+[0-9]", "timed out")]
)
def test_a_pattern_that_is_wrong_or_never_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, message: str
) -> None:
    monkeypatch.setattr("ostinato.models.files.peft_config.TIMEOUT", 0.05)
    values = {"peft_type": "LORA", "target_modules": pattern}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    config = PeftConfig.from_folder(tmp_path)
    with pytest.raises(ModelError, match=rf"target_modules in .* must be a pattern .*{message}"):
        config.is_target("model.layers.0.self_attn.q_proj_model.layers.0.self_attn.q_proj")


def test_layers_of_one_adapter_may_have_ranks_of_their_own(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=QV, rank_pattern={"q_proj": 2})
    saved(base, tmp_path, config)
    loaded = load_adapter(Llama(TINY, seed=0), tmp_path)
    ranks = {name[-6:]: layer.lora_A.out_features for name, layer in lora_layers(loaded)}
    assert ranks == {"q_proj": 2, "v_proj": 4}
