"""Preference pairs: what a job discards beside what it accepts, and learning from them."""

from __future__ import annotations

import json
import math
import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny import save_tiny, tiny_model

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.loop import Loop, Steps
from ostinato.models import Llama, add_lora
from ostinato.reward import Pair, PreferenceTask, read_pairs
from ostinato.train import Training, TrainingConfig

PAIRS = [Pair((5, 6, n), (7, 8, n), (9, 10)) for n in range(11, 15)]
TUNED = TrainingConfig(steps=20, batch_tokens=16, lr=0.02, warmup_steps=1, valid_every=10)


def network() -> Llama:
    made = deepcopy(tiny_model().llama())
    return add_lora(made, 2)


def test_what_is_preferred_gains_and_the_loss_starts_at_log_2() -> None:
    made = network()
    training = Training(made, PreferenceTask(made, PAIRS, PAIRS[:1]), TUNED)
    reports: list[Any] = [step.report for step in Loop(training, until=Steps(20))]
    assert reports[0]["loss/train"] == pytest.approx(math.log(2), abs=1e-5)
    assert reports[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert reports[-1]["loss/train"] < 0.4 and reports[-1]["accuracy"] == 1
    assert reports[-1]["loss/valid"] < 0.5 and reports[-1]["accuracy/valid"] == 1


def test_the_loss_is_that_of_the_paper_with_the_anchor_beside_it() -> None:
    made = network()
    task = PreferenceTask(made, PAIRS, beta=0.3, anchor=0.5)
    before = [
        logprobs(made, PAIRS[0].prompt, text) for text in (PAIRS[0].chosen, PAIRS[0].rejected)
    ]
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_B" in name:
                p.fill_(0.05)
    now = [logprobs(made, PAIRS[0].prompt, text) for text in (PAIRS[0].chosen, PAIRS[0].rejected)]
    margin = (now[0] - before[0]) - (now[1] - before[1])
    expected = math.log1p(math.exp(-0.3 * margin)) - 0.5 * now[0] / len(PAIRS[0].chosen)
    assert float(task.loss(made, [0], 0).total.detach()) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def logprobs(made: Llama, prompt: tuple[int, ...], text: tuple[int, ...]) -> float:
    tokens = torch.tensor([[*prompt, *text]])
    logp = made.logits(made(tokens))[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(logp[torch.arange(len(text)), torch.tensor(text)].sum())


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_are_texts_or_messages_and_an_unfinished_one_has_no_end(tmp_path: Path) -> None:
    tokenizer = tiny_model().tokenizer
    messages = [{"role": "user", "content": "Hello"}]
    said = [{"role": "assistant", "content": "yes"}]
    row = {"prompt": messages, "chosen": said, "rejected": "no", "unfinished": True}
    path = lines(tmp_path / "p.jsonl", row, {"prompt": "Hello", "chosen": "a", "rejected": "b"})
    one, other = read_pairs(path, tokenizer)
    assert list(one.prompt) == tokenizer.chat(messages)
    assert list(other.prompt) == tokenizer.prompt("Hello")
    ends = [text[-1] in tokenizer.eos_ids for pair in (one, other) for text in pair.group.texts]
    assert ends == [True, False, True, True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "chosen": 3, "rejected": "b"},
            "line 1: 'chosen' must be a text, or a list",
        ),
        ({"chosen": "a", "rejected": "b"}, "line 1: 'prompt' must be a text or chat messages"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "line 1: .* must be two texts"),
    ],
)
def test_a_wrong_pair_is_named_by_its_line(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs(lines(tmp_path / "p.jsonl", row), tiny_model().tokenizer)


JOB = """
input = "messages.jsonl"
output = "out.jsonl"
id = "id"
model = "smollm2"
compile = false

[prompt]
template = "{message}"

[[check]]
kind = "length"
max = 8

[[check]]
kind = "excludes"
texts = ["e", "7"]
whole = false

[strategy]
kind = "STRATEGY"

[sampling]
temperature = 1.0
max_new_tokens = 12
"""


@pytest.mark.parametrize("strategy", ["backtrack", "resample"])
def test_what_a_job_discards_is_data_to_learn_from(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    save_tiny(tmp_path / "cache" / "models" / "smollm2")
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(JOB.replace("STRATEGY", strategy))
    lines(
        Path("messages.jsonl"),
        *({"id": str(n), "message": f"Can you help with {n}?"} for n in range(8)),
    )
    run = CliRunner().invoke
    run(cli, shlex.split("refine job.toml --run first"))
    result = run(cli, shlex.split("runs pairs first pairs.jsonl"))
    assert result.exit_code == 0, result.exception
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    assert len(rows) >= 2 and f"Wrote {len(rows)} pairs" in result.output
    accepted = {
        row["id"]: row["reply"]
        for row in map(json.loads, Path("out.jsonl").read_text().splitlines())
        if row["accepted"]
    }
    for row in rows:
        assert row["chosen"][0]["content"] == accepted[row["id"]]
        assert row["rejected"][0]["content"] != row["chosen"][0]["content"]
        assert row["unfinished"] is (strategy == "backtrack") or row["checks"]
    tuned = run(
        cli,
        shlex.split(
            "train preferences pairs.jsonl --from smollm2 --lora-rank 2 --steps 2 --out tuned"
        ),
    )
    assert tuned.exit_code == 0, (tuned.output, tuned.exception)
    assert Path("tuned/adapter_model.safetensors").exists() and "valid" in tuned.output
    wrong = run(cli, shlex.split("runs pairs train-tuned pairs.jsonl"))
    assert wrong.exit_code != 0 and "kind" in str(wrong.exception) + wrong.output
