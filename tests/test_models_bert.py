"""BERT's layout: the numbers of `transformers`, its files, and sentence vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bert import save_tiny_bert, tiny_bert, word_pieces

from ostinato.errors import ModelError
from ostinato.models import BertConfig, Encoder, load_masked, save_masked
from ostinato.models.networks.bert import load_bert

TEXTS = ["A table for two, please.", "It's raining in San Jose", "No", "train " * 90]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_bert(tmp_path / "bert")


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=word_pieces().get_vocab_size(),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return transformers.BertForMaskedLM(config).eval()


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(5, 60, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(20) < torch.tensor([20, 7, 13])[:, None]
    return tokens, mask


@torch.no_grad()
def test_hidden_states_and_logits_are_those_of_transformers(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "their")
    tokens, mask = padded()
    hidden = load_bert(tmp_path / "their")(tokens, mask)
    expected = theirs.bert(tokens, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(hidden[mask], expected[mask], atol=2e-5, rtol=1e-4)
    logits = load_masked(tmp_path / "their")(tokens, mask)
    expected = theirs(tokens, attention_mask=mask.long()).logits
    torch.testing.assert_close(logits[mask], expected[mask], atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_an_encoder_without_heads_loads_by_its_shorter_names(theirs: Any, tmp_path: Path) -> None:
    theirs.bert.save_pretrained(tmp_path / "their")
    tokens, _ = padded()
    hidden = load_bert(tmp_path / "their")(tokens)
    expected = theirs.bert(tokens).last_hidden_state
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=1e-4)
    with pytest.raises(ModelError, match=r"must hold the weights .* MaskedBert"):
        load_masked(tmp_path / "their")


@torch.no_grad()
def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = tiny_bert(90)
    save_masked(tmp_path / "ours", network)
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    tokens, _ = padded()
    torch.testing.assert_close(network(tokens), theirs(tokens).logits, atol=5e-5, rtol=1e-4)


def test_old_names_of_norms_are_read(folder: Path) -> None:
    path = folder / "model.safetensors"
    before = load_masked(folder).state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in load_file(path).items()
    }
    save_file(old, path)
    after = load_masked(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama"}, "model_type must be 'bert', got 'llama'"),
        ({"hidden_act": "relu"}, "hidden_act must be 'gelu'"),
        ({"num_attention_heads": 5}, "hidden_size must be a multiple"),
    ],
)
def test_another_network_is_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ModelError, match=message):
        load_bert(folder)
    with pytest.raises(ModelError, match=r"config\.json must have 'vocab_size', got none"):
        BertConfig.from_dict({"hidden_size": 8})


def test_a_vector_is_the_normalized_mean_of_the_hidden_states(folder: Path) -> None:
    encoder = Encoder.load(folder)
    ids = encoder.tokens(TEXTS[0])
    assert ids[0] == 2 and ids[-1] == 3  # [CLS], [SEP]
    (vector,) = encoder.vectors(TEXTS[:1])
    with torch.no_grad():
        mean = load_bert(folder)(torch.tensor([ids]))[0].mean(0)
    torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)
    assert float(vector.norm()) == pytest.approx(1)
    assert encoder.similarity(TEXTS[0], TEXTS[0]) == pytest.approx(1)


def test_a_vector_has_the_same_bits_alone_and_in_a_batch(folder: Path) -> None:
    encoder = Encoder.load(folder)
    together, turned = encoder.vectors(TEXTS), encoder.vectors(TEXTS[::-1]).flip(0)
    alone = torch.cat([encoder.vectors([text]) for text in TEXTS])
    assert torch.equal(together, turned) and torch.equal(together, alone)


def test_a_long_text_is_cut_and_none_is_no_vector(folder: Path) -> None:
    encoder = Encoder.load(folder)
    assert len(encoder.tokens(TEXTS[3])) == encoder.longest == 64
    assert encoder.vectors([]).shape == (0, 32)


def test_what_a_text_spells_is_no_control_token(folder: Path) -> None:
    ids = Encoder.load(folder).tokens("[MASK] [SEP]")
    assert ids.count(3) == 1 and 4 not in ids


def test_a_missing_encoder_is_reported_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="Run: ostinato models get minilm"):
        Encoder.load("minilm")
    with pytest.raises(ModelError, match="must be 'minilm' or a folder"):
        Encoder.load(tmp_path / "nothing")
