"""Checks from a job file's tables: built, refused with a fix, written back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostinato.checks import KINDS, Contains, Function, Length, check, from_spec, parameters, to_spec
from ostinato.errors import InputError


def test_a_table_builds_a_check_and_is_written_back() -> None:
    table = {"kind": "length", "max": 40, "unit": "words"}
    built = from_spec("", table)
    assert built == Length(max=40)
    assert to_spec(built) == {"kind": "length", "max": 40}
    assert from_spec("length", {"max": 40}) == built
    named = from_spec("contains", {"texts": "hello", "name": "greeting"})
    assert named == Contains(texts=("hello",), name="greeting")
    assert from_spec("", to_spec(named)) == named


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        ("lenght", {}, "got 'lenght'. Did you mean 'length'?"),
        ("", {"max": 3}, "'kind' of a check must be one of"),
        ("length", {"maxx": 3}, "got 'maxx'. Did you mean 'max'?"),
        ("length", {"max": "3"}, "'max' of the check 'length' must be a whole number, got '3'"),
        ("length", {"max": True}, "must be a whole number, got True"),
        ("length", {"min": 3, "max": 2}, r"must be at most max \(2\), got 3"),
        ("length", {"max": 3, "unit": "word"}, "got 'word'. Did you mean 'words'?"),
        ("contains", {"texts": [1]}, "must be a list of texts"),
        ("contains", {"texts": ["a"], "case": "yes"}, "must be a bool, got 'yes'"),
        ("excludes", {"patterns": ["("]}, "must be a regular expression"),
        ("regex", {}, "'regex' must have 'pattern', got none"),
        ("python", {}, "must have 'call'"),
        ("python", {"call": "checks.polite"}, "must be 'module:name'"),
        ("python", {"call": "no_such_module:polite"}, "got 'no_such_module'"),
        ("python", {"call": "json:dumpz"}, "Did you mean 'dump"),
    ],
)
def test_a_wrong_table_is_refused_with_the_fix(
    kind: str, table: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        from_spec(kind, table)
    assert refused.value.key in ("", "kind", *table)


def test_a_python_check_is_imported_from_the_jobs_folder(tmp_path: Path) -> None:
    (tmp_path / "polite.py").write_text(
        "from ostinato.checks import check\n"
        "def short(text): return len(text) < 5\n"
        "@check(threshold=0.9)\n"
        "def score(text, item): return item['score']\n"
    )
    short = from_spec("python", {"call": "polite:short"}, tmp_path)
    assert short.judge("abc", {}).passed
    assert not short.judge("abcdef", {}).passed
    assert to_spec(short) == {"kind": "python", "call": "polite:short", "name": "short"}
    score = from_spec("python", {"call": "polite:score", "name": "score"}, tmp_path)
    assert not score.judge("x", {"score": 0.8}).passed
    lower = from_spec("python", {"call": "polite:score", "threshold": 0.5}, tmp_path)
    assert lower.judge("x", {"score": 0.8}).passed


def test_a_module_that_does_not_import_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1/0\n")
    with pytest.raises(InputError, match=r"ZeroDivisionError: division by zero in broken.py"):
        from_spec("python", {"call": "broken:x"}, tmp_path)


def test_every_kind_has_its_parameters() -> None:
    for kind, cls in KINDS.items():
        assert cls.kind == kind
        assert "name" in parameters(kind)


def test_a_function_of_a_program_is_named_in_its_table() -> None:
    @check
    def polite(text: str) -> bool:
        return "please" in text

    assert isinstance(polite, Function)
    assert polite("please") is True
    assert str(to_spec(polite)["call"]).endswith("polite")


def test_an_error_of_a_table_has_its_key() -> None:
    tables: list[tuple[dict[str, object], str]] = [
        ({"kind": "lenght"}, "kind"),
        ({}, "kind"),
        ({"kind": "length", "maxx": 3}, "maxx"),
        ({"kind": "length", "max": "3"}, "max"),
        ({"kind": "length", "max": -1}, "max"),
        ({"kind": "regex", "pattern": "("}, "pattern"),
        ({"kind": "blocked", "file": "none.txt"}, "file"),
    ]
    for table, key in tables:
        with pytest.raises(InputError) as refused:
            from_spec("", table)
        assert refused.value.key == key
