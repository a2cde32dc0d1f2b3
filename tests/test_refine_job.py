"""A job file is read whole, and everything wrong with it is told with its place."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from ostinato.errors import InputError
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import item_facts, read_items
from ostinato.refine.job.settings import JobSettings, changed_sections
from ostinato.refine.prompts import PlainPrompt
from ostinato.refine.settings import changed_settings, told

SMALL = """\
input = "messages.jsonl"
model = "smollm2"

[prompt]
template = "{message}"

[[check]]
kind = "length"
max = 20
"""


def write(folder: Path, text: str = SMALL, rows: str = '{"message": "Hello"}\n') -> Path:
    (folder / "messages.jsonl").write_text(rows, encoding="utf-8")
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read_job(write(folder, text))
    return str(caught.value)


def test_a_small_job_has_sensible_defaults(tmp_path: Path) -> None:
    job = read_job(write(tmp_path))
    assert job.output == tmp_path / "job.replies.jsonl"
    assert job.report == tmp_path / "job.replies.report.html"
    assert (job.strategy.kind, job.slots, job.keep, job.seed) == ("backtrack", 16, "results", 0)
    assert [check.name for check in job.checks] == ["length"]
    assert job.needed_columns() == {"message": "the prompt"}


def test_an_empty_text_is_told_as_empty(tmp_path: Path) -> None:
    told = refused(tmp_path, SMALL.replace('"smollm2"', '" "'))
    assert "model: It must not be empty, got ' '." in told and "quotes" not in told


def test_the_new_job_can_be_read(tmp_path: Path) -> None:
    text = (files("ostinato.refine.report.page") / "new_job.toml").read_text(encoding="utf-8")
    job = read_job(write(tmp_path, text))
    assert [rule.name for rule in job.rules] == ["thanks"]
    assert len(job.checks) == 2
    assert read_items(job)[0].columns == {"message": "Hello"}


def test_what_the_new_job_has_in_comments_can_be_read_too(tmp_path: Path) -> None:
    text = (files("ostinato.refine.report.page") / "new_job.toml").read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        body = line.removeprefix("# ")
        is_key = body.split(" ")[0] in (
            "[cases]",
            "file",
            "column",
            "answer_above",
            "example_above",
            "examples",
            "job_seconds",
        )
        lines.append(body if is_key else line)
    (tmp_path / "cases.jsonl").write_text('{"question": "Hi", "answer": "Hello"}\n', "utf-8")
    job = read_job(write(tmp_path, "\n".join(lines)))
    assert job.cases is not None and job.cases.answer_above == 0.9
    assert job.budgets.job_seconds == 600


def test_a_misspelled_key_is_an_error_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    told = refused(tmp_path, SMALL + "\n[sampling]\ntemperatur = 0.5\n")
    assert "job.toml, line 12, sampling.temperatur:" in told
    assert "Did you mean 'temperature'?" in told


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    told = refused(
        tmp_path,
        'imput = "a.jsonl"\nmodel = 3\n[prompt]\ntemplate = "{message"\n'
        '[[check]]\nkind = "lenght"\n[[check]]\nkind = "length"\nmin = 9\nmax = 3\n',
    )
    assert "has 6 problems" in told
    assert "imput: This key is not known. Did you mean 'input'?" in told
    assert "input: It is missing." in told
    assert "line 2, model: It must be a text, got 3." in told
    assert "line 4, prompt.template" in told and "brace" in told
    assert "line 6, check.1.kind" in told and "Did you mean 'length'?" in told
    assert "line 9, check.2.min" in told and "at most max (3)" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('id = "x"\nseed = "one"', "seed: It must be a whole number"),
        ("slots = 0", "slots: It must be a whole number of 1 or more, got 0"),
        ('keep = "all"', "keep: It must be one of results, steps"),
        ('output = "../out.jsonl"', "output: It must lie in the job's folder"),
        ('output = "/tmp/out.jsonl"', "output: It must lie in the job's folder"),
        ('adapter = "/etc/adapter"', "adapter: It must be a name or lie in the job's folder"),
        ('adapter = "not/there"', "adapter: The folder must exist"),
        ('adapter = "suport"', "Did you mean 'support'?"),
        ('output = "messages.jsonl"', "output: It must be another file than the input"),
        ('output = "job.toml"', "output: It must be another file than the job file"),
        ("seed = -1", "seed: It must be a whole number of 0 or more, got -1"),
    ],
)
def test_a_wrong_value_is_an_error(tmp_path: Path, more: str, told: str) -> None:
    assert told in refused(tmp_path, more + "\n" + SMALL)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smolm2", "model: It must be smollm2, .* got 'smolm2'. Did you mean 'smollm2'?"),
        ("minilm", "model: It must be smollm2, or a folder beside the job file, got 'minilm'"),
        ("smollm2+suport", "got 'suport'. Did you mean 'support'?"),
        ("models\\\\mine", "model: The folder must exist"),
    ],
)
def test_a_misspelled_model_is_an_error_with_its_line(tmp_path: Path, name: str, told: str) -> None:
    assert re.search(f"line [0-9]+, .*{told}", refused(tmp_path, SMALL.replace("smollm2", name)))


def test_models_of_the_package_and_of_the_hub_are_taken(tmp_path: Path) -> None:
    for name in ("smollm2+support", "HuggingFaceTB/SmolLM2-135M"):
        assert read_job(write(tmp_path, SMALL.replace("smollm2", name))).model == name


def test_a_plain_prompt_is_a_text_without_a_template(tmp_path: Path) -> None:
    plain = SMALL.replace("[prompt]", "[prompt]\nplain = true")
    job = read_job(write(tmp_path, plain))
    (item, *_) = read_items(job)
    told = job.router().messages(item.columns, {})
    assert isinstance(told, PlainPrompt) and str(item.columns["message"]) in told
    chat = read_job(write(tmp_path, SMALL))
    before, now = (item_facts(one.router(), item) for one in (chat, job))
    assert before.digest != now.digest
    with pytest.raises(InputError, match=r"plain must be false with the strategy 'feedback'"):
        job.with_changes(strategy="feedback")
    assert "must have only a template" in refused(
        tmp_path, plain.replace("plain = true", 'plain = true\nsystem = "Be kind."')
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[sampling]\ntop_p = 1.5", "sampling.top_p: It must be a number in (0, 1], got 1.5"),
        ("[sampling]\ntemperature = nan", "sampling.temperature: It must be a number from 0 to"),
        ("[sampling]\ntemperature = true", "sampling.temperature: It must be a number from 0 to"),
        ("[sampling]\nrepetition_penalty = inf", "sampling.repetition_penalty: It must be a num"),
        ("[sampling]\nend_bias = inf", "sampling.end_bias: It must be a number from 0 to 1000000"),
        (
            "[sampling]\ntop_k = 2.0",
            "sampling.top_k: It must be a whole number from 0",
        ),
        ('[strategy]\nkind = "backtrak"', "strategy.kind: It must be one of"),
        ("[strategy]\nrounds = 0", "rounds"),
        ("[strategy]\npatiense = 2", "Did you mean 'patience'?"),
        ("[budget]\nitem_tokens = 9\njob_tokens = 5", "budget.item_tokens: It must be at most"),
        ('[[rule]]\ncolumn = "message"\npattern = "("\nreply = "x"', "line 13, rule.1.pattern"),
        ('[[rule]]\ncolumn = "message"\npattern = "a"', "must have a reply or a prompt"),
        ('[cases]\nfile = "cases.jsonl"\ncolumn = "message"', "The file must exist"),
        ('[[check]]\nkind = "length"\nmin = 1', "The names of checks must be unique"),
        ('[[check]]\nkind = "excludes"\nname = "x"\npatterns = ["("]', "check.2"),
    ],
)
def test_a_wrong_section_is_an_error(tmp_path: Path, more: str, told: str) -> None:
    assert told in refused(tmp_path, SMALL + "\n" + more + "\n")


def test_broken_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    assert "at line 2" in refused(tmp_path, 'input = "messages.jsonl"\nmodel = = 3\n')


def test_the_error_for_a_missing_job_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ostinato refine --new job\.toml"):
        read_job(tmp_path / "job.toml")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = write(inner)
    (tmp_path / "secret.jsonl").write_text("{}\n", encoding="utf-8")
    (inner / "messages.jsonl").unlink()
    (inner / "messages.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InputError, match="must lie in the job's folder"):
        read_job(path)


def test_an_output_of_the_command_line_must_not_be_a_file_that_the_job_reads(
    tmp_path: Path,
) -> None:
    path = write(tmp_path)
    for name, what in (("messages.jsonl", "the input"), (path.name, "the job file")):
        with pytest.raises(InputError, match=f"--output must be another file than {what}"):
            read_job(path, output=tmp_path / name)
    with pytest.raises(InputError, match="--output must be a file, got the folder"):
        read_job(path, output=tmp_path)


def test_an_output_of_the_command_line_may_be_anywhere(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    job = read_job(write(inner), output=tmp_path / "else.jsonl")
    assert job.output == tmp_path / "else.jsonl"
    assert job.report == tmp_path / "else.report.html"


def settings_of(folder: Path, text: str = SMALL) -> JobSettings:
    return JobSettings.of(read_job(write(folder, text)))


def changed(before: JobSettings, now: JobSettings, folder: Path) -> list[str]:
    return [told(each) for each in changed_settings(before, now, folder)]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("max = 20", "max = 21", ["checks.length.max was 20, is 21"]),
        ('output = "o.jsonl"', 'output = "p.jsonl"\nslots = 3\nkeep = "steps"', []),
        ("seed = 1", "seed = 2", ["seed was 1, is 2"]),
        ("temperature = 0.7", "temperature = 0.9", ["sampling.temperature was 0.7, is 0.9"]),
        ("max_new_tokens = 9", "", ["sampling.max_new_tokens was 9, is 128"]),
        ("item_tokens = 50", "", ["budget.item_tokens was 50, is none"]),
        ("rounds = 3", "rounds = 4", ["strategy.rounds was 3, is 4"]),
        ('kind = "resample"', 'kind = "abort"', ["strategy.kind was resample, is abort"]),
        ('model = "smollm2"', 'model = "smollm2"\nbits = 8', ["bits was none, is 8"]),
        ('kind = "length"', 'name = "short"\nkind = "length"', None),
    ],
)
def test_settings_are_told_as_the_file_spells_them(
    tmp_path: Path, old: str, new: str, sentence: list[str] | None
) -> None:
    text = 'output = "o.jsonl"\nseed = 1\n' + SMALL
    text += '[strategy]\nkind = "resample"\nrounds = 3\n[budget]\nitem_tokens = 50\n'
    text += "[sampling]\ntemperature = 0.7\nmax_new_tokens = 9\n"
    found = changed(
        settings_of(tmp_path, text), settings_of(tmp_path, text.replace(old, new)), tmp_path
    )
    if sentence is None:  # another check under another name
        sentence = [
            "checks.length was {'kind': 'length', 'max': 20}, is none",
            "checks.short was none, is {'kind': 'length', 'max': 20}",
        ]
    assert found == sentence


def test_an_option_that_a_strategy_gets_later_has_its_default(tmp_path: Path) -> None:
    now = settings_of(tmp_path)
    older = {key: value for key, value in now.strategy.items() if key != "rounds"}
    assert not changed(replace(now, strategy=older), now, tmp_path)
    assert changed(replace(now, strategy={**older, "rounds": 3}), now, tmp_path)


def test_a_long_list_of_words_is_recorded_as_a_hash(tmp_path: Path) -> None:
    def blocking(word: str) -> JobSettings:
        (tmp_path / "words.txt").write_text("\n".join([word, *map(str, range(1000, 2000))]))
        return settings_of(tmp_path, SMALL + '[[check]]\nkind = "blocked"\nfile = "words.txt"\n')

    before, now = blocking("one"), blocking("two")
    assert len(str(before.checks)) < 200
    assert changed(before, now, tmp_path) == ["checks.blocked.words"]


def test_a_functions_text_is_part_of_its_check(tmp_path: Path) -> None:
    text = SMALL + '[[check]]\nkind = "python"\ncall = "mine:calm"\n'
    seen = []
    for mark in ("!", "?"):
        folder = tmp_path / str(ord(mark))
        folder.mkdir()
        code = f"def calm(text):\n    return {mark!r} not in text\n"
        (folder / "mine.py").write_text(code, encoding="utf-8")
        seen.append(settings_of(folder, text))
    assert changed(seen[0], seen[1], tmp_path) == ["checks.calm.source"]


def test_a_job_is_named_after_its_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "support"
    folder.mkdir()
    path = write(folder)
    assert read_job(path).name == "support"
    assert read_job(path.rename(folder / "mail.toml")).name == "mail"


def test_weights_in_the_jobs_folder_are_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    job = read_job(write(tmp_path, 'adapter = "mine"\n' + SMALL.replace("smollm2", "mine")))
    assert job.model == job.adapter == str(tmp_path / "mine")


def test_the_weights_of_a_folder_are_part_of_a_job_and_unknown_to_older_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").mkdir()
    jobs, seen = [], []
    for weights in (b"one", b"two"):
        (tmp_path / "mine/model.safetensors").write_bytes(weights)
        jobs.append(read_job(write(tmp_path, SMALL.replace("smollm2", "mine"))))
        seen.append((JobSettings.of(jobs[-1]), jobs[-1].sections()))
    (then, hashes), (now, _) = seen
    assert changed(then, now, tmp_path) == ["the model's files"]
    assert not changed(replace(then, weights=""), now, tmp_path)
    # Runs of older versions recorded hashes of sections.
    assert [each.field for each in changed_sections(hashes, jobs[1])] == ["weights"]
    assert not changed_sections({n: h for n, h in hashes.items() if n != "weights"}, jobs[1])


def test_how_a_model_computes_is_part_of_a_job(tmp_path: Path) -> None:
    plain = read_job(write(tmp_path))
    job = read_job(write(tmp_path, "compile = true\nbits = 8\n" + SMALL))
    assert (job.compile, job.bits) == (True, 8)
    assert changed(JobSettings.of(plain), JobSettings.of(job), tmp_path) == [
        "compile was False, is True",
        "bits was none, is 8",
    ]
    assert (plain.compile, plain.bits) == (None, None)
    told = refused(tmp_path, "bits = 8\ncompile = false\n" + SMALL)
    assert "line 1, bits: It must be left out with compile = false" in told
    told = refused(tmp_path, "bits = 5\n" + SMALL)
    assert "line 1, bits: It must be 8 or 4, got 5." in told


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ('system = "{a"\ntemplate = "{message}"', "line 5, prompt.system:"),
        ('[[prompt.messages]]\ncontent = "{a"', "line 6, prompt.messages.1.content:"),
    ],
)
def test_a_wrong_brace_is_an_error_at_the_key_of_its_template(
    tmp_path: Path, prompt: str, key: str
) -> None:
    text = SMALL.replace('template = "{message}"', prompt)
    assert text != SMALL
    told = refused(tmp_path, text)
    assert key in told and "brace" in told


def test_a_line_separator_within_a_text_moves_no_line_number(tmp_path: Path) -> None:
    told = refused(tmp_path, '# "a\u2028b"\ndevice = "gpu"\n' + SMALL)
    assert "line 2, device:" in told


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:one", "cuda:-1", "cpu:0", "CUDA", ""])
def test_a_device_has_a_name_that_is_known(tmp_path: Path, name: str) -> None:
    told = refused(tmp_path, f'device = "{name}"\n' + SMALL)
    assert f"line 1, device: It must be cpu, cuda or cuda:N, got '{name}'." in told


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_what_is_compiled_is_for_the_processor(tmp_path: Path, name: str) -> None:
    for way, value in (("compile", "true"), ("bits", 4)):
        told = refused(tmp_path, f'device = "{name}"\n{way} = {value}\n' + SMALL)
        assert f'line 2, {way}: It must be left out with device = "{name}"' in told
    job = read_job(write(tmp_path, f'device = "{name}"\ncompile = false\n' + SMALL))
    assert (job.device, job.compile) == (name, False)


# Checks that stand against each other ------------------------------------------------------------


def checks(*tables: str) -> str:
    """Return a job with these checks: the first begins on line 7."""
    head = SMALL[: SMALL.index("[[check]]")]
    return head + "\n".join(f"[[check]]\n{table}" for table in tables) + "\n"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            'kind = "length"\nmax = 3',
            'kind = "length"\nname = "long"\nmin = 10',
            r"line 13, check\.2\.min: It must be at most check\.1\.max \(line 9\), which is 3",
        ),
        (
            'kind = "length"\nmin = 10',
            'kind = "length"\nname = "short"\nmax = 3',
            r"line 13, check\.2\.max: It must be at least check\.1\.min \(line 9\)",
        ),
        (
            'kind = "contains"\ntexts = ["Foo"]',
            'kind = "excludes"\ntexts = ["bar", "foo"]',
            r'line 12, check\.2\.texts: It must allow "Foo", which check\.1\.texts',
        ),
        (
            'kind = "blocked"\nwords = ["refund*"]',
            'kind = "contains"\ntexts = ["a refund now", "hello"]\nmode = "all"',
            r'line 9, check\.1\.words: It must allow "a refund now", which',
        ),
        (
            'kind = "length"\nunit = "tokens"\nmin = 300',
            'kind = "regex"\npattern = ".*"',
            r"line 10, check\.1\.min: It must be at most sampling\.max_new_tokens, which is 128",
        ),
    ],
)
def test_checks_that_no_text_passes_together_are_refused(
    tmp_path: Path, first: str, second: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        read_job(write(tmp_path, checks(first, second)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('kind = "length"\nmax = 3', 'kind = "length"\nname = "c"\nmin = 10\nunit = "characters"'),
        ('kind = "length"\nmin = 3', 'kind = "length"\nname = "c"\nmax = 3'),
        ('kind = "contains"\ntexts = ["foo", "bar"]', 'kind = "excludes"\ntexts = ["foo"]'),
        ('kind = "contains"\ntexts = ["foo"]\nwhole = false', 'kind = "excludes"\ntexts = ["foo"]'),
        ('kind = "contains"\ntexts = ["foo"]', 'kind = "excludes"\ntexts = ["foo"]\ncase = true'),
        ('kind = "contains"\ntexts = ["foobar"]', 'kind = "excludes"\ntexts = ["foo"]'),
        ('kind = "length"\nunit = "tokens"\nmin = 128', 'kind = "regex"\npattern = ".*"'),
    ],
)
def test_checks_that_some_text_passes_together_are_taken(
    tmp_path: Path, first: str, second: str
) -> None:
    assert len(read_job(write(tmp_path, checks(first, second))).checks) == 2


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('kind = "regex"\npattern = "(a"', r"line 9, check\.1\.pattern: The pattern of"),
        (
            'kind = "contains"\npatterns = ["(a"]',
            r"line 9, check\.1\.patterns: The pattern of",
        ),
        ('kind = "blocked"\nfile = "none.txt"', r"line 9, check\.1\.file: The file of"),
        ('kind = "json_schema"\nfile = "job.toml"', r"line 9, check\.1\.file: .* must be JSON"),
        ('kind = "python"\ncall = "nowhere:f"', r"line 9, check\.1\.call: The module of"),
        ('kind = "python"\ncall = "math:sine"', r"line 9, check\.1\.call: A name in math"),
        ('kind = "python"\ncall = "math:pi"', r"line 9, check\.1\.call: 'function' of"),
    ],
)
def test_an_error_of_a_check_names_its_key(tmp_path: Path, table: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_job(write(tmp_path, checks(table)))


def test_a_strategy_that_is_not_known_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 'bactrack'\. Did you mean 'backtrack'\?"):
        read_job(write(tmp_path)).with_changes(strategy="bactrack")
