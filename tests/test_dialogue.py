"""Dialogues: answers are calls, made once; memory, rules, checks, and a person where limits end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.checks import Contains, Excludes, Length
from ostinato.decode import SamplingParams
from ostinato.errors import InputError, ItemError, RunError, Unanswered
from ostinato.flow import Answer, Dialogue, FlowChanged, HandOver, aio, flow, step
from ostinato.flow.dialogue.memory import certainly_fits
from ostinato.journal import Journal
from ostinato.refine import read_rule_book

IMPOSSIBLE = Contains(texts=("never written",))
RULES = """
[[rule]]
name = "bye"
column = "message"
pattern = 'bye'
reply = "Goodbye, {message}!"

[cases]
file = "cases.jsonl"
column = "message"
answer_above = 0.9

[[check]]
kind = "length"
max = 30

[strategy]
kind = "resample"
rounds = 2

[sampling]
temperature = 0.5
max_new_tokens = 8
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "cases.jsonl").write_text('{"question": "Where are you?", "answer": "Here."}\n')
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path / "rules.toml"


def paths(journal: Journal, name: str = "a") -> list[str]:
    return [call.path for call in journal.get(name).calls()]


def short(**settings: Any) -> Dialogue:
    return Dialogue("Be kind.", max_new_tokens=8, **settings)


# In a flow --------------------------------------------------------------------------------------


def test_answers_are_calls_that_are_made_once(journal: Journal) -> None:
    fails = [True]

    @step
    def breaks() -> None:
        if fails:
            fails.clear()
            raise OSError("no connection")

    grown: list[str] = []

    @flow
    def talk() -> list[str]:
        dialogue = short(watch=grown.append)
        first = dialogue.say("Hello")
        breaks()
        second = dialogue.say(f"What is {first}?")
        assert isinstance(second, Answer) and second.accepted and second.source == "model"
        assert [turn.path for turn in dialogue.turns] == ["1:say", "3:say"]
        assert dialogue.spent["tokens"] == first.tokens + second.tokens
        return [first, second]

    with pytest.raises(OSError):
        talk.run(run="a", journal=journal, model=tiny_model())
    begun = len(grown)
    assert 0 < begun < 8 and grown[begun - 1].startswith(grown[0])
    found = talk.run(run="a", journal=journal, model=tiny_model())
    assert paths(journal) == ["1:say/1:answer", "1:say", "2:breaks", "3:say/1:answer", "3:say"]
    assert len(grown) - begun < 8  # the first answer was not written again
    assert talk.run(run="b", journal=journal, model=tiny_model()) == found
    assert talk() == talk()


def test_back_and_retry(journal: Journal) -> None:
    @flow
    def talk() -> list[Any]:
        dialogue = short(sampling=SamplingParams(temperature=1.5))
        first = dialogue.say("Hello")
        again = dialogue.retry()
        dialogue.say("And now?")
        dialogue.say("And then?")
        dialogue.back(2)
        assert [turn.answer for turn in dialogue.turns] == [again]
        assert dialogue.spent["calls"] == 4
        return [first, again, dialogue.say("And now?")]

    first, again, _ = talk.run(run="a", journal=journal, model=tiny_model())
    assert first != again

    @flow
    def wrong() -> None:
        dialogue = short()
        dialogue.say("Hello")
        dialogue.back(2)

    with pytest.raises(InputError, match="must be 1 to 1, got 2"):
        wrong.run(run="b", journal=journal, model=tiny_model())


@pytest.mark.parametrize("checks", [(), [Length(min=40)]])
def test_who_watches_an_answer_can_end_it(journal: Journal, checks: Any) -> None:
    @flow
    def talk() -> str:
        dialogue = short(checks=checks, hand_over=HandOver(rounds=1))
        # Nobody is asked for an answer in its place, and no other round is written.
        answer = dialogue.say("Hello", watch=lambda text: "Enough." if len(text) > 3 else None)
        assert answer.why.startswith("Enough.") and 0 < answer.tokens < 8 and answer.rounds == 1
        assert answer.accepted is not bool(checks)
        return answer

    ended = talk.run(run="a", journal=journal, model=tiny_model())
    assert talk.run(run="a", journal=journal, model=tiny_model()) == ended


def test_a_changed_text_is_refused(journal: Journal) -> None:
    said = ["Hello", "Bye"]

    @flow
    def talk() -> str:
        dialogue = short()
        dialogue.say(said[0])
        return dialogue.say(said[1], watch=lambda text: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        talk.run(run="a", journal=journal, model=tiny_model())
    said[0] = "Good day"
    with pytest.raises(FlowChanged, match=r"'1:say' was recorded with \{'text': 'Hello'\}"):
        talk.run(run="a", journal=journal, model=tiny_model())


def test_a_dialogue_belongs_to_the_flow_that_made_it(journal: Journal) -> None:
    outside = short()

    @flow
    def talk() -> str:
        return outside.say("Hello")

    @flow
    def within() -> str:
        dialogue = short()
        dialogue.say("Hello")

        @flow
        def inner() -> str:
            return dialogue.say("Again")

        return inner()

    first = talk.run(run="a", journal=journal, model=tiny_model())
    with pytest.raises(InputError, match=r"must be made where it is used.*test_dialogue\.py:\d+"):
        talk.run(run="b", journal=journal, model=tiny_model())
    with pytest.raises(InputError, match="in one flow and one branch of it"):
        within.run(run="c", journal=journal, model=tiny_model())
    with pytest.raises(InputError, match="say must be called in a flow"):
        short().say("Hello")
    with pytest.raises(InputError, match="What is said in a dialogue must be a text, got ' '"):
        short().say(" ")
    assert first


def test_an_async_flow_awaits_answers(journal: Journal) -> None:
    @flow
    async def side_by_side() -> list[str]:
        dialogue = short()
        return await aio.gather(aio.say(dialogue, "Hello"), aio.say(dialogue, "Hi"))

    with pytest.raises(InputError, match="one branch of it"):
        side_by_side.run(run="a", journal=journal, model=tiny_model())

    @flow
    async def alone() -> list[str]:
        dialogue = short()
        return [await aio.say(dialogue, text) for text in ("Hello", "And you?")]

    found = alone.run(run="b", journal=journal, model=tiny_model())
    assert paths(journal, "b") == ["1:say/1:answer", "1:say", "2:say/1:answer", "2:say"]
    assert alone.run(run="b", journal=journal, model=tiny_model()) == found


# Memory -----------------------------------------------------------------------------------------


def test_the_oldest_turns_leave_and_the_dialogue_says_so(journal: Journal) -> None:
    texts = ["Hello there", "How are you", "What is this?", "And now?", "Where?"]
    texts.append("When is it that you can help me with the table?")
    told: dict[str, list[str]] = {"cut": [], "summary": []}
    for memory in ("cut", "summary"):
        dialogue = Dialogue("Be kind.", max_new_tokens=16, memory=memory, tell=told[memory].append)
        answers = list(dialogue.run(texts, run=memory, journal=journal, model=tiny_model()))
        left = [answer.memory for answer in answers if answer.memory is not None]
        assert len(left) == len(told[memory]) > 0
        assert [each.left for each in left] == sorted({each.left for each in left})
        assert any(each.summary for each in left) == (memory == "summary")
        again = list(dialogue.run(texts, run=memory, journal=journal, model=tiny_model()))
        assert again == answers
    assert told["cut"][0].endswith("turns have left the model's memory. They are cut.")
    assert "The model sums them up: " in told["summary"][0]
    calls = [path.rpartition("/")[2] for path in paths(journal, "summary")]
    assert 0 < calls.count("1:summary") <= len(told["summary"])


def test_going_back_restores_the_memory() -> None:
    @flow
    def talk() -> list[int]:
        dialogue = Dialogue(max_new_tokens=16, memory="cut", context=160)
        found = []
        for number in range(5):
            dialogue.say(f"This is message number {number}.")
            found.append(dialogue.memory.left)
        dialogue.back(4)
        return [*found, dialogue.memory.left]

    [(_, found)] = talk.over([{}], model=tiny_model())
    assert found[0] == 0 and found[4] > 0 and found[5] == 0


def test_what_cannot_fit_is_refused_with_sizes() -> None:
    with pytest.raises(ItemError, match="tokens; the model reads fewer than 256"):
        list(short().run(["word " * 400], model=tiny_model()))
    with pytest.raises(InputError, match="at most that of the model, 256 tokens, got 4096"):
        list(short(context=4096).run(["Hello"], model=tiny_model()))
    for settings, message in (
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"memory": "all"}, "memory must be 'summary' or 'cut', got 'all'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            Dialogue(**settings)


def test_what_certainly_fits_fits() -> None:
    tokenizer = tiny_model().tokenizer
    for text in ("a", "Grüße 中文 😀", "word " * 9):
        messages = [{"role": "user", "content": text}] * 3
        count = len(tokenizer.chat(messages))
        sizes = [room for room in range(600) if certainly_fits(messages, room)]
        assert min(sizes) >= count


def test_a_turn_computes_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    from ostinato.decode.slots import SlotAllocator

    seen: list[tuple[int, int, int]] = []
    refill = SlotAllocator.refill

    def counted(self: Any, slot: int, tokens: Any) -> None:
        before = self._inference.counts.prompt
        refill(self, slot, tokens)
        new = self._inference.counts.prompt - before
        seen.append((len(tokens), new, self._inference.prefill_chunk))

    monkeypatch.setattr(SlotAllocator, "refill", counted)
    texts = [f"{number}?" for number in range(5)]
    answers = list(Dialogue("Be kind.", max_new_tokens=8).run(texts, model=tiny_model()))
    assert all(answer.memory is None for answer in answers)
    assert len(seen) == 5
    for (before, _, chunk), (whole, new, _) in pairwise(seen):
        assert whole > before
        assert whole - new >= before - before % chunk  # a prompt goes on at whole chunks


# Rules and checks -------------------------------------------------------------------------------


def test_rules_and_past_cases_answer_without_the_model(rules: Path, journal: Journal) -> None:
    dialogue = Dialogue(rules=rules)
    said = ["bye", "Where are you?"]
    answers = list(dialogue.run(said, run="a", journal=journal, model="nowhere-at-all"))
    assert answers == ["Goodbye, bye!", "Here."]
    assert [(each.source, each.by) for each in answers] == [
        ("rule", "bye"),
        ("case", "Where are you?"),
    ]
    assert [verdict.check for verdict in answers[0].verdicts] == ["length"]
    assert paths(journal) == ["1:say", "2:say"]


def test_a_ready_answer_that_fails_is_left_to_the_model(rules: Path) -> None:
    [answer] = Dialogue(checks=[Length(max=1)], rules=rules).run(["bye you"], model=tiny_model())
    assert answer.source == "model"
    assert answer.rounds <= 2  # the strategy of the rules


def test_the_settings_of_rules_hold_where_none_are_given(rules: Path) -> None:
    settings = Dialogue(rules=rules).settings
    assert settings.max_new_tokens == 8
    assert settings.sampling is not None and settings.sampling.temperature == 0.5
    own = Dialogue(rules=read_rule_book(rules), max_new_tokens=5, strategy="abort").settings
    assert (own.max_new_tokens, own.strategy) == (5, "abort")
    rules.write_text(RULES + '\n[[check]]\nkind = "contains"\ncolumn = "asked"\n')
    with pytest.raises(InputError, match=r"The check 'contains' is left out: it needs 'asked'"):
        Dialogue(rules=rules)
    assert len(Dialogue(rules=rules, given={"asked": ""}).settings.checks) == 2
    usable, told = read_rule_book(rules).with_columns(["message"])
    assert len(usable.checks) == 1 and len(told) == 1


def test_a_rule_book_needs_no_input_and_tells_all_problems(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'model = "smollm2"\n[[rule]]\nname = "a"\ncolumn = "m"\npattern = "("\nreply = "a"\n'
    )
    with pytest.raises(InputError, match=r"job\.toml, line 5.*regular expression"):
        read_rule_book(file)
    file.write_text('models = "smollm2"\n[sampling]\ntemperature = -1\n')
    with pytest.raises(InputError, match="2 problems") as raised:
        read_rule_book(file)
    assert "Did you mean 'model'?" in str(raised.value)
    file.write_text('model = "smollm2"\ninput = "x.jsonl"\n[prompt]\ntemplate = "{m}"\n')
    book = read_rule_book(file)
    assert (book.rules, book.checks, book.strategy, book.sampling) == ((), (), None, None)


def test_an_answer_that_fails_says_so() -> None:
    checks = [Excludes(texts=("e",), whole=False), IMPOSSIBLE]
    [answer] = short(checks=checks, strategy="resample").run(["Hello"], model=tiny_model())
    assert not answer.accepted and answer.rounds == 8
    assert "contains" in {verdict.check for verdict in answer.verdicts if not verdict.passed}


# A person ---------------------------------------------------------------------------------------


def test_a_person_answers_where_drafts_fail(journal: Journal) -> None:
    told: list[str] = []
    dialogue = short(
        checks=[IMPOSSIBLE], strategy="resample", hand_over=HandOver(rounds=12), tell=told.append
    )
    texts = ["Hello", "Are you there?", "Again?"]

    def run() -> list[Answer]:
        return list(dialogue.run(texts, run="a", journal=journal, model=tiny_model()))

    with pytest.raises(Unanswered, match="2:say/2:ask"):
        run()
    assert told == ["16 drafts in a row have not passed the checks. A person answers."]
    [question] = journal.get("a").questions()
    assert "Answer in its place: Are you there?" in question.question
    assert "The model's draft: " in question.question
    written = paths(journal)
    with pytest.raises(Unanswered):  # nothing is written again
        run()
    assert paths(journal) == written
    journal.answer(journal.get("a"), "Yes, here.")
    answers = run()
    assert answers[1] == "Yes, here." and answers[1].source == "person"
    assert answers[1].handed_over.startswith("16 drafts") and len(answers[1].taken_back) >= 8
    assert answers[2].source == "model"  # a person's answer passes: the model tries again
    assert journal.get("a").status == "stopped"


def test_a_person_answers_where_a_limit_is_reached(journal: Journal, rules: Path) -> None:
    dialogue = Dialogue(rules=rules, hand_over=HandOver(tokens=1))
    texts = ["Hello", "Hello again", "bye", "More"]

    def run() -> list[Answer]:
        return list(dialogue.run(texts, run="a", journal=journal, model=tiny_model()))

    for said in ("More.", {"not": "a text"}):
        with pytest.raises(Unanswered):
            run()
        journal.answer(journal.get("a"), said)
    answers = run()
    assert [each.source for each in answers] == ["model", "person", "rule", "person"]
    assert answers[1] == "More." and answers[3] == '{"not":"a text"}'
    assert "The model may spend 1 token, and has spent " in answers[3].handed_over
    for settings in ({"tokens": 0}, {"rounds": -1}, {"seconds": "1"}):
        with pytest.raises((InputError, RunError)):
            HandOver(**settings)


# By itself --------------------------------------------------------------------------------------


def test_a_function_says_what_follows_and_is_asked_once(journal: Journal) -> None:
    asked: list[Answer | None] = []

    def respond(answer: Answer | None) -> str | None:
        if len(asked) == 2 and broken:
            broken.clear()
            raise KeyError("broken")
        asked.append(answer)
        return f"Message {len(asked)}" if len(asked) < 4 else None

    broken = [True]
    dialogue = short()
    with pytest.raises(KeyError):
        list(dialogue.run(respond, run="a", journal=journal, model=tiny_model()))
    answers = list(dialogue.run(respond, run="a", journal=journal, model=tiny_model()))
    assert len(answers) == 3 and len(asked) == 4
    assert asked[0] is None and asked[1:] == answers
    assert [path for path in paths(journal) if "/" not in path] == [
        *("1:user", "2:say", "3:user", "4:say", "5:user", "6:say", "7:user"),
    ]
    # It has ended: nobody is asked, and its answers are there.
    assert list(dialogue.run(respond, run="a", journal=journal, model=tiny_model())) == answers
    assert len(asked) == 4
    with pytest.raises(InputError, match="What is said must be a text or None, got 1"):
        list(dialogue.run(lambda answer: 1, model=tiny_model()))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="messages must be at least one text"):
        list(dialogue.run([], model=tiny_model()))
