"""The recipe of the shipped adapter: chats with records, and measures that count right."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import tiny_model

from ostinato.errors import InputError
from ostinato.models import LanguageModel, load_adapter
from ostinato.models.networks.lora import lora_layers
from ostinato.train import TrainingConfig
from recipes import measures, sgd, support

SINO: dict[str, str] = {"restaurant_name": "Sino", "phone_number": "408-247-8880", "time": "11:30"}
DIALOGUE: dict[str, Any] = {
    "id": "1_00000",
    "services": ["Restaurants_2"],
    "turns": [
        ["user", "A table at half past 11, please."],
        ["assistant", "In which city?", {}],
        ["user", "San Jose."],
        ["assistant", "Sino is free at 11:30 am.", SINO],
        ["user", "Their number?"],
        ["assistant", "It is 408-247-8880.", {**SINO, "request": "done", "time": "12:00"}],
    ],
}


def test_a_record_is_shown_when_it_changed_and_only_what_changed() -> None:
    messages = sgd.dialogue_messages(DIALOGUE)
    records = [m["content"] for m in messages[1:] if m["role"] == "system"]
    assert records == [
        "Record:\nrestaurant name: Sino\nphone number: 408-247-8880\ntime: 11:30",
        "Record:\ntime: 12:00\nrequest: done",
    ]
    talk = [(m["role"], m["content"]) for m in messages if m["role"] != "system"]
    assert talk == [(role, text) for role, text, *_ in DIALOGUE["turns"]]


def test_messages_up_to_a_turn_are_the_beginning_of_all_messages() -> None:
    whole = sgd.dialogue_messages(DIALOGUE)
    for upto in (1, 3, 5):
        part = sgd.dialogue_messages(DIALOGUE, upto=upto)
        assert part == whole[: len(part)]
        assert whole[len(part)] == {"role": "assistant", "content": DIALOGUE["turns"][upto][1]}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl must exist"):
        list(sgd.read_dialogues(tmp_path / "dev.jsonl"))


def test_bits_per_character_is_the_loss_of_every_turn_given_what_came_before() -> None:
    model = tiny_model(context=1024)
    tokenizer, nats, characters = model.tokenizer, 0.0, 0
    end = tokenizer.id_of("<|im_end|>")
    for place, (role, text, *_) in enumerate(DIALOGUE["turns"]):
        if role == "user":
            continue
        prompt = tokenizer.chat(sgd.dialogue_messages(DIALOGUE, upto=place))
        reply = [*tokenizer.encode(text), end]
        with torch.no_grad():
            hidden = model.network(torch.tensor([prompt + reply]))
            logprobs = model.llama().logits(hidden)[0].log_softmax(-1)
        nats -= sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(reply))
        characters += len(text)
    expected = nats / torch.log(torch.tensor(2.0)).item() / characters
    assert measures.bits_per_character(model, [DIALOGUE]) == pytest.approx(expected, rel=1e-4)


def test_a_check_of_confidence_costs_what_unsure_tokens_carry() -> None:
    model = tiny_model(context=1024)
    rate = partial(measures.costs_of_confidence, model, [DIALOGUE])
    assert rate(-3.5, [1.0]) == pytest.approx([1])  # nothing is taken
    assert rate(1.0, [0.5]) == pytest.approx([1])  # all are unsure: all lose the same
    logits, targets = measures._predicted(model, DIALOGUE)
    # Of one token that a person said, and that alone is less likely than the bound:
    logprobs = logits.log_softmax(-1)
    said = logprobs[torch.arange(len(targets)), targets]
    least = float(said.min()) + 1e-4
    moved = logits.clone()
    moved[logprobs < least] += math.log(0.25)
    expected = F.cross_entropy(moved, targets, reduction="sum") / -said.sum()
    assert rate(least, [1.0, 0.25]) == pytest.approx([1, float(expected)], rel=1e-4)


def test_values_said_and_made_up_are_counted() -> None:
    messages = sgd.dialogue_messages(DIALOGUE, upto=5)
    turn = measures.Turn(
        messages=messages, record=DIALOGUE["turns"][5][2], reference="It is 408-247-8880, at noon."
    )
    right = measures.score_replies([turn], ["Their number is 408-247-8880, at 12:00."])
    assert (right.values, right.said, right.made_up) == (2, 2, 0)
    wrong = measures.score_replies([turn], ["Their number is 408-555-1234."])
    assert (wrong.said, wrong.claims, wrong.made_up) == (0, 1, 1)


def test_the_sample_is_the_same_for_the_same_seed() -> None:
    many = [{**DIALOGUE, "id": str(i)} for i in range(9)]
    assert measures.sample_turns(many, 5) == measures.sample_turns(many, 5)


def test_evaluation_gives_all_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev.jsonl").write_text(json.dumps(DIALOGUE) + "\n", encoding="utf-8")
    monkeypatch.setattr(support, "load_model", lambda *_, **__: tiny_model(context=1024))
    monkeypatch.setattr(measures, "LONGEST_REPLY", 3)
    replies = tmp_path / "replies.jsonl"
    result = support.evaluate(tmp_path, None, 1, 1, replies)
    assert result["bits_per_character"] > 0 and result["turns"] == 1
    assert json.loads(replies.read_text())["reference"]


def fresh_model() -> LanguageModel:
    model = tiny_model(context=1024)
    return replace(model, network=copy.deepcopy(model.network))


def test_training_writes_an_adapter_that_loads_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(f"{json.dumps(DIALOGUE)}\n" * 3, encoding="utf-8")
    monkeypatch.setattr(support, "load_model", lambda *_, **__: fresh_model())
    out = tmp_path / "out"
    config = TrainingConfig(steps=4, batch_tokens=1400, lr=2e-3)
    support.train(tmp_path, out, config)
    model = fresh_model()
    load_adapter(model.llama(), out)
    assert any(layer.lora_B.weight.any() for _, layer in lora_layers(model.network))
    written = (out / "adapter_model.safetensors").read_bytes()
    support.train(tmp_path, out, config)
    assert (out / "adapter_model.safetensors").read_bytes() == written

    on = tmp_path / "on"  # tuned on, from the first, with dialogues that it has not seen
    config = replace(config, warmup_steps=0)
    support.train(tmp_path, on, config, start=str(out), skip=1, answers=True)
    assert (on / "adapter_model.safetensors").read_bytes() != written


def test_the_mean_of_two_adapters_is_that_of_their_weights(tmp_path: Path) -> None:
    names = {"q.lora_A.weight": (2, 3), "q.lora_B.weight": (3, 2)}
    for folder, value in (("a", 1.0), ("b", 2.0), ("other", 1.0)):
        (tmp_path / folder).mkdir()
        held = {name: torch.full(size, value) for name, size in names.items()}
        save_file(held, tmp_path / folder / support.WEIGHTS)
        (tmp_path / folder / support.CONFIG_FILE).write_text("{}")
    support.average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / support.WEIGHTS)
    assert mean.keys() == names.keys() and all((one == 1.5).all() for one in mean.values())
    assert (tmp_path / "mean" / support.CONFIG_FILE).read_text() == "{}"
    save_file({"q.lora_A.weight": torch.ones(4, 3)}, tmp_path / "other" / support.WEIGHTS)
    with pytest.raises(InputError, match="other must hold weights of the same names and shapes"):
        support.average([tmp_path / "a", tmp_path / "other"], tmp_path / "no")
