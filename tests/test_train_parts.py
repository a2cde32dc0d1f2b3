"""The parts of trainings, each by itself, and two of a kind in turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ostinato.errors import EditError, InputError, RunError
from ostinato.testing import check_process
from ostinato.train import (
    AdamW,
    Averages,
    BatchCursor,
    BatchSampler,
    BestWeights,
    CurrentWeights,
    Parts,
    Precision,
    Schedule,
    TextTask,
    Training,
    TrainingConfig,
    Updater,
    Validation,
    load_weights,
    trainable,
    using,
    windows,
)
from ostinato.train.older_state import as_parts


def layer(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def updater(network: nn.Module, **options: Any) -> Updater:
    return Updater(trainable(network), AdamW(), Schedule(lr=0.1), **options)


def with_gradients(network: nn.Module, value: float = 1.0) -> None:
    for p in network.parameters():
        p.grad = torch.full_like(p, value)


# The updater ------------------------------------------------------------------------------------


def test_gradients_are_scaled_to_the_largest_norm_and_then_forgotten() -> None:
    one, other = layer(), layer()
    clipped, scaled = updater(one, max_grad_norm=1.0), updater(other)
    with_gradients(one, 3.0)
    with_gradients(other, 1 / math.sqrt(8))  # 8 elements: the norm is 1
    report = clipped.step()
    scaled.step()
    assert report["grad/norm"] == pytest.approx(3 * math.sqrt(8))
    assert torch.allclose(one.weight, other.weight)
    assert all(p.grad is None for p in one.parameters())


def test_the_rate_follows_the_schedule_and_the_edits() -> None:
    network = layer()
    part = Updater(trainable(network), AdamW(), Schedule(lr=0.4, warmup_steps=2))
    part.change("lr", 0.2)
    part.change("lr_scale", 0.5)
    part.change("lr_scale", 0.5)
    rates = []
    for _ in range(3):
        with_gradients(network)
        rates.append(part.step()["lr"])
    assert rates == pytest.approx([0.025, 0.05, 0.05])
    for value in (-1, True, "fast", math.nan, math.inf, 10**400):
        with pytest.raises(EditError, match="must be a number of 0 or more"):
            part.change("lr", value)


def test_parameters_without_gradients_stay_as_they_are() -> None:
    network = layer()
    before = network.weight.detach().clone()
    assert updater(network).step() == {"lr": 0.1, "grad/norm": 0.0}
    assert torch.equal(network.weight, before)


def test_the_state_of_other_parameters_is_refused() -> None:
    one = updater(layer())
    with_gradients(one_network := layer())
    trained = updater(one_network)
    trained.step()
    state: Any = trained.state_dict()
    state["optimizer"] = {"other": state["optimizer"]["weight"]}
    with pytest.raises(InputError, match="other"):
        one.load_state_dict(state)


# Weights ----------------------------------------------------------------------------------------


def test_averages_follow_the_weights_as_the_formula_says() -> None:
    network = layer()
    averages = Averages(trainable(network), 0.9)
    expected = network.weight.detach().clone()
    for n in range(1, 4):
        with torch.no_grad():
            network.weight += 1
        averages.update()
        decay = min(0.9, (n + 1) / (n + 10))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    assert torch.allclose(averages.weights["weight"], expected)
    assert not Averages(trainable(network), 0.0).weights


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("min", [3, 1, math.nan, -math.inf, 2], 1),
        ("max", [3, math.nan, math.inf, 5, 4], 5),
    ],
)
def test_the_best_weights_are_kept(mode: Any, values: list[float], kept: float) -> None:
    network = layer()
    best = BestWeights(trainable(network), mode)
    assert not best
    for step, value in enumerate(values):
        with torch.no_grad():
            network.bias.fill_(value)
        best.offer(value, step)
    assert best.value == kept and best.step == values.index(kept)
    with using(trainable(network), best.weights):
        assert network.bias.tolist() == [kept, kept]
    assert network.bias.tolist() == [values[-1]] * 2


def test_weights_are_put_back_after_an_error() -> None:
    network = layer()
    before = network.weight.detach().clone()
    zeros = {name: torch.zeros_like(p) for name, p in trainable(network).items()}
    with pytest.raises(ZeroDivisionError), using(trainable(network), zeros):
        raise ZeroDivisionError
    assert torch.equal(network.weight, before)


def test_weights_of_another_network_are_refused_before_any_is_loaded() -> None:
    network = layer()
    before = network.bias.detach().clone()
    wrong: dict[str, Tensor] = {"bias": torch.zeros(2), "weight": torch.zeros(2, 4)}
    with pytest.raises(InputError, match=r"weight has the shape \(2, 4\) instead of \(2, 3\)"):
        load_weights(trainable(network), wrong)
    with pytest.raises(InputError, match=r"differ in \['weight'\]"):
        load_weights(trainable(network), {"bias": torch.zeros(2)})
    assert torch.equal(network.bias, before)


def test_a_validation_remembers_its_step_and_keeps_the_best() -> None:
    network = layer()
    losses = iter([{"loss": 2.0}, {"loss": 1.0}, {}])
    best = BestWeights(trainable(network))
    part = Validation(best, lambda: next(losses), every=5, measure="loss")
    assert [step for step in range(1, 16) if part.is_due(step)] == [5, 10, 15]
    for step in (5, 10, 15):
        part.run(step)
    assert (part.last, best.step, best.value) == (15, 10, 1.0)


# The place in the data --------------------------------------------------------------------------


def test_a_cursor_takes_every_batch_once_but_those_left_out() -> None:
    sampler = BatchSampler([1] * 12, 2, seed=0)
    cursor = BatchCursor(sampler, per_step=2)
    assert [batch.index for batch in cursor.take()] == [0, 1]
    cursor.change("skip_steps", [[3, 1]])  # the second of the steps to come
    cursor.change("skip", 1)
    taken = [[batch.index for batch in cursor.take()] for _ in range(2)]
    assert taken == [[3, 6], [7, 8]]
    assert cursor.epoch == 9 / 6
    with pytest.raises(EditError, match="of steps after 3"):
        cursor.change("skip_steps", [[3, 1]])


def test_only_whole_batches_are_skipped() -> None:
    cursor = BatchCursor(BatchSampler([1] * 4, 2, seed=0))
    cursor.change("skip", 2.0)  # from outside, as JSON
    with pytest.raises(EditError, match=r"skip must be a whole number of batches, got 1\.5"):
        cursor.change("skip", 1.5)
    assert cursor.index == 2


# Together ---------------------------------------------------------------------------------------


class Turns:
    """Two networks in turns: one is drawn to the other, which flees."""

    def __init__(self) -> None:
        self.hunter, self.prey = layer(1), layer(2)
        self.updaters = {
            "hunter": updater(self.hunter, max_grad_norm=0.5),
            "prey": Updater(trainable(self.prey), AdamW(), Schedule(lr=0.01, warmup_steps=4)),
        }
        self.averages = Averages(trainable(self.prey), 0.9)
        self.precision = Precision(self.hunter, self.prey, name="bfloat16")
        self._parts = Parts(
            "Turns",
            weights=CurrentWeights(trainable(self.hunter)),
            others=CurrentWeights(trainable(self.prey)),
            averages=self.averages,
            **self.updaters,
        )
        self.known_edits = self._parts.known_edits
        self.state_dict, self.load_state_dict = self._parts.state_dict, self._parts.load_state_dict
        self.change = self._parts.change

    def step(self) -> dict[str, float]:
        number = self.updaters["prey"].steps
        with self.precision.step_of(number):
            x = torch.rand(4, 3, generator=torch.Generator().manual_seed(number))
            report: dict[str, float] = {}
            for sign, (name, updater) in zip((1, -1), self.updaters.items(), strict=True):
                with self.precision.autocast():
                    distance = (self.hunter(x) - self.prey(x)).float().square().mean()
                (sign * distance).backward()
                report |= {f"{name}/{key}": value for key, value in updater.step().items()}
                for other in self.updaters.values():
                    other.clear()
            self.averages.update()
        return report | {"distance": float(distance.detach())}


def test_two_updaters_in_turns_are_a_process_that_resumes() -> None:
    check_process(Turns)


def test_an_edit_goes_to_every_part_that_knows_it_or_to_the_one_that_is_named() -> None:
    turns = Turns()
    assert set(turns.known_edits) == {
        *("lr", "lr_scale"),
        *(f"{part}/{name}" for part in turns.updaters for name in ("lr", "lr_scale")),
    }
    turns.change({"lr_scale": 0.5, "prey/lr": 0.02})
    turns.updaters["prey"].steps = 9
    for edits in ({"lr": 0.1, "prey/lr": 0.02}, {"prey/lr": 0.02, "lr": 0.1}):
        turns.change(edits)  # the order of the names is of no account
        assert turns.updaters["prey"].lr == pytest.approx(0.01)
    assert turns.updaters["hunter"].lr == pytest.approx(0.05)
    assert turns.updaters["prey"].lr == pytest.approx(0.01)
    with pytest.raises(EditError, match=r"Unknown edit 'pray/lr' of Turns.*prey/lr"):
        turns.change({"lr_scale": 0.5, "pray/lr": 0.02})
    assert turns.updaters["hunter"].lr_scale == 0.5  # nothing was changed


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("lr", lambda: Schedule(lr=0.0)),
        ("shape", lambda: Schedule(lr=1.0, shape=cast(Any, "cosine"))),
        ("warmup_steps", lambda: Schedule(lr=1.0, warmup_steps=-1)),
        ("steps", lambda: Schedule(lr=1.0, steps=0)),
        ("min_lr_ratio", lambda: Schedule(lr=1.0, min_lr_ratio=2.0)),
        ("max_grad_norm", lambda: updater(layer(), max_grad_norm=-1.0)),
        ("per_step", lambda: BatchCursor(BatchSampler([1], 1, 0), 0)),
        ("decay", lambda: Averages({}, 1.0)),
        ("mode", lambda: BestWeights({}, cast(Any, "least"))),
        ("every", lambda: Validation(BestWeights({}), dict, every=0)),
        ("name", lambda: Precision(layer(), name=cast(Any, "float16"))),
        ("networks", Precision),
    ],
)
def test_a_part_names_what_is_wrong_when_it_is_made(name: str, make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=f"^{name} must be "):
        make()


@pytest.mark.parametrize("part", [lambda p: Averages(p, 0.9), BestWeights])
def test_kept_weights_of_another_network_are_refused(part: Callable[[Any], Any]) -> None:
    other = part(trainable(nn.Linear(4, 2)))
    state = other.state_dict() | {"weights": {"bias": torch.ones(2), "weight": torch.ones(2, 4)}}
    with pytest.raises(InputError, match=r"\(2, 4\) instead of \(2, 3\)"):
        part(trainable(layer())).load_state_dict(state)


def test_the_state_of_other_parts_is_refused() -> None:
    state: Any = Turns().state_dict()
    del state["prey"]
    with pytest.raises(RunError, match="differs in prey"):
        Turns().load_state_dict(state)


def test_dropout_depends_on_the_number_of_the_step_alone() -> None:
    network = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5))
    precision = Precision(network, seed=3)
    outputs = []
    for before in (1, 7):
        torch.manual_seed(before)
        with precision.step_of(5):
            outputs.append(network(torch.ones(1, 4)))
    assert torch.equal(*outputs)


# States of older versions -----------------------------------------------------------------------


def test_a_state_that_was_saved_before_trainings_had_parts_is_loaded() -> None:
    def process() -> Training:
        torch.manual_seed(0)
        network = _tiny()
        train = windows([i * i % 11 for i in range(200)], 8)
        config = TrainingConfig(
            batch_tokens=24, ema_decay=0.9, valid_every=3, gradient_accumulation_steps=2
        )
        return Training(network, TextTask(train, train[:3]), config)

    first = process()
    first.change({"skip": 3, "lr_scale": 0.5})
    for _ in range(4):
        first.step()
    first.change({"skip_steps": [[6, 1]]})
    now: Any = first.state_dict()
    old = {
        "step": 4,
        "skipped": 3,
        "left_out": now["cursor"]["left_out"],
        "lr": None,
        "lr_scale": 0.5,
        "weights": now["weights"],
        "optimizer": now["updater"]["optimizer"],
        "ema": now["averages"]["weights"],
        "best": now["best"]["weights"],
        "best_loss": now["best"]["value"],
        "best_step": 3,
        "validated": 3,
    }
    second = process()
    second.load_state_dict(old)
    assert [first.step() for _ in range(3)] == [second.step() for _ in range(3)]
    oldest = {n: v for n, v in old.items() if n not in ("left_out", "best_step", "validated")}
    assert as_parts(oldest, 2)["validation"] == {"last": -1}


def _tiny() -> nn.Module:
    from ostinato.models import GRU, GRUConfig

    return GRU(GRUConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, eos_token_id=(0,)))
