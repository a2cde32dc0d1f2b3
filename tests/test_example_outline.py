"""The outline example: one flow grows a text by recursion, with checks at every level."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Faults, serving

from ostinato.checks import judge_all
from ostinato.flow import flow_of
from ostinato.journal import Journal

PROGRAM = Path(__file__).parents[1] / "examples" / "outline" / "outline.py"
NAMES = ("Hives", "Honey", "Plants", "Winter", "Swarms", "Stings", "Queens", "Water")


@pytest.fixture
def section() -> Any:
    return flow_of(PROGRAM)


def paragraph(title: str) -> str:
    return (
        f"{title} come first for us, and {title} need some care. Write down of {title} what "
        f"has changed, and ask about {title} before the winter comes to us."
    )


class Writer:
    """Writes headings that were not given yet, and a paragraph about a heading."""

    def __init__(self, same: int = 0) -> None:
        self.same = same  # so many of the first paragraphs share a sentence
        self.headings = count()

    def __call__(self, body: Mapping[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        if asked.startswith("A chapter of"):
            return f"The {NAMES[next(self.headings) % len(NAMES)]}"
        found = re.search(r'about "(.*?)"', asked)
        assert found is not None
        end = " The very same end of nine words stands here." if self.same else ""
        self.same -= 1 if self.same else 0
        return paragraph(found[1]) + end


def grown(section: Any, writer: Writer, journal: Journal, **arguments: Any) -> tuple[str, int]:
    """Return the text, and how many requests it took."""
    faults = Faults(writes=writer)
    with serving(faults) as url:
        text = section.run("Bees", run="a", journal=journal, model=f"{url}#m", **arguments)
    return text, len(faults.bodies)


def test_a_text_grows_down_to_its_paragraphs(section: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        text, asked = grown(section, Writer(), journal, depth=2, parts=2)
        marks = [len(found) for found in re.findall(r"^(#+) ", text, re.M)]
        assert marks == [1, 2, 3, 3, 2, 3, 3]
        assert len(set(re.findall(r"^#+ .*", text, re.M))) == 7
        assert asked == 6 + 4
        names = [call.path.count("section") for call in journal.get("a").calls()]
        assert max(names) == 2
        assert names.count(1) == 2 * (2 + 1 + 1)  # of each: headings, check, and itself


def test_parts_that_say_the_same_are_written_again(section: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        text, asked = grown(section, Writer(same=2), journal, depth=1, parts=2)
        assert "very same end" not in text
        assert asked == 2 * (2 + 2)
        passed = [
            call.answer["value"][0]["passed"]  # type: ignore[index, call-overload]
            for call in journal.get("a").calls()
            if call.path.endswith(":check")
        ]
        assert passed == [False, True]


def test_the_checks_refuse_what_they_are_for(section: Any) -> None:
    own = section.function.__globals__
    right = {"words": own["words"]("Buying the hives")}
    assert right == {"words": ["Buying", "hives"]}

    def failing(checks: str, text: str) -> set[str]:
        return {each.check for each in judge_all(own[checks], text, right) if not each.passed}

    assert failing("HEADING", "Where to buy bees") == set()
    assert failing("HEADING", "1. Hives") == {"regex"}
    assert failing("HEADING", "Hives") == {"length"}
    assert failing("PARAGRAPH", paragraph("Hives")) == set()
    assert failing("PARAGRAPH", paragraph("Queens")) == {"on its heading"}
    assert "not on itself" in failing("PARAGRAPH", "This section is about hives.")
    assert "whole" in failing("PARAGRAPH", paragraph("Hives")[:-5])
