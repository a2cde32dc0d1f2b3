"""The example of adversarial checks: what it learns from, that it learns, and that it resumes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killable_examples import PROMPTS, ROUNDS, rounds
from tiny import save_tiny
from tiny_bert import save_tiny_bert

from examples.adversarial_checks import discriminator
from examples.adversarial_checks import run as example
from examples.adversarial_checks.discriminator import Discriminator, surface
from examples.adversarial_checks.effects import (
    Drafts,
    Interval,
    best,
    bits_per_character,
    correlation,
    first_accepted,
    first_draft,
    preferred,
)
from examples.adversarial_checks.heldout_judge import HeldOutJudge
from examples.adversarial_checks.rounds import auc, drafts_of
from ostinato.checks import judge_all
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.models import load_encoder, load_model
from ostinato.refine import read_job
from ostinato.testing import Forks, check_killed, check_process

FOLDER = Path(example.__file__).parent
ITEM = {"messages": [{"role": "user", "content": "Find me a hotel."}]}
REAL = [(f"I found hotel {name}. Shall I book it?", ITEM) for name in "ABCDEFGH"]
MADE = [(f"Yes, certainly, hotel {name}!", ITEM) for name in "ABCDEFGH"]


def rows(name: str) -> list[dict[str, Any]]:
    return example.read_rows(FOLDER / name)


def test_no_dialogue_is_used_for_two_purposes() -> None:
    dialogues = [
        {row["id"].rsplit("-", 1)[0] for row in found}
        for found in (
            rows("loop.jsonl"),
            rows("judge.jsonl"),
            example.read_rows(example.SUPPORT / "messages.jsonl"),
        )
    ]
    assert max(Counter(name for found in dialogues for name in found).values()) == 1
    for row in rows("loop.jsonl"):
        assert row["messages"][-1]["role"] != "assistant" and row["reference"]
    assert all(row["message"] and row["reference"] for row in rows("judge.jsonl"))
    assert sum(path.stat().st_size for path in FOLDER.glob("*.jsonl")) < 700_000


def test_a_discriminator_learns_to_tell_and_says_what_gave_a_draft_away() -> None:
    untrained = Discriminator.untrained()
    assert untrained.check().judge("Anything", ITEM).passed and untrained.score("", ITEM) == 0.5
    trained = Discriminator.fit(REAL[:6], MADE[:6])
    check = trained.check()
    for real, made in zip(REAL, MADE, strict=True):  # also those that it has not seen
        assert check.judge(*real).passed
        verdict = check.judge(*made)
        assert not verdict.passed and 0 < verdict.score < 0.5
        assert '"certainly"' in verdict.message or '"!"' in verdict.message
    same = Discriminator.fit(REAL, REAL)
    assert same.score(*REAL[0]) == pytest.approx(0.5, abs=1e-6)


def test_kinds_weigh_the_same_however_many_there_are() -> None:
    few, many = Discriminator.fit(REAL, MADE[:1] * 2), Discriminator.fit(REAL, MADE[:1] * 20)
    assert few.score(*REAL[0]) == pytest.approx(many.score(*REAL[0]), abs=1e-6)


def test_the_surface_of_a_text_has_no_words() -> None:
    assert surface("Call 555, Ann!") == "Xxxx 555, Xxx!"


def test_a_discriminator_is_saved_and_missed_by_name(tmp_path: Path) -> None:
    trained = Discriminator.fit(REAL, MADE)
    trained.save(tmp_path / "out" / "d.safetensors")
    loaded = Discriminator.load(tmp_path / "out" / "d.safetensors")
    assert loaded.score(*REAL[0]) == trained.score(*REAL[0])
    with pytest.raises(InputError, match=r"none\.safetensors must exist, got no such file\. Run"):
        Discriminator.load(tmp_path / "none.safetensors")


def test_the_job_wants_the_discriminator_of_the_loop_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "discriminator.safetensors"
    monkeypatch.setattr(discriminator, "FILE", file)
    with pytest.raises(
        InputError, match=r"discriminator\.safetensors must exist, got no such file"
    ):
        read_job(FOLDER / "job.toml")
    trained = Discriminator.fit(REAL, MADE)
    trained.save(file)
    (check,) = read_job(FOLDER / "job.toml").checks
    assert check.name == "reads like a person"
    assert check.judge(*MADE[0]).score == trained.score(*MADE[0])
    for name in [name for name in sys.modules if name.endswith("_trained")]:
        del sys.modules[name]  # else the next job of this process had the same discriminator


def test_the_rounds_are_a_process() -> None:
    check_process(rounds, steps=ROUNDS, cuts=(0, 1, 2))


def test_what_a_round_accepts_is_what_the_next_discriminator_learns() -> None:
    process = rounds()
    first = process.step()
    assert first["accepted"] == 1 and first["auc/drafts"] == 0.5  # it could not tell yet
    before = process.discriminators[-1]
    second = process.step()
    assert second["accepted"] not in (0, 1) and second["auc/drafts"] != 0.5
    assert not before.weights.equal(process.discriminators[-1].weights)
    assert len(process.state_dict()["accepted"]) == 2  # type: ignore[arg-type]
    assert {"auc/accepted", "auc/surface", "gap", "words/accepted"} <= set(second)


def test_a_first_accepted_draft_is_what_refine_accepts() -> None:
    """The ways that are compared on drafts written once give the replies of a refine job."""
    process = rounds()
    process.step()
    discriminator = process.discriminators[-1]
    batch = process._rows[PROMPTS : 2 * PROMPTS]
    written = process._draft("", batch, discriminator.check())
    every = process._draft("", batch, example.every_draft)
    for row, accepted, result in zip(batch, written, every, strict=True):
        texts, tokens = zip(*drafts_of(result), strict=True)
        picked = first_accepted(Drafts(row, texts, tokens), discriminator)
        assert picked.text == accepted["reply"].strip()
        passed = judge_all([discriminator.check()], picked.text, row)[0].passed
        assert passed is accepted["accepted"]


def test_ways_pick_from_the_same_drafts() -> None:
    trained = Discriminator.fit(REAL, MADE)
    pool = Drafts(ITEM, [MADE[6][0], REAL[6][0], REAL[7][0]], [5, 7, 9])
    assert first_draft(pool).tokens == 5
    assert first_accepted(pool, trained) == first_accepted(pool, trained, 0.5)
    assert first_accepted(pool, trained).text == REAL[6][0]
    assert first_accepted(pool, trained).tokens == 12
    hopeless = first_accepted(Drafts(ITEM, [MADE[6][0], MADE[7][0]], [5, 7]), trained, 0.99)
    assert hopeless.tokens == 12
    assert best(pool, trained).tokens == 21


def test_measures_by_hand() -> None:
    assert auc([1, 2], [0, 1]) == pytest.approx(7 / 8)
    assert preferred([1, 2, 3], [0, 2, 4]) == [1, 0.5, 0]
    assert correlation([1, 2, 3], [10, 30, 50]) == pytest.approx(1)
    assert correlation([1, 1, 2, 3], [3, 3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2], [5, 5]) == 0
    interval = Interval.of([0.0, 1.0] * 50)
    assert interval.low < 0.42 < interval.mean == 0.5 < 0.58 < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05, rel=0.15)


def test_a_judge_learns_from_rows_and_tells_how_well(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_tiny_bert(tmp_path / "bert")))
    words = ("table", "room", "hotel", "train", "flight", "book", "weather", "rain", "phone", "is")
    told = [
        {"message": "a hotel", "reference": f"yes a {word} for two", "draft": f"no {word}"}
        for word in words
    ]
    judge = HeldOutJudge.train(encoder, told)
    assert judge.accuracy > 0.8
    real, made = judge.scores([("a hotel", "yes a table for two"), ("a hotel", "no table")])
    assert real > 0.5 > made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name tiny models, of which the writer can read long conversations."""
    folder = tmp_path_factory.mktemp("models")
    model, encoder = save_tiny(folder / "tiny"), save_tiny_bert(folder / "bert")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return ["--model", str(model), "--adapter", "", "--encoder", str(encoder)]


def test_bits_per_character_grow_with_a_reply_that_is_less_likely(models: list[str]) -> None:
    model = load_model(models[1])
    likely = bits_per_character(model, "Hello", "The reply to your message is here.")
    assert likely > 0


SMALL = [
    "--rounds",
    "2",
    "--first",
    "6",
    "--prompts",
    "4",
    "--drafts",
    "2",
    "--tested",
    "4",
    "--json",
]


def test_the_example_runs_end_to_end_and_resumes(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--journal", str(tmp_path / "j.db"), "--out", str(tmp_path / "d.safetensors")]
    with Journal(tmp_path / "j.db") as journal:
        journal.create(example.NAME, kind="rounds", spec={"settings": {"prompts": 3}})
    with pytest.raises(InputError, match="--prompts must be 3, as the run 'adversarial-checks'"):
        example.main([*models, *SMALL, *where])
    example.main([*models, *SMALL, *where, "--json", "--fresh"])
    told = capsys.readouterr().out
    found = json.loads(told.splitlines()[-1])
    assert "round 1  auc/drafts 0.50" in told and found["prompts"] == 4
    assert set(found["ways"]) > {"one draft", "first discriminator", "last discriminator"}
    assert found["ways"]["one draft"]["preferred"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert (tmp_path / "d.safetensors").is_file()
    example.main([*models, *SMALL, *where, "--json"])  # finished: nothing is written again
    assert capsys.readouterr().out == told
    with Journal(tmp_path / "j.db") as journal:
        assert {run.name for run in journal.get(example.NAME).called()} >= {
            f"{example.NAME}-round-0",
            f"{example.NAME}-tested",
        }


def test_a_model_that_cannot_read_a_prompt_is_told_by_the_row(
    models: list[str], tmp_path: Path
) -> None:
    config = Path(models[1]) / "config.json"
    long = config.read_text()
    config.write_text(json.dumps(json.loads(long) | {"max_position_embeddings": 64}))
    where = ["--journal", str(tmp_path / "j.db")]
    with pytest.raises(InputError, match=r"A reply to \S+ must be written, got an error: .* Take"):
        example.main([*models, *SMALL, *where])
    config.write_text(long)


def test_too_few_rows_are_told() -> None:
    with pytest.raises(InputError, match=r"loop\.jsonl must have 9999 rows, got \d+\. Ask"):
        example.read_rows(FOLDER / "loop.jsonl", 9999)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable_examples") as opened:
        yield opened


def test_a_killed_loop_ends_as_an_undisturbed_one(forks: Forks) -> None:
    assert check_killed("killable_examples:adversarial_rounds", kills=2, forks=forks) >= 1
