"""Schema-Guided Dialogue data as chats in which system messages hold the assistant's record.

FOLDER (`--data FOLDER` in recipes and benchmarks) holds `train.jsonl` and `dev.jsonl`. Each line
is one dialogue:

    {"id": ..., "services": [...], "turns": [["user", text], ["assistant", text, facts], ...]}

`facts` is the database record that the assistant had when it spoke. The data are published
at github.com/google-research-datasets/dstc8-schema-guided-dialogue (CC BY-SA 4.0; Rastogi et al.,
"Towards Scalable Multi-domain Conversational Agents", AAAI 2020): take each turn's `utterance`,
and draw `facts` from the system frames' `actions` (slots with their values; `found` from
INFORM_COUNT, `request` "done" or "failed" from NOTIFY_SUCCESS and NOTIFY_FAILURE) and
`service_results`. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ostinato.errors import InputError

SYSTEM = (
    "You are a booking assistant. Answer in one or two short sentences, "
    "and use only facts from the record and the conversation."
)

Dialogue = Mapping[str, Any]


def dialogue_messages(dialogue: Dialogue, upto: int | None = None) -> list[dict[str, str]]:
    """Return the dialogue as chat messages: system prompt, turns, and records where they changed.

    A record message precedes an assistant's turn and holds only the fields that are new or have
    changed. `upto` is the index of an assistant's turn: the messages end just before it, with its
    record last if that has changed.
    """
    turns: Sequence[Sequence[Any]] = dialogue["turns"]
    messages = [{"role": "system", "content": SYSTEM}]
    shown: dict[str, str] = {}
    for index, (role, text, *facts) in enumerate(turns):
        if facts:
            news = {name: value for name, value in facts[0].items() if shown.get(name) != value}
            shown.update(news)
            if news:
                messages.append({"role": "system", "content": record_text(news)})
        if index == upto:
            break
        messages.append({"role": role, "content": text})
    return messages


def record_text(fields: Mapping[str, str]) -> str:
    """Return the content of a record message: a line for each field."""
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in fields.items()]
    return "\n".join(["Record:", *lines])


def read_dialogues(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the dialogues of a JSONL file. Raises `InputError` where there is none."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} must exist, got no such file. Give the folder of train.jsonl and dev.jsonl; "
            "recipes/sgd.py says how to make them from the published data."
        )
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
