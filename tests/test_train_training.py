"""Training conforms to the process protocol, and its parts do what their papers say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from ostinato.errors import EditError, InputError
from ostinato.journal import Journal, StopKind
from ostinato.loop import CheckpointSchedule, Epochs, Loop, NotFinite, Plateau, Steps
from ostinato.models import Llama, LlamaConfig, add_lora
from ostinato.testing import check_process
from ostinato.train import (
    AdamW,
    Batch,
    BatchSampler,
    Example,
    Muon,
    Schedule,
    TextTask,
    Training,
    TrainingConfig,
    conversation,
    go_back,
)
from ostinato.train.data import examples, split, windows
from ostinato.train.optimizers import orthogonal

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
TEXT = [(7 * i * i + 3 * i) % 50 for i in range(500)]


def training(
    lora: bool = False, kind: Any = Training, completion_only: bool = False, **config: Any
) -> Any:
    network = Llama(LlamaConfig.from_dict(SIZES), seed=1)
    if lora:
        add_lora(network, 2, 4.0, dropout=0.1)
    train, valid = split(windows(TEXT, 16), 0.2)
    values = {"steps": 40, "batch_tokens": 96, "warmup_steps": 3, "valid_every": 4, **config}
    sample = lambda network: "a sample"  # noqa: E731
    return kind(
        network,
        TextTask(train, valid, write=sample, completion_only=completion_only),
        TrainingConfig(**values),
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"optimizer": "muon", "weight_decay": 0.1},
        {"optimizer": "muon", "precision": "bfloat16"},
        {"ema_decay": 0.9, "gradient_accumulation_steps": 2},
        {"lora": True, "sample_every": 3},
    ],
    ids=["adamw", "muon", "bfloat16", "averaged", "adapter with dropout"],
)
def test_training_conforms_at_the_edges_of_epochs(config: dict[str, Any]) -> None:
    batches = training(**config).batches
    check_process(
        lambda: training(**config), steps=2 * batches + 2, cuts=(0, 1, batches, batches + 1)
    )


def test_the_loss_falls_and_the_best_weights_are_kept() -> None:
    process = training(optimizer="muon", lr=0.02)
    loop = Loop(process, until=Epochs(8) | NotFinite())
    losses = [step.report["loss/valid"] for step in loop if "loss/valid" in step.report]
    assert losses[-1] < losses[0]  # type: ignore[operator]
    assert process.best.value == min(losses)  # type: ignore[type-var]
    process.load_weights(process.best.weights)
    assert process.validate()["loss/valid"] == pytest.approx(process.best.value)
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET


def test_early_stopping_is_a_condition() -> None:
    loop = Loop(training(lr=1e-9), until=Plateau("loss/valid", patience=2, min_delta=0.1))
    assert loop.run().kind is StopKind.NO_PROGRESS
    assert loop.tick == 12


def test_a_loss_that_diverged_goes_back_with_half_the_rate() -> None:
    process = training(lr=1e-3)
    forward: Any = process.network.forward
    rates = []

    def fragile(tokens: torch.Tensor) -> Any:
        bad = process.updater.steps >= 6 and process.updater.lr_scale > 0.3
        return forward(tokens) * (math.nan if bad else 1.0)

    process.network.forward = fragile
    loop = Loop(
        process,
        until=Steps(14) | NotFinite(),
        on_stop=go_back(lr_scale=0.5),
        checkpoint=CheckpointSchedule(steps=5),
    )
    for step in loop:
        rates.append(step.report["lr"])
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert process.updater.lr_scale == 0.25
    assert loop.tick == 14 and loop.position == 10  # twice from step 7 back to step 5
    assert all(math.isfinite(float(p.detach().sum())) for p in process.parameters.values())


class Poisoned(Training):
    """A training that diverges at every step that sees one of the poisoned batches."""

    poison: Sequence[int] = ()

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.seen: list[int] = []

    def _backward(self, batches: Sequence[Batch]) -> tuple[float, dict[str, object]]:
        loss, metrics = super()._backward(batches)
        indices = [batch.index for batch in batches]
        self.seen += indices
        return (math.nan if set(self.poison) & set(indices) else loss), metrics


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("every", "lost"), [(5, 3 + 1), (7, 1 + 1)])
def test_going_back_leaves_out_the_batches_that_diverged_and_no_others(
    accumulate: int, every: int, lost: int, tmp_path: Path
) -> None:
    def loop(**where: Any) -> Loop:
        process = training(kind=Poisoned, gradient_accumulation_steps=accumulate)
        process.poison = (7 * accumulate, 8 * accumulate)  # of the 8th and the 9th step
        return Loop(
            process,
            until=Steps(18) | NotFinite(),
            on_stop=go_back(skip=1),
            checkpoint=CheckpointSchedule(steps=every),
            **where,
        )

    uncut = loop()
    reports = [step.report for step in uncut]
    assert uncut.stopped is not None and uncut.stopped.kind is StopKind.BUDGET
    assert uncut.position == 18 - lost
    kept = [index for index in range(40) if index // accumulate not in (7, 8)]
    process: Any = uncut.process
    last = (18 - lost - 7) * accumulate  # from step 8 on
    assert process.seen[-last:] == kept[7 * accumulate :][:last]
    assert process.state_dict()["cursor"]["left_out"] == []
    journal = Journal(tmp_path / "j.db")
    with loop(run="r", journal=journal) as cut:
        for step in cut:
            if step.tick == 12:
                break
    loop(run="r", journal=journal).run()
    recorded = [step.report for step in journal.get("r").steps()]
    assert len(recorded) == 18
    assert repr([dict(report) for report in recorded]) == repr([dict(r) for r in reports])


@pytest.mark.parametrize("pairs", [3, [[0, 1]], [[5, 0]], [[5, 1.5]], ["ab"]])
def test_steps_to_skip_are_pairs_of_steps_to_come(pairs: object) -> None:
    with pytest.raises(EditError, match="skip_steps must be pairs"):
        training().change({"skip_steps": pairs})


def test_edits_set_the_rate_and_skip_batches_and_others_are_refused() -> None:
    process = training(warmup_steps=0, schedule="constant", lr=0.5)
    process.change({"lr": 0.1, "skip": 3})
    report = process.step()
    assert report["lr"] == pytest.approx(0.1) and report["batch"] == 4
    with pytest.raises(
        EditError, match=r"Unknown edit 'lrr' of Training. Known: lr, lr_scale, skip, skip_steps"
    ):
        process.change({"lrr": 1})
    with pytest.raises(EditError, match="lr must be a number"):
        process.change({"lr": "high"})


def test_adamw_equals_torch_s() -> None:
    ours = torch.nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    theirs = torch.nn.Parameter(ours.detach().clone())
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    optimizer = AdamW(weight_decay=0.1)
    for step in range(1, 20):
        for p in (ours, theirs):
            p.grad = torch.sin(p.detach() * step)
        optimizer.step({"p": ours}, 0.01, step)
        reference.step()
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_muon_s_update_is_nearly_orthogonal_and_leaves_embeddings_to_adam() -> None:
    G = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonal(G))
    assert singular.min() > 0.6 and singular.max() < 1.3
    p = {n: torch.nn.Parameter(torch.ones(4, 4)) for n in ("model.embed_tokens.weight", "q.weight")}
    for value in p.values():
        value.grad = torch.eye(4)
    muon = Muon()
    muon.step(p, 0.1, 1)
    assert set(muon.state["q.weight"]) == {"moment"}
    assert set(muon.state["model.embed_tokens.weight"]) == {"m", "v"}


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(1, 99), st.integers(0, 5)
)
@settings(deadline=None)
def test_every_epoch_visits_every_example_once(lengths: list[int], budget: int, seed: int) -> None:
    sampler = BatchSampler(lengths, budget, seed)
    for epoch in (0, 1, 7):
        batches = sampler.epoch(epoch)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        first = epoch * sampler.batches
        assert [sampler.batch(first + k) for k in range(sampler.batches)] == [
            (epoch, batch) for batch in batches
        ]
    assert BatchSampler(lengths, budget, seed).epoch(7) == sampler.epoch(7)


def test_a_far_step_costs_no_more_than_a_near_one() -> None:
    sampler = BatchSampler([5] * 100, 20, 3)
    far = sampler.batch(10**9)
    assert far[0] == 10**9 // sampler.batches
    assert sampler.epoch.cache_info().misses == 2  # its own epoch and the first, none between


def test_only_the_assistant_s_turns_and_their_ends_count() -> None:
    tokenizer = tiny_model().tokenizer
    messages = [
        {"role": "user", "content": "Your phone number?"},
        {"role": "assistant", "content": "It is 408."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "We can help."},
    ]
    example = conversation(tokenizer, messages, 999)
    counted = [t for t, c in zip(example.tokens, example.loss_mask, strict=True) if c]
    end = min(tokenizer.eos_ids)
    assert counted.count(end) == 2 and counted[-1] == end
    assert tokenizer.decode(counted) == "It is 408.We can help."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "must hold text, got an empty file"),
        ("a.jsonl", '{"text": "x y z"}\n{"text": ', "line 2: it must be JSON"),
        ("a.jsonl", "[1]", "line 1: it must be a JSON object"),
        ("a.jsonl", '{"tekst": "x"}', "row 1, must hold 'text', 'messages'"),
        ("a.txt", "short", "context must be shorter than the text"),
        (None, "", r"must exist\. Check its name"),
    ],
)
def test_bad_input_is_reported_by_file_and_line(
    tmp_path: Any, name: str | None, text: str, message: str
) -> None:
    path = tmp_path / (name or "missing.txt")
    if name:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(examples([path], tiny_model().tokenizer, 64))


def test_prompts_do_not_count_and_completions_do(tmp_path: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "We can", "completion": " help you"}\n')
    tokenizer = tiny_model().tokenizer
    (example,) = examples([path], tokenizer, 64, end=2)
    counted = [t for t, c in zip(example.tokens, example.loss_mask, strict=True) if c]
    assert tokenizer.decode(counted) == " help you" and counted[-1] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0),
        ("steps", 0),
        ("ema_decay", 1),
        ("min_lr_ratio", 2),
        ("optimizer", "sgd"),
        ("schedule", "cosine"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=f"{name} must be"):
        TrainingConfig(**values)


def test_rates_rise_stay_and_fall_by_steps() -> None:
    wsd = Schedule(steps=100, warmup_steps=10, lr=1.0, shape="wsd")
    assert wsd.at(0) == pytest.approx(0.1) and wsd.at(50) == 1.0
    assert wsd.at(91) == pytest.approx(0.5) and wsd.at(100) == pytest.approx(0.0)
    linear = TrainingConfig(steps=100, warmup_steps=0, lr=1.0, min_lr_ratio=0.5).lr_schedule()
    assert linear.at(50) == pytest.approx(0.75)


def test_an_example_is_as_long_as_its_tokens() -> None:
    assert len(Example((1, 2, 3), (False, True, True))) == 3


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "muon", "lr": 0.02},
        {"lora": True, "lr": 0.05},
        {"lora": True, "lr": 0.05, "completion_only": True},
    ],
    ids=["all weights", "adapter", "answers only"],
)
def test_products_in_bfloat16_learn_about_the_same_in_float32_weights(more: Any) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        process = training(precision=precision, **more)
        losses[precision] = [process.step()["loss/train"] for _ in range(30)]
        assert all(p.dtype == torch.float32 for p in process.parameters.values())
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], abs=0.1)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0] - (0.05 if "lora" in more else 0.5)
    with pytest.raises(InputError, match="precision must be 'float32' or 'bfloat16'"):
        TrainingConfig(precision="half")  # type: ignore[arg-type]
