"""By meaning: past cases and the check on_topic, with a tiny encoder and with vectors made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from tiny_bert import save_tiny_bert
from torch import Tensor

from ostinato.checks import Judge, OnTopic, check_prefix_all, from_spec, judge_all, to_spec
from ostinato.errors import InputError, ModelError
from ostinato.models import Encoder
from ostinato.refine.job.checks import prepare
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import read_items
from ostinato.refine.job.job_run import refinement
from ostinato.refine.routing.cases import (
    Case,
    CasesByBoth,
    CasesByMeaning,
    CaseSettings,
    PastCases,
    read_cases,
)

CASES = [
    Case("When do you open?", "At ten."),
    Case("Where is my parcel?", "On its way."),
    Case("Can I pay by card?", "Yes."),
]
MEANINGS = {
    "When do you open?": (1.0, 0.0),
    "Where is my parcel?": (0.0, 1.0),
    "Can I pay by card?": (-0.6, -0.8),
    "From what time on can I come?": (0.8, 0.6),
    "Where do you open?": (0.6, 0.8),
}


class MadeUp:
    """Knows the meaning of a few texts; keeps the texts that it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def vectors(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        return torch.tensor([MEANINGS[text] for text in texts])


def made_up() -> Encoder:
    return cast(Encoder, MadeUp())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_bert(tmp_path / "bert")


def test_what_means_the_same_is_near_also_without_a_word_in_common() -> None:
    question = "From what time on can I come?"
    near = CasesByMeaning(CASES, made_up()).nearest(question, 3)
    assert [one.case.answer for one in near] == ["At ten.", "On its way."]
    assert [one.similarity for one in near] == pytest.approx([0.8, 0.6])
    assert PastCases(CASES).nearest(question, 1)[0].case.answer == "Yes."


def test_by_both_is_the_mean_of_words_and_meaning() -> None:
    question = "Where do you open?"
    by_words, said = PastCases(CASES), ["where", "do", "you", "open"]
    words = {case: by_words.similarity_to(said, n) for n, case in enumerate(CASES)}
    meaning = dict(zip(CASES, CasesByMeaning(CASES, made_up()).similarities(question), strict=True))
    near = CasesByBoth(CASES, made_up()).nearest(question, 2)
    assert near[0].case == CASES[0] and meaning[CASES[0]] < meaning[CASES[1]]
    for one in near:
        assert one.similarity == pytest.approx((words[one.case] + meaning[one.case]) / 2)


def test_cases_without_a_word_are_near_to_nothing_by_words() -> None:
    cases = PastCases([Case("?!", "What?"), Case("♫", "Music.")])
    assert cases.nearest("Where is it?", 3) == [] == cases.nearest("?!", 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "", "answer": "b"}', "got ''. Fix it there."),
        ('{"question": 3, "answer": "b"}', "got 3. Fix it there."),
        ('{"questoin": "a", "answer": "b"}', "got None. Did you mean 'questoin'? Fix it there."),
    ],
)
def test_a_wrong_case_is_reported_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(row + "\n")
    with pytest.raises(InputError) as error:
        read_cases(CaseSettings(file=file, column="message"))
    assert str(error.value).startswith("cases.jsonl, line 1: the column 'question'")
    assert str(error.value).endswith(message)


def test_past_cases_are_computed_once() -> None:
    encoder = made_up()
    cases = CasesByMeaning(CASES, encoder)
    for _ in range(3):
        cases.nearest("Where do you open?", 1)
    assert len(cast(MadeUp, encoder).texts) == len(CASES) + 3


def test_likeness_is_a_share_and_one_for_the_same_text(folder: Path) -> None:
    texts = ["A table for two", "san jose", "what is the weather?", ""]
    cases = CasesByMeaning([Case(text, "x") for text in texts], Encoder.load(folder))
    for n, text in enumerate(texts):
        similarities = cases.similarities(text)
        assert all(0 <= one <= 1 for one in similarities)
        assert similarities[n] == pytest.approx(1, abs=1e-6)


JOB = """
input = "items.jsonl"
model = "smollm2"
[prompt]
template = "{message}"
[[check]]
kind = "on_topic"
min = 0.4
model = "bert"
[cases]
file = "cases.jsonl"
column = "message"
"""


def job(folder: Path, more: str) -> Path:
    (folder / "items.jsonl").write_text('{"message": "Hi"}\n')
    (folder / "cases.jsonl").write_text('{"question": "a table", "answer": "b"}\n')
    path = folder / "job.toml"
    path.write_text(JOB + more)
    return path


def test_a_job_says_by_what_cases_are_compared(folder: Path) -> None:
    read = read_job(job(folder.parent, 'by = "meaning"\nencoder = "bert"\n'))
    assert read.cases is not None and read.cases.by == "meaning"
    assert read.cases.encoder == str(folder.resolve())
    cases = read_cases(read.cases)
    assert isinstance(cases, CasesByMeaning)
    assert cases.nearest("a table", 1)[0].similarity == pytest.approx(1, abs=1e-6)
    assert isinstance(read_cases(CaseSettings(file=read.cases.file, column="message")), PastCases)
    with pytest.raises(InputError, match="It must be one of words, meaning, both, got 'menaing'"):
        read_job(job(folder.parent, 'by = "menaing"\n'))


def test_a_check_s_model_lies_beside_the_job_or_is_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    asks = '[[check]]\nkind = "judge"\nquestion = "So? {output}"\nmodel = "%s"\n'
    read = read_job(job(folder.parent, asks % "smollm2"))
    near, judge = read.checks
    assert isinstance(near, OnTopic) and near.model == str(folder.resolve())
    assert isinstance(judge, Judge) and judge.model == "smollm2"
    prepare([near])
    for name in ("org/name", "http://127.0.0.1:9/v1#m"):
        read = read_job(job(folder.parent, asks % name))
        assert isinstance(read.checks[1], Judge) and read.checks[1].model == name
    with pytest.raises(InputError, match=r"line 16, check\.2\.model: It must be smollm2, or a fol"):
        read_job(job(folder.parent, asks % "smolm"))
    with pytest.raises(InputError, match=r"line 9, check\.1\.model: It must be minilm, or"):
        read_job(job(folder.parent, "").rename(folder / "job.toml"))


def test_a_check_s_model_stays_in_the_job_s_folder(folder: Path) -> None:
    asks = '[[check]]\nkind = "judge"\nquestion = "So? {output}"\nmodel = "%s"\n'
    near = '[[check]]\nkind = "on_topic"\nname = "far"\nmodel = "%s"\n'
    inner = folder.parent / "inner"
    inner.mkdir()
    (inner / "linked").symlink_to(folder)
    for table in (asks, near):
        for name in (f"../{folder.name}", str(folder), "linked", "~/models/some"):
            path = job(inner, table % name)
            path.write_text(path.read_text().replace('model = "bert"', 'model = "minilm"'))
            with pytest.raises(InputError, match=r"check\.2\.model: It must be a name or lie in"):
                read_job(path)


def test_a_check_that_cannot_judge_ends_a_job_before_anything_is_written(folder: Path) -> None:
    (folder / "config.json").unlink()
    read = read_job(job(folder.parent, ""))
    with pytest.raises(InputError, match=r"The check 'on_topic' cannot judge: .*config\.json must"):
        refinement(read, read_items(read), read.router())


def test_a_missing_encoder_is_reported_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTINATO_CACHE", str(folder))
    read = read_job(job(folder.parent, 'by = "both"\n'))
    with pytest.raises(ModelError, match="Run: ostinato models get minilm"):
        read.router()


def test_a_reply_off_the_topic_is_reported_with_its_similarity(folder: Path) -> None:
    check = OnTopic(min=0.5, model=str(folder))
    item = {"message": "a table for two"}
    assert check.judge("a table for two", item).passed
    likeness = Encoder.load(folder).similarity("rain", "a table for two")
    verdict = OnTopic(min=min(1.0, likeness + 0.01), model=str(folder)).judge("rain", item)
    assert not verdict.passed and verdict.score == pytest.approx(max(0.0, likeness))
    assert f"the similarity to 'message' is {likeness:.2f}" in verdict.message
    assert check_prefix_all([check], "rain", item) is None  # a prefix may still turn to the topic


def test_of_many_texts_the_nearest_counts_and_of_none_all_passes(folder: Path) -> None:
    check = OnTopic(column="asked", min=0.99, model=str(folder))
    for empty in ("", " \n"):
        verdict = OnTopic(column="asked", min=-1, model=str(folder)).judge(empty, {"asked": "rain"})
        assert not verdict.passed and verdict.message == "Answer what was asked: the text is empty."
    assert check.judge("rain", {"asked": ["a table", "rain"]}).passed
    assert check.judge("rain", {"asked": []}).passed
    assert check.columns == ("asked",)


def test_a_table_builds_the_check_and_back(folder: Path) -> None:
    check = from_spec("on_topic", {"min": 0.4, "column": "asked"})
    assert check == OnTopic(min=0.4, column="asked")
    assert to_spec(check) == {"kind": "on_topic", "min": 0.4, "column": "asked"}
    with pytest.raises(InputError, match=r"'min' of the check 'on_topic' must be in \[-1, 1\]"):
        OnTopic(min=2)


def test_without_its_encoder_the_check_reports_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path))
    (verdict,) = judge_all([OnTopic()], "some reply", {"message": "hi"})
    assert not verdict.passed and "ostinato models get minilm" in verdict.error
