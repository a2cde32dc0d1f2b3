"""The grammar example: what grows from the grammar is parsed by it, with all its trees."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.flow import flow_of
from ostinato.journal import Journal

FOLDER = Path(__file__).parents[1] / "examples" / "grammar"
PROGRAM = FOLDER / "grammar.py"
SENTENCE: Any = flow_of(PROGRAM, "sentence")
PARSE: Any = flow_of(PROGRAM, "parse")
RULES: ModuleType = sys.modules["rules"]
ENGLISH = RULES.read_grammar(FOLDER / "english.txt")


def count(grammar: Any, words: list[str]) -> int:
    """Count the trees of a sentence: over all places where its parts may meet."""

    @cache
    def of(symbol: str, start: int, end: int) -> int:
        if symbol in grammar.words:
            return int(end == start + 1 and words[start] in grammar.words[symbol])
        if symbol not in grammar.rules:
            return int(words[start:end] == [symbol])
        return sum(several(tuple(parts), start, end) for parts in grammar.rules[symbol])

    @cache
    def several(parts: tuple[str, ...], start: int, end: int) -> int:
        if len(parts) == 1:
            return of(parts[0], start, end)
        middles = range(start + 1, end)
        return sum(of(parts[0], start, m) * several(parts[1:], m, end) for m in middles)

    return of(grammar.start, 0, len(words))


def words_of(told: str) -> list[str]:
    return told.partition(".")[0].lower().split()


def test_sentences_grow_and_all_their_trees_are_found() -> None:
    rows = [{"id": str(number), "levels": 4 + number % 9} for number in range(60)]
    texts = dict(SENTENCE.over(rows))
    trees = {key: ENGLISH.trees(words_of(text)) for key, text in texts.items()}
    for key, found in trees.items():
        words = words_of(texts[key])
        assert len(found) == count(ENGLISH, words) >= 1
        assert all(tree.words == words for tree in found)
        assert len({tree.drawn() for tree in found}) == len(found)
        assert any(texts[key].endswith("\n\n" + tree.drawn()) for tree in found)
    assert len(set(texts.values())) > 50
    assert max(map(len, trees.values())) >= 3  # some can be read in several ways


def test_a_tree_has_no_more_levels_than_asked_where_the_grammar_allows() -> None:
    texts = dict(SENTENCE.over([{"id": str(number), "levels": 6} for number in range(20)]))
    indents = [line.rfind("─ ") // 3 + 1 for text in texts.values() for line in text.split("\n")]
    assert max(indents) + 1 <= 6  # the root stands at no indent


def test_a_sentence_with_two_meanings_has_two_trees() -> None:
    told = PARSE("The dog sees a cat with this telescope.")
    assert told.startswith("The dog sees a cat with this telescope.\nThe grammar has 2 trees")
    assert "      └─ Nom\n         ├─ Noun cat\n         └─ PP\n" in told  # the cat has it
    assert "   │  └─ Nom\n   │     └─ Noun cat\n   └─ PP\n" in told  # the dog has it


def test_what_is_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="which does not know purple, got: the purple dog"):
        PARSE("the purple dog sees a cat")
    with pytest.raises(ValueError, match="which has no tree for them, got: dog the sees"):
        PARSE("dog the sees")


def test_a_recorded_sentence_is_not_grown_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        first = SENTENCE.run(run="a", journal=journal)
        calls = [call.path for call in journal.get("a").calls()]
        assert SENTENCE.run(run="a", journal=journal) == first
        assert [call.path for call in journal.get("a").calls()] == calls
        assert SENTENCE.run(run="b", journal=journal, seed=1) != first
    # A call for each symbol, nested as the tree is.
    lines = first.partition("\n\n")[2].split("\n")
    assert len([path for path in calls if path.endswith("grow")]) == len(lines)


def test_a_model_chooses_words_of_the_grammar_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        told = SENTENCE.run(words="model", run="a", journal=journal, model=tiny_model())
        texts = [call.path for call in journal.get("a").calls() if call.path.endswith("generate")]
    assert len(ENGLISH.trees(words_of(told))) >= 1
    assert len(texts) == len([word for word in words_of(told) if word != "that"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S -> S Noun\nS -> Noun\nNoun : dog", "S in g.txt must not begin with itself"),
        ("S -> A b\nA -> S c\nA -> d\n", "S in g.txt must not begin with itself"),
        ("S -> a S", "S in g.txt must have an alternative that ends"),
        ("S -> a\n\nNP VP", "g.txt, line 3 must be 'SYMBOL -> PART"),
        ("S ->", "g.txt, line 1 must be"),
        ("# nothing", "g.txt must have a rule"),
    ],
)
def test_a_wrong_grammar_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        RULES.read_grammar(tmp_path / "g.txt")


def test_the_command_prints_a_tree_and_names_what_is_wrong(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ostinato", "flow", "run", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    told = run(f"{PROGRAM}:sentence", "--seed", "3")
    assert told.returncode == 0, told.stderr
    assert "\n\nS\n├─ NP\n" in told.stdout
    assert told.stdout.strip() in (FOLDER / "README.md").read_text("utf-8")
    wrong = run(f"{PROGRAM}:parse", "a dog barks")
    assert wrong.returncode == 1
    assert wrong.stderr.count("File ") == 1  # the flow's own line, none of Ostinato's
    assert "ValueError: The words must be a sentence" in wrong.stderr
    assert "To resume: ostinato runs resume parse-" in wrong.stderr
