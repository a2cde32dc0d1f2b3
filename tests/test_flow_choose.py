"""`choose`: a model writes an option and nothing else; the option comes back as it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.flow import choose, flow
from ostinato.journal import Journal

OPTIONS = ["refund", "opening hours ", "C++ (new)", "a|b", "x.y*"]


@pytest.mark.parametrize("left_out", range(len(OPTIONS)))
def test_a_model_writes_no_more_than_the_option(tmp_path: Path, left_out: int) -> None:
    options = [option for number, option in enumerate(OPTIONS) if number != left_out]

    @flow
    def chosen(question: str) -> str:
        return choose(question, options)

    with Journal(tmp_path / "journal.db") as journal:
        option = chosen.run("Which?", run="a", journal=journal, model=tiny_model())
        (call,) = journal.get("a").calls()
        answer: Any = call.answer
    assert option in options
    # As many tokens as it has letters, and one that ends it.
    assert answer["spent"]["tokens"] <= len(option.strip()) + 1
