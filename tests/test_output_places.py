"""What cannot be written is found out before any work, in every command that writes files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ostinato.cli.main import cli
from ostinato.errors import OutputError
from ostinato.loop import Loop, Steps, Work
from ostinato.runs import KINDS, kind_of

COMMANDS = [
    ["sample", "image", "--out", "file/x.png"],
    ["sample", "music", "--out", "file/x.mid"],
    ["train", "image", "digits-8x8", "--out", "file/x", "--steps", "1"],
    ["train", "text", "file", "--out", "file/x", "--steps", "1", "--context", "8"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("One two three four. " * 40)
    with pytest.raises(OutputError, match=r"--outs? must be a file or folder .*file is no folder"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert not Path(".ostinato").exists()


def test_every_kind_that_has_an_output_says_so() -> None:
    for kind in KINDS:
        config = kind_of(kind).config_class()
        named = {"out", "outs"} & set(config.__dataclass_fields__)
        assert named == set(config.writes)


def test_an_error_of_the_system_while_writing_is_one_sentence() -> None:
    class Broken(Work):
        def write(self) -> None:
            Path("/nowhere/x").write_text("")

    work = Broken(loop=Loop(lambda: 1, until=Steps(1)))
    with pytest.raises(OutputError, match=r"^/nowhere/x could not be written: no such file"):
        work.finish()
