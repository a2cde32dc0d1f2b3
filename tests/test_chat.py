"""Chats as runs: moves are made once, conversations branch after any turn and are exported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from faulty_server import Faults, serving
from tiny import save_tiny

from ostinato.errors import InputError, ModelError
from ostinato.flow import ChatRun, ChatWork, Move, Stage, Turn, build_chat, turns_of
from ostinato.journal import Journal, Run, StopKind
from ostinato.runs import amend, branch, build, config_of, find_same, record
from ostinato.train.rows import Dialogue as DialogueRow
from ostinato.train.rows import parse_row


class Script(Stage):
    """A person who makes prepared moves, then leaves; keeps what a chat shows."""

    hears = True

    def __init__(self, moves: Sequence[Move | str]) -> None:
        self.moves = [Move("say", each) if isinstance(each, str) else each for each in moves]
        self.shown: list[Any] = []
        self.work: ChatWork | None = None

    def listen(self, turns: Sequence[Turn]) -> Move | None:
        self.shown.append(("listens", len(turns)))
        if self.moves:
            return self.moves.pop(0)
        assert self.work is not None
        self.work.loop.pause("The person has left.")
        return None

    def answering(self, turns: Sequence[Turn], said: str) -> None:
        self.shown.append(("answering", len(turns), said))

    def answered(self, turns: Sequence[Turn]) -> None:
        self.shown.append(("answered", str(turns[-1].answer)))

    def tell(self, sentence: str) -> None:
        self.shown.append(("told", sentence))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


@pytest.fixture
def config(tmp_path: Path) -> ChatRun:
    model = save_tiny(tmp_path / "tiny")
    return ChatRun(model=str(model), max_new_tokens=6, temperature=1.0, system="Be kind.")


def talk(config: ChatRun, run: Run | None, moves: Sequence[Move | str]) -> tuple[ChatWork, Script]:
    script = Script(moves)
    work = script.work = build_chat(config, run=run, stage=script)
    with work.loop:
        try:
            for step in work.loop:
                work.watch(step)
        finally:
            work.close()
    work.finish()
    return work, script


BACK, RETRY, END = Move("back", turns=1), Move("retry"), Move("end")


def test_a_chat_goes_on_where_it_was_left(journal: Journal, config: ChatRun) -> None:
    run = record(journal, config, name="a")
    work, script = talk(config, run, ["Hello", "And you?"])
    first = work.turns
    assert run.status == "paused" and [turn.said for turn in first] == ["Hello", "And you?"]
    assert [each[0] for each in script.shown] == [
        *("listens", "answering", "answered", "listens", "answering", "answered", "listens"),
    ]
    again, script = talk(config, run, ["Now", END])
    assert script.shown[0] == ("listens", 2)  # what is recorded is not played again
    assert [turn.said for turn in again.turns] == ["Hello", "And you?", "Now"]
    assert again.turns[:2] == first
    assert run.stopped is not None and run.stopped.kind is StopKind.ENDED
    whole, _ = talk(config, record(journal, config, name="b"), ["Hello", "And you?", "Now", END])
    assert [turn.answer for turn in whole.turns] == [turn.answer for turn in again.turns]


def test_back_and_retry_are_moves_of_the_run(journal: Journal, config: ChatRun) -> None:
    run = record(journal, config, name="a")
    moves: list[Move | str]
    moves = [BACK, RETRY, "Hello", "And you?", BACK, "And they?", RETRY, Move("back", turns=9)]
    work, script = talk(config, run, moves)
    turns = work.turns
    assert [turn.said for turn in turns] == ["Hello", "And they?"]
    answers = [each[1] for each in script.shown if each[0] == "answered"]
    assert len(answers) == 4 and turns[1].answer == answers[3] != answers[2]
    kept, _ = talk(config, None, moves)
    assert kept.turns == turns  # the same without a record
    paths = [call.path for call in run.calls() if "/" not in call.path]
    assert [path.partition(":")[2] for path in paths].count("user") == len(moves)


def test_a_chat_branches_after_any_turn(journal: Journal, config: ChatRun) -> None:
    run = record(journal, replace(config, out=Path("talk.jsonl")), name="a")
    work, _ = talk(config, run, ["Hello", "And you?", "Now"])
    made = branch(journal, run, "b", call=work.turns[1].path)
    settings = config_of(made)
    assert isinstance(settings, ChatRun) and settings.out == Path("b.jsonl").absolute()
    other, script = talk(config, made, ["Then"])
    assert script.shown[0] == ("listens", 2)
    assert [turn.said for turn in other.turns] == ["Hello", "And you?", "Then"]
    assert turns_of(run.calls()) == work.turns
    # The same place and the same seed: the same words.
    again, _ = talk(config, branch(journal, run, "c", call=work.turns[1].path), ["Now"])
    assert again.turns == work.turns
    # Settings of a branch may be others.
    third = branch(journal, run, "d", call=work.turns[1].path)
    changed = replace(config, seed=1, system="Be brief.")
    amend(journal, third, changed)
    new, _ = talk(changed, third, ["Now"])
    assert new.turns[:2] == work.turns[:2] and new.turns[2].answer != work.turns[2].answer


def test_moves_are_asked_for_where_nobody_is_heard(journal: Journal, config: ChatRun) -> None:
    run = record(journal, config, name="a")
    for answer in ("Hello", {"retry": True}, {"say": "And you?"}, ["a", 1], {"end": True}):
        stopped = build(run).loop.run()
        assert stopped.condition == "ask" and run.status == "waiting"
        [question] = run.questions()
        assert question.question == "What do you say next?"
        journal.answer(run, answer)
    assert build(run).loop.run().kind is StopKind.ENDED
    assert [turn.said for turn in turns_of(run.calls())] == ["Hello", "And you?", '["a",1]']
    with pytest.raises(InputError, match="must be recorded as a run to ask"):
        build_chat(config).loop.run()


def test_a_conversation_is_exported_as_training_data(config: ChatRun, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    work, _ = talk(replace(config, out=file), None, ["Hello", "Wrong", BACK, "And you?", END])
    [line] = file.read_text("utf-8").splitlines()
    row = json.loads(line)
    first, second = (str(turn.answer) for turn in work.turns)
    assert row["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And you?"},
        {"role": "assistant", "content": second},
    ]
    assert [each["turn"] for each in row["answers"]] == [1, 2]
    assert row["answers"][0]["tokens"] == 6 and row["answers"][0]["accepted"]
    parsed = parse_row(row, "line 1")
    assert isinstance(parsed, DialogueRow) and len(parsed.messages) == 5


# Two models -------------------------------------------------------------------------------------


def test_two_models_talk_and_go_on(journal: Journal, config: ChatRun, tmp_path: Path) -> None:
    partner = save_tiny(tmp_path / "other")
    config = replace(config, partner=str(partner), turns=5, opening="Hi!")
    run = record(journal, config, name="a")
    work, script = talk(config, run, [])
    turns = work.turns
    assert len(turns) == 5 and turns[0].said == "Hi!"
    for before, after in pairwise(turns):
        assert after.said == (before.answer.strip() or "(says nothing)")
    assert [each[0] for each in script.shown] == ["answering", "answered"] * 5
    told = work.to_json()
    assert [each["role"] for each in told["messages"]] == ["system", *["user", "assistant"] * 3]
    assert {Path(each["model"]).name for each in told["answers"]} == {"tiny", "other"}
    # More turns: a branch of the last one.
    longer = replace(config, turns=7)
    more = branch(journal, run, "b", call=turns[-1].path)
    amend(journal, more, longer)
    again, script = talk(longer, more, [])
    assert again.turns[:5] == turns and len(again.turns) == 7
    assert [each[0] for each in script.shown] == ["answering", "answered"] * 2
    whole, _ = talk(longer, record(journal, longer, name="c"), [])
    assert whole.turns == again.turns
    # Fewer turns than are recorded take none away.
    paused = branch(journal, run, "d", call=turns[2].path)
    few, _ = talk(replace(config, turns=1), paused, [])
    assert few.turns == turns[:3]
    even = replace(config, turns=2)
    assert talk(even, None, [])[0].to_json()["messages"][-1]["role"] == "user"


@pytest.mark.parametrize("memory", ["cut", "summary"])
def test_the_oldest_turns_leave_where_two_models_fill_their_contexts(
    config: ChatRun, tmp_path: Path, memory: Literal["cut", "summary"]
) -> None:
    partner = str(save_tiny(tmp_path / "other"))
    config = replace(
        config, partner=partner, turns=14, opening="Hi!", max_new_tokens=40, memory=memory
    )
    work, script = talk(config, None, [])
    assert len(work.turns) == 14
    told = [each[1] for each in script.shown if each[0] == "told"]
    assert len(told) >= 2 and all("left the model's memory" in each for each in told)


def test_the_same_model_talks_with_itself_in_one_batch(config: ChatRun) -> None:
    config = replace(config, partner=config.model, turns=3, partner_system="Be rude.")
    work, _ = talk(config, None, [])
    assert work.lanes._texts is not None and len(work.lanes._texts._batches) == 1
    assert [each["model"][-3:] for each in work.to_json()["answers"]] == ["(1)", "(2)", "(1)"]


# Configurations ---------------------------------------------------------------------------------


def test_wrong_configurations_are_refused(
    journal: Journal, config: ChatRun, tmp_path: Path
) -> None:
    for changes, message in (
        ({"turns": 0}, "turns must be at least 1"),
        ({"bits": 3}, "bits must be 8 or 4"),
        ({"opening": " "}, "opening must be a text"),
        ({"temperature": -1}, "temperature"),
        ({"memory": "all"}, "memory"),
        ({"max_rounds": 0}, "rounds"),
        ({"partner_system": "x"}, "partner_system must be given with a partner"),
        ({"partner": "x", "max_tokens": 3}, "max_tokens must be given where a person talks"),
    ):
        with pytest.raises(InputError, match=message):
            replace(config, **changes)
    with pytest.raises(ModelError, match="nowhere"):
        build_chat(replace(config, model=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="max_cost must be given with the prices of a server"):
        build_chat(replace(config, max_cost=1.0))
    with pytest.raises(InputError, match="key_env must be given with a server"):
        build_chat(replace(config, key_env="KEY"))
    record(journal, config, name="a")
    with pytest.raises(InputError, match="system was Be kind"):
        find_same(journal, replace(config, system="Be brief."), "a")


def test_what_resuming_does_is_told(config: ChatRun, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[check]]\nkind = "python"\ncall = "mine:check"\n')
    server = replace(config, rules=rules, partner="http://127.0.0.1:1/v1#m")
    assert server.trusted() == [
        "calls the function mine:check",
        "sends what is said to http://127.0.0.1:1/v1#m",
    ]
    assert config.trusted() == []


def test_rules_with_other_columns_are_left_out_and_told(config: ChatRun, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "hi"\ncolumn = "message"\npattern = "hi"\nreply = "Hi {who}."\n'
        '[[check]]\nkind = "contains"\ncolumn = "asked"\n'
    )
    work, _ = talk(replace(config, rules=rules), None, ["hi", END])
    assert [each.partition(" is left out")[0] for each in work.left_out] == [
        "The rule 'hi'",
        "The check 'contains'",
    ]
    assert work.turns[0].answer.source == "model"
    given = replace(config, rules=rules, given={"who": "Ada", "asked": "Ada"})
    work, _ = talk(given, None, ["hi", END])
    assert work.left_out == [] and work.turns[0].answer == "Hi Ada."


# Servers ----------------------------------------------------------------------------------------


def test_a_server_talks_until_it_has_cost_too_much(journal: Journal, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[server]\nprice_out = 1e6\nprice_in = 0.0\n")
    faults = Faults(writes=lambda body: f"Heard {len(body['messages'])}.")
    with serving(faults) as server:
        config = ChatRun(
            model=f"{server}#m",
            system="Be kind.",
            rules=rules,
            max_cost=1.0,
            context=60,
            memory="cut",
            max_new_tokens=8,
        )
        run = record(journal, config, name="a")
        work, script = talk(replace(config, max_cost=None), run, [f"Say {n}" for n in range(5)])
        assert [str(turn.answer) for turn in work.turns][:2] == ["Heard 2.", "Heard 4."]
        left = [turn.answer.memory.left for turn in work.turns if turn.answer.memory is not None]
        assert left and any(each[0] == "told" for each in script.shown)
        assert len(faults.bodies[-1]["messages"]) < 10
        stopped = talk(config, run, ["More", END])[0].loop.stopped
        assert stopped is not None and stopped.condition == "ask"
        journal.answer(run, "A person here.")
        work, _ = talk(config, run, [END])
        assert work.turns[-1].answer == "A person here."
        assert "The model may spend 1 cost" in work.turns[-1].answer.handed_over
        with pytest.raises(InputError, match="bits must be given with a model in this process"):
            build_chat(replace(config, bits=8))


def test_what_a_model_cannot_read_is_told_and_the_chat_goes_on(
    journal: Journal, config: ChatRun
) -> None:
    run = record(journal, config, name="a")
    work, script = talk(config, run, ["word " * 500, "Hello"])
    assert "The prompt has" in next(each[1] for each in script.shown if each[0] == "told")
    assert [turn.said for turn in work.turns] == ["Hello"]
    again, script = talk(config, run, ["And you?"])
    assert not any(each[0] == "told" for each in script.shown)  # it is recorded, and not told again
    assert [turn.said for turn in again.turns] == ["Hello", "And you?"]
