"""A recurrent model behind the same loop: torch's numbers, lanes, rewinding, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from killable_loops import tiny_gru
from test_decode import ITEMS
from tiny import CORPUS

from ostinato.cli.main import cli
from ostinato.decode import Decode, DraftModel, SamplingParams, plain_prompt
from ostinato.errors import InputError, ModelError
from ostinato.inference import GRUBackend
from ostinato.loop import Lane
from ostinato.models import GRU, load_model
from ostinato.testing import check_lane_process


def decode(slots: int = 4, **settings: Any) -> Decode:
    model = tiny_gru()
    sampling = SamplingParams(temperature=1.0, top_k=20)
    prompt = plain_prompt(model.tokenizer.encode)
    return Decode(model, prompt, slots=slots, sampling=sampling, **settings)


def network() -> GRU:
    found = tiny_gru().network
    assert isinstance(found, GRU)
    return found


def test_decode_of_a_recurrent_model_conforms() -> None:
    check_lane_process(decode, ITEMS, steps=10, edits={"forbid": [5, 6], "temperature": 0.5})


def test_hidden_states_and_logits_are_those_of_torch() -> None:
    tokens = [(7 * n) % 300 + 3 for n in range(40)]
    inference = GRUBackend(network(), 3)
    inference.prefill(1, tokens[:30])
    hidden = inference.feed([(1, tokens[n], n) for n in range(30, 40)])
    with torch.no_grad():
        expected = network()(torch.tensor([tokens]))[0, 30:]
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            inference.logits(hidden), network().logits(expected), atol=1e-4, rtol=1e-4
        )
    assert (inference.counts.prompt, inference.counts.generated) == (30, 10)
    assert inference.logits(inference.feed([])).shape == (0, network().config.vocab_size)


def test_rewinding_reads_an_earlier_state() -> None:
    inference = GRUBackend(network(), 2)
    rows = [(0, n + 3, n) for n in range(20)]
    first = inference.feed(rows)
    inference.feed([(0, 99, 12), (0, 98, 13)])  # other tokens from 12 on
    assert torch.equal(inference.feed(rows[12:]), first[12:])
    inference.copy(0, 1, 15)
    assert torch.equal(inference.feed([(1, 18, 15)]), first[15:16])


def test_the_same_texts_as_a_plain_loop_over_torch() -> None:
    model = tiny_gru()
    process = Decode(model, plain_prompt(model.tokenizer.encode), slots=2)
    process.start(Lane("a"), ITEMS["long"])
    tokens = model.tokenizer.encode(str(ITEMS["long"]))
    for _ in range(8):
        with torch.no_grad():
            logits = network().logits(network()(torch.tensor([tokens])))[0, -1]
        tokens.append(int(logits.argmax()))
        assert process.step()["a"]["token"] == tokens[-1]


def test_it_drafts_for_another_and_is_drafted_for() -> None:
    plain, guessed = decode(), decode(proposer=DraftModel(tiny_gru(width=16, seed=2), 3))
    for one in (plain, guessed):
        for key, item in ITEMS.items():
            one.start(Lane(key, 7), item)
    for _ in range(12):
        assert plain.step() == guessed.step()


def test_what_cannot_be_computed_is_refused() -> None:
    inference = GRUBackend(network(), 1)
    with pytest.raises(InputError, match="at most 256 tokens"):
        inference.feed([(0, 5, 256)])
    with pytest.raises(InputError, match="slot must be from 0 to 0"):
        inference.feed([(1, 5, 0)])
    with pytest.raises(InputError, match="token must be from 0"):
        inference.feed([(0, 9999, 0)])
    with pytest.raises(InputError, match="position must be 0 or more, got -1"):
        inference.feed([(0, 5, -1)])
    with pytest.raises(InputError, match="one token per position, got two"):
        inference.feed([(0, 5, 3), (0, 6, 3)])
    with pytest.raises(InputError, match="slot must be from 0 to 0, got 1"):
        inference.copy(0, 1, 0)


def test_it_is_trained_saved_loaded_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(" ".join(CORPUS) * 12)
    words = "train text a.txt --out small --kind gru --layers 1 --width 16 --heads 2 --context 16"
    words += " --vocab-size 270 --batch-tokens 128 --warmup-steps 2 --steps 8 --valid-every 4"
    result = CliRunner().invoke(cli, [*words.split(), "--sample-every", "8"])
    assert result.exit_code == 0, result.output
    model = load_model("small")
    assert isinstance(model.network, GRU) and model.tokenizer.eos_ids == {0}
    command = ["generate", "We can", "--model", "small", "--max-new-tokens", "5", "--json"]
    row = json.loads(CliRunner().invoke(cli, command).stdout)
    assert len(row["tokens"]) <= 5
    config = Path("small/config.json")
    config.write_text(config.read_text().replace('"hidden_size": 16', '"hidden_size": 17'))
    with pytest.raises(ModelError, match="must hold the weights that config"):
        load_model("small")
