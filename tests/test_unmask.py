"""Unmask: gaps are filled by the schedule, the same alone and in company, killed or not."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tiny import CORPUS
from tiny_bert import save_tiny_bert, tiny_bert, word_pieces

from ostinato.cli.main import cli
from ostinato.decode.maskgit import draw_each, most_confident, to_keep
from ostinato.errors import EditError, InputError, ItemError, ModelError
from ostinato.journal import Journal
from ostinato.loop import Lane, Lanes, Loop, Policy, Steps, Text, Timeline
from ostinato.models import MaskedModel, Tokenizer, load_masked_model
from ostinato.testing import check_lane_process
from ostinato.text import FillConfig, MaskedText, Unmask, fill_gaps
from ostinato.train import Example, MaskedTextTask, Training, TrainingConfig, windows

ITEMS = {
    "one": MaskedText(("i want to ", " please"), (6,)),
    "two": MaskedText(("the ", " is in ", " ."), (3, 4)),
    "end": MaskedText(("a table for two " * 9, ""), (5,)),
    "start": MaskedText(("", " san jose" * 40), (8,)),
}


def model() -> MaskedModel:
    tokenizer = Tokenizer(word_pieces())
    return MaskedModel(tiny_bert(tokenizer.vocab_size), tokenizer, "tiny")


def unmask(slots: int = 4, steps: int = 6, **fill: float) -> Unmask:
    return Unmask(model(), steps=steps, slots=slots, fill=FillConfig(**fill))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_unmask_conforms(temperature: float) -> None:
    edits = {"mask": [0, 1], "put": {2: 7}, "temperature": 0.5, "noise": 0.0, "forbid": [9, 10]}
    check_lane_process(lambda n: unmask(n, temperature=temperature), ITEMS, steps=6, edits=edits)


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_schedule_decides_all_of_it_and_something_at_every_step(
    unknown: int, steps: int
) -> None:
    hidden = unknown
    for step in range(1, steps + 1):
        keep = to_keep(unknown, hidden, step, steps)
        assert keep >= min(1, hidden)
        hidden -= keep
        assert hidden <= max(0, unknown * math.cos(math.pi / 2 * step / steps)) + 1e-9
    assert hidden == 0


def test_the_most_confident_of_the_masked_tokens_are_kept() -> None:
    probs = torch.tensor([0.9, 0.1, 0.5, 0.99, 0.3])
    hidden = torch.tensor([True, True, True, False, True])
    number = torch.full((5,), 0.5, dtype=torch.float64)
    assert most_confident(probs, hidden, 2, 0.0, number).tolist() == [0, 2]
    number[1] = 1 - 1e-12  # the noise is on its side
    assert most_confident(probs, hidden, 1, 10.0, number).tolist() == [1]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3)
    number = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for temperature in (1.0, 0.5):
        tokens, probs = draw_each(logits, temperature, number)
        expected = torch.softmax(logits[0] / temperature, -1)
        shares = torch.bincount(tokens, minlength=3) / 4000
        torch.testing.assert_close(shares, expected, atol=1e-3, rtol=0)
        torch.testing.assert_close(probs, expected[tokens])
    assert set(draw_each(logits, 0, number)[0].tolist()) == {2}


def test_the_first_step_is_what_the_plain_network_says() -> None:
    process = unmask(1, steps=1, temperature=0.0, noise=0.0)
    process.start(Lane("a"), ITEMS["one"])
    (report,) = process.step().values()
    tokenizer = model().tokenizer
    before, behind = (tokenizer.encode(part) for part in ITEMS["one"].parts)
    row = [2, *before, *[4] * 6, *behind, 3]
    with torch.no_grad():
        logits = model().network(torch.tensor([row]))[0, 1 + len(before) : 7 + len(before)]
    logits[:, :5] = -torch.inf  # no control tokens
    assert report["put"] == logits.argmax(-1).tolist() and report["positions"] == list(range(6))
    assert report["masked"] == 0 and report["tokens"] == 6 and "ended" in report
    output = process.output("a")
    assert isinstance(output, Text) and output == report["text"] and output.ended
    assert output.startswith("i want to ") and output.endswith(" please")
    assert process.filled("a") == [output[10:-7]]


def test_what_is_known_stays_and_hidden_tokens_are_dots() -> None:
    process = unmask(1, steps=8)
    process.start(Lane("a"), ITEMS["two"])
    before = process.output("a")
    assert before == "the ··· is in ···· ."
    hidden, steps = 7, 0
    while hidden:
        (report,) = process.step().values()
        assert report["masked"] == hidden - cast(int, report["tokens"])
        hidden, steps = report["masked"], steps + 1
        assert ("ended" in report) == (hidden == 0)
    assert steps <= 8 and "·" not in process.output("a")


def test_a_short_gap_ends_when_nothing_is_hidden() -> None:
    process = unmask(steps=8)
    process.start(Lane("a"), MaskedText(("We can ", " you"), (2,)))
    reports = [process.step()["a"] for _ in range(2)]
    assert [report["masked"] for report in reports] == [1, 0]
    assert reports[-1]["ended"] == "No token is masked any more."
    assert process.step() == {}


def test_edits_hide_put_and_forbid() -> None:
    process = unmask(1, steps=4)
    process.start(Lane("a", 3), ITEMS["one"])
    for _ in range(4):
        process.step()
    first = process.output("a")
    assert isinstance(first, Text)
    never = sorted(set(first.tokens))
    edits = Timeline(((2, {"mask": [0, 1], "forbid": never}), (2, {"put": {5: 40}})))
    process.rewind(Lane("a", 3, backtracks=1, edits=edits), 2)
    for _ in range(2):
        process.step()
    again = process.output("a")
    assert isinstance(again, Text)
    assert again.tokens[5] == 40 and not set(again.tokens[:2]) & set(never)


def test_tokens_are_forbidden_from_the_edit_s_position_on_and_not_before() -> None:
    """An edit of a later position waits for it when its lane has gone back behind it."""
    process = unmask(1, steps=4, temperature=0.0, noise=0.0)
    process.start(Lane("a"), ITEMS["one"])
    first = [process.step()["a"]["put"] for _ in range(4)]
    never = sorted(set(process.output("a").tokens))
    process.rewind(Lane("a", backtracks=1, edits=Timeline().added(2, {"forbid": never})), 0)
    again = [process.step()["a"]["put"] for _ in range(4)]
    assert again[:2] == first[:2]
    assert not {token for put in again[2:] for token in cast(list[int], put)} & set(never)


@pytest.mark.parametrize(
    "edit",
    [
        {"mask": [6]},
        {"mask": ["1"]},
        {"put": {0: 9999}},
        {"put": {0: 7.5}},
        {"put": [1]},
        {"noise": -1},
        {"forbid": ["x"]},
        {"forbidden": [1]},
    ],
)
def test_edits_that_cannot_be_are_refused(edit: dict[str, Any]) -> None:
    with pytest.raises(EditError):
        unmask().start(Lane("a", edits=Timeline().added(0, edit)), ITEMS["one"])


def test_gaps_are_read_out_of_a_text_and_wrong_ones_refused() -> None:
    assert MaskedText.of("a ___ b ___", 3) == MaskedText(("a ", " b ", ""), (3, 3))
    with pytest.raises(InputError, match="must have a gap, marked as ___"):
        fill_gaps(["no gap"], model=model())
    with pytest.raises(ItemError, match="have 99 tokens; the model reads 62"):
        unmask().start(Lane("a"), MaskedText(("", ""), (99,)))
    with pytest.raises(InputError, match="hold 1 token or more each"):
        MaskedText(("a",), ())
    with pytest.raises(InputError, match="temperature must be a number from 0 to 100"):
        FillConfig(temperature=-1)
    with pytest.raises(InputError, match=r"got inf\. Use for example 1\.0"):
        FillConfig(noise=float("inf"))


def test_a_loop_goes_on_where_its_run_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["i want ___ please", "the ___ is in ___ .", "a ___"]

    def output(run: str, breaks: int) -> list[Any]:
        for _ in range(breaks):
            with fill_gaps(texts, model=model(), steps=5, seed=2, slots=2, run=run) as loop:
                for step in loop:
                    if step.tick % 3 == 2:
                        break
        loop = fill_gaps(texts, model=model(), steps=5, seed=2, slots=2, run=run)
        for _ in loop:
            pass
        with Journal() as journal:
            return sorted((row["index"], row["output"]) for _, row in journal.get(run).results())

    assert output("whole", 0) == output("broken", 3)


# Training and the command line -----------------------------------------------------------------


def test_training_learns_what_is_masked_and_repeats() -> None:
    data = windows([i % 4 + 5 for i in range(1200)], 16)
    task = MaskedTextTask(data[:-8], data[-8:], mask_id=4, max_gap=4)
    losses = []
    for _ in range(2):
        process = Training(
            tiny_bert(40, seed=2),
            task,
            TrainingConfig(steps=60, batch_tokens=256, lr=1e-2, valid_every=30),
        )
        losses.append([dict(process.step()) for _ in range(60)])
    assert losses[0] == losses[1]
    valid: list[Any] = [report["loss/valid"] for report in losses[0] if "loss/valid" in report]
    assert valid[-1] < 0.7 * math.log(4)
    assert {"loss/masked", "loss/gap", "tokens/masked"} <= set().union(*losses[0])
    assert {"loss/masked/valid", "loss/gap/valid"} <= set(losses[0][29])


def test_masks_are_one_gap_or_a_share_and_never_nothing() -> None:
    task = MaskedTextTask([], [], mask_id=1, max_gap=5)
    for seed in range(30):
        masked, gapped = task._masked([20, 3, 12], 20, seed)
        for row, length in enumerate((20, 3, 12)):
            at = masked[row].nonzero().flatten().tolist()
            assert at and at[-1] < length
            assert not gapped[row] or (at == list(range(at[0], at[-1] + 1)) and len(at) <= 5)


def test_examples_need_no_counted_tokens() -> None:
    example = Example((5, 6, 7), (False, True, True))
    assert MaskedTextTask([example], [], mask_id=1).lengths == [3]


def ostinato(*words: str) -> Result:
    result = CliRunner().invoke(cli, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_model_is_trained_and_fills_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(" ".join(CORPUS) * 12)
    small = "--layers 1 --width 16 --heads 2 --context 16 --vocab-size 270 --batch-tokens 128"
    small += " --kind masked --steps 6 --valid-every 3 --warmup-steps 2"
    told = ostinato("train", "text", "a.txt", "--out", "small", *small.split())
    assert "valid" in told.output and load_masked_model("small").mask_id > 256
    asked = ["fill", "We can ___ you", "--model", "small", "--gap-tokens", "3", "--steps", "2"]
    shown = ostinato(*asked, "--show", "--run", "a").stdout.splitlines()
    assert len(shown) == 3 and shown[0].startswith("   1  We can")
    again = json.loads(ostinato(*asked, "--run", "a", "--json").stdout)
    assert again["text"] == shown[-1] and again["text"].endswith(" you")
    Path("small").rename("away")  # a finished text needs no model
    finished = ostinato(*asked, "--run", "a", "--show")
    assert finished.stdout.splitlines() == shown and "is finished.]" in finished.stderr
    assert ostinato("runs", "resume", "a").stdout.splitlines() == shown[-1:]
    Path("away").rename("small")
    with pytest.raises(InputError, match="--seed was 0, is 1"):
        ostinato(*asked, "--run", "a", "--seed", "1")
    ostinato("runs", "branch", "a", "--at", "1", "--as", "b", "--set", "temperature=0")
    (branched,) = ostinato("runs", "resume", "b").stdout.splitlines()
    assert branched.endswith(" you")
    ostinato(*asked, "--no-journal")
    ostinato(*asked)  # recorded under a name of its own
    with Journal() as journal:
        assert [run.kind for run in journal.runs()].count("fill") == 3
    with pytest.raises(InputError, match=r"The gaps .* have 40 tokens; the model reads"):
        ostinato("fill", "We can ___ you", "--model", "small", "--gap-tokens", "40")
    with pytest.raises(InputError, match="--kind masked makes a network from scratch"):
        ostinato("train", "text", "a.txt", "--out", "b", "--from", "small", "--kind", "masked")


def test_a_model_without_a_mask_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be the folder of a masked language model"):
        load_masked_model(tmp_path / "nothing")
    path = save_tiny_bert(tmp_path / "bert") / "tokenizer.json"
    path.write_text(path.read_text().replace("[MASK]", "[MISK]"))
    with pytest.raises(ModelError, match=r"must have the token \[MASK\], got none"):
        _ = load_masked_model(tmp_path / "bert").mask_id


def test_lanes_share_places() -> None:
    lanes = Lanes(unmask(2), ITEMS.items(), Policy(each=Steps(99)), seed=1)
    rows = [one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results]
    assert len(rows) == len(ITEMS)


def test_without_a_model_fill_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--model must name the folder of a masked") as wrong:
        ostinato("fill", "We can ___ you")
    command = shlex.split(str(wrong.value).partition("of yours: ostinato ")[2])
    Path("FILE.txt").write_text(" ".join(CORPUS) * 12)
    small = "--layers 1 --width 16 --heads 2 --context 16 --vocab-size 270 --batch-tokens 128"
    ostinato(*command, *small.split(), "--steps", "2", "--valid-every", "2", "--warmup-steps", "1")
    assert "We" in ostinato("fill", "We can ___ you", "--model", "masked").output
