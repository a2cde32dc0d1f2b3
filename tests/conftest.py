"""What several test files share: a tiny model that is served, and a client that asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import openai

    from ostinato.server import Scheduler

# Nothing is timed and no self-test is remembered: both would depend on earlier runs.
os.environ["OSTINATO_FACTS"] = "off"
# The 200 ms of Hypothesis for an example are missed on a machine that does other work.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[int, Scheduler]]:
    from served import serving  # brings torch, which most files do without

    with serving(slots=4, max_waiting=8) as made:
        yield made


@pytest.fixture
def client(place: tuple[int, Scheduler]) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{place[0]}/v1", api_key="none", max_retries=0
    ) as made:
        yield made
