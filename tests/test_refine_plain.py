"""Jobs on models without a chat template, and runs that got no further than their name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny, tiny_model

from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.refine import Refine
from ostinato.refine.prompts import PlainPrompt

JOB = """\
input = "messages.jsonl"
model = "mine"

[prompt]
template = "{message}"
plain = true

[[check]]
kind = "length"
min = 1

[sampling]
max_new_tokens = 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "mine")
    names = tmp_path / "mine" / "tokenizer_config.json"
    names.write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (tmp_path / "messages.jsonl").write_text('{"message": "We can"}\n{"message": "The room"}\n')
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def run(*words: str) -> Result:
    result = CliRunner().invoke(refine, ["job.toml", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_model_without_a_chat_template_continues_plain_texts(folder: Path) -> None:
    result = run()
    assert "2 of 2" in result.output
    with pytest.raises(InputError, match=r"plain = true in a job's \[prompt\]"):
        (folder / "job.toml").write_text(JOB.replace("plain = true\n", ""))
        run("--fresh")


def test_a_chat_model_continues_a_plain_text_as_it_is() -> None:
    model = tiny_model()

    def tokens(kind: type[str]) -> list[int]:
        def prompt(row: Mapping[str, object], edits: Mapping[str, object]) -> str:
            return kind(row["message"])

        job = Refine(model, [{"message": "We can"}], prompt=prompt, checks=[lambda output: True])
        return list(job._token_prompt({"message": "We can"}, {}).tokens)

    assert tokens(PlainPrompt) == [*model.tokenizer.bos_ids, *model.tokenizer.encode("We can")]
    assert len(tokens(str)) > len(tokens(PlainPrompt))


def test_a_job_may_change_until_its_run_has_done_something(folder: Path) -> None:
    tokenizer = folder / "mine" / "tokenizer.json"
    whole = tokenizer.read_text()
    tokenizer.write_text("{")
    with pytest.raises(Exception, match="tokenizer"):
        run()
    tokenizer.write_text(whole)
    (folder / "job.toml").write_text(JOB.replace("min = 1", "min = 2"))
    run()
    with Journal() as journal:
        assert [found.tick > 0 for found in journal.runs()] == [True]
    (folder / "job.toml").write_text(JOB)
    with pytest.raises(InputError, match="must be unchanged since its run"):
        run()
