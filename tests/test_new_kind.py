"""A new kind of run is one entry in `KINDS`, with one configuration and one builder."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import pytest
from click.testing import CliRunner
from toys import Walk

from ostinato.cli.main import cli
from ostinato.cli.presenters import PRESENTERS
from ostinato.journal import Journal, RunConfig, RunSource, beside
from ostinato.loop import CheckpointSchedule, Loop, Report, Steps, Work
from ostinato.runs import KINDS, RunKind, build, build_config, record


@dataclass(frozen=True, kw_only=True)
class WalkRun(RunConfig):
    """A random walk, whose last place is written to `out`."""

    kind: ClassVar[str] = "walk"
    free: ClassVar[frozenset[str]] = frozenset({"out"})

    out: Path
    steps: int = 12
    seed: int = 0

    def branched(self, name: str) -> Self:
        return replace(self, out=beside(self.out, name, self.out.suffix))


@dataclass(kw_only=True)
class WalkWork(Work):
    walk: Walk
    out: Path

    def finish(self) -> None:
        self.out.write_text(repr(self.walk.place))


def build_walk(config: WalkRun, *, run: RunSource | None = None) -> WalkWork:
    walk = Walk(config.seed)
    schedule = CheckpointSchedule(steps=2, keep=config.steps)
    loop = Loop(walk, until=Steps(config.steps), run=run, checkpoint=schedule)
    return WalkWork(loop=loop, walk=walk, out=config.out)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(KINDS, "walk", RunKind(f"{__name__}:WalkRun", f"{__name__}:build_walk"))
    return tmp_path


def output_of(line: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(line))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def killed(act: Callable[[], object]) -> None:
    """Do this in a child process, which must be killed in it."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def start() -> None:
    with Journal() as journal:
        build(record(journal, WalkRun(out=Path("place.txt")), name="mine")).loop.run()


def test_a_new_kind_is_started_killed_resumed_branched_and_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "walk" not in PRESENTERS
    step = Walk.step

    def dies(walk: Walk) -> Report:
        if walk.steps == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(walk)

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "step", dies)
        killed(start)
    assert not Path("place.txt").exists()
    assert "mine: walk, interrupted" in output_of("runs show mine")

    *progress, last = output_of("runs resume mine").splitlines()
    assert last == "It has taken 12 steps, the limit. (budget, tick 12)"
    assert progress[0] == "Working: step 6" and progress[-1].startswith("step 12 of 12, ")
    whole = build_config(WalkRun(out=Path("whole.txt")))
    whole.loop.run()
    whole.finish()
    assert Path("place.txt").read_text() == Path("whole.txt").read_text()

    output_of("runs branch mine --at 4 --as other --set rate=0.5")
    assert "budget, tick 12" in output_of("runs resume other")
    assert Path("place.txt").read_text() == Path("whole.txt").read_text()
    assert Path("other.txt").read_text() != Path("whole.txt").read_text()


def test_what_a_branch_writes_is_never_its_parents_file() -> None:
    with Journal() as journal:
        build(record(journal, WalkRun(out=Path("place.txt")), name="mine")).loop.run()
    output_of("runs resume mine")
    before = Path("place.txt").read_text()
    output_of("runs branch mine --at 4 --as place --set rate=0.5")
    output_of("runs resume place")
    assert Path("place.txt").read_text() == before != Path("place-2.txt").read_text()
