"""A flow with every structure in it, as a loop that runs in a process until it is killed."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from ostinato.checks import Contains, Length
from ostinato.flow import (
    FlowRun,
    LimitReached,
    Limits,
    check,
    choose,
    flow,
    gather,
    generate,
    now,
    sleep,
    step,
    uniform,
    version,
)
from ostinato.flow.run import work_of
from ostinato.journal import Journal
from ostinato.loop import Loop

COUNT = 50
WRITTEN = "FLOWS_WRITTEN"
"""The environment variable that names the file in which steps leave a line each."""


def leave(line: str) -> None:
    """Write a line at once: what a step does to the world."""
    file = os.open(os.environ[WRITTEN], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


@step
def send(name: str) -> dict[str, Any]:
    leave(name)
    return {"sent": name}


@step(attempts=2, backoff=0.001)
def refuse(name: str) -> str:
    leave(name)
    raise KeyError(name)


def text(name: str) -> str:
    """Write a text until it passes, which depends on its seed."""
    checks = [Length(min=6), Contains(texts=("help",))]
    return generate(f"[{name}] Answer.", checks, strategy="resample", max_new_tokens=12)


@flow
def tree(name: str, depth: int) -> list[Any]:
    """Grow a tree by recursion."""
    if depth == 0:
        return [send(f"{name}/leaf")["sent"]]
    below: list[list[Any]] = [tree(f"{name}/{number}", depth - 1) for number in range(2)]
    return [text(name), *below]


@flow(limits=Limits(calls=5))
def until_spent(name: str) -> int:
    """Go on until the limit is reached."""
    count = 0
    try:
        while True:
            send(f"{name}/{count}")
            count += 1
    except LimitReached:
        return count


@flow
def everything(number: int) -> dict[str, Any]:
    """Use each structure of the language around calls."""
    name = f"f{number}"
    if number % 7 == 0:
        return {"canned": number}
    kind = choose(
        "Which?",
        ["odd", "third", "other"],
        given=name,
        rules={"odd": "[1379]$"},
        by=lambda name: "third" if number % 3 else "other",
    )
    found: dict[str, Any] = {"kind": kind}
    match kind:
        case "odd":
            found["texts"] = gather(*[partial(text, f"{name}/g{each}") for each in range(3)])
        case "third":
            found["tree"] = tree(f"{name}/t", 2)
        case _:
            for attempt in range(3):
                draft = text(f"{name}/a{attempt}")
                if check(draft, [Contains(texts=("obviously",))]):
                    break
            found["draft"] = draft
    try:
        refuse(f"{name}/r")
    except KeyError as error:
        found["refused"] = str(error)
    if version("counted"):
        found["spent"] = until_spent(f"{name}/l")
    now()
    sleep(0.01)
    found["drawn"] = uniform()
    return found


def make(run: str, journal: Journal, server: str, written: str) -> Loop:
    """Return the loop of all flows; steps leave lines in the file `written`."""
    os.environ[WRITTEN] = written
    config = FlowRun(function="everything", items="all", model=server, seed=3, in_progress=COUNT)
    pairs = [(f"k{number}", {"number": number}) for number in range(COUNT)]
    found = journal.find(run) or journal.create(run, kind="flow", spec={})
    return work_of(everything, pairs, config, run=found).loop
