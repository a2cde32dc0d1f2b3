"""A chat in the terminal: what is typed, answers as they are written, commands with a slash.

In a terminal an answer is drawn as it grows, and drawn again where a part was taken back. Anywhere
else only what is final is printed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len

from ostinato.arguments import counted, did_you_mean
from ostinato.cli.chat.redraw import Redraw, visible
from ostinato.cli.chat.words import status, why
from ostinato.errors import OstinatoError
from ostinato.flow import Move, Stage, Turn
from ostinato.text_files import half_character

if TYPE_CHECKING:
    from ostinato.flow import ChatWork

YOU = "you"
STOPPED = "You stopped it."
HELP = {
    "/back [N]": "take back the last turn, or the last N",
    "/retry": "another answer to what you said last",
    "/branch NAME [TURN]": "a run that goes on after a turn, by default the last",
    "/why [TURN]": "checks, rounds and what was taken back in an answer",
    "/save FILE": "write the conversation as a line of JSON",
    "/end": "end the conversation for good",
    "/quit": "leave; the same command goes on later (or Ctrl-D)",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Console(Stage):
    """Shows a chat and hears a person. `work` is set when the chat is built.

    `names` are those of the models. `quiet`: nothing is shown.
    """

    hears = True

    def __init__(self, names: Sequence[str], *, quiet: bool = False) -> None:
        self.work: ChatWork | None = None
        self.interrupted = False
        self._stop = False  # whether the answer that grows must end
        self._names, self._quiet = names, quiet
        self._live = not quiet and _is_terminal(sys.stdout)
        self._shown = 0
        self._read = ""
        self._told = ""
        self._drawing: Redraw | None = None

    @property
    def is_live(self) -> bool:
        """Whether answers are drawn as they grow."""
        return self._live

    # What the chat shows ----------------------------------------------------------------------

    def answering(self, turns: Sequence[Turn], said: str) -> None:
        """Show what is said, unless it was typed here, and that an answer begins."""
        self._catch_up(turns)
        if not self._live or self._drawing is not None:
            return
        if len(self._names) == 1 and said != self._read:
            self._line(YOU, said)
        if len(self._names) > 1 and not turns:
            self._line(self._names[1], said)
        name = self._name(len(turns))
        size = shutil.get_terminal_size()
        self._drawing = Redraw(
            sys.stdout, size.columns, size.lines, _label(name), cell_len(f"{name}> ")
        )

    def watch(self, text: str) -> str | None:
        """Draw the answer as it has grown; end it where Ctrl-C was pressed."""
        if self._drawing is not None:
            self._drawing.show(text)
        return STOPPED if self._stop else None

    @contextmanager
    def stops_answers(self) -> Iterator[None]:
        """Let Ctrl-C end the answer that grows, once; where none does, it acts as before."""
        before = signal.getsignal(signal.SIGINT)

        def end(number: int, frame: FrameType | None) -> None:
            if self._drawing is not None and not self._stop:
                self._stop = True
            elif callable(before):
                before(number, frame)

        signal.signal(signal.SIGINT, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def answered(self, turns: Sequence[Turn]) -> None:
        """Show the answer as it is final, and why it ended."""
        turn, number = turns[-1], len(turns)
        self._read, self._shown, self._told, self._stop = "", number, "", False
        if self._quiet:
            return
        if self._live:
            self._draw_whole(turn)
        elif len(self._names) > 1:
            self._line(self._name(number - 1), str.__str__(turn.answer))
        else:
            click.echo(str.__str__(turn.answer))
        self._note(status(turn.answer))

    def tell(self, sentence: str) -> None:
        """Show a sentence about what happens."""
        if self._quiet or sentence == self._told:
            return
        self._told = sentence
        if self._drawing is not None:
            self._drawing.end()
            self._drawing = None
        self._note(sentence)

    def _draw_whole(self, turn: Turn) -> None:
        if self._drawing is None:  # something was told in between
            self._line(self._name(self._shown - 1), str.__str__(turn.answer))
            return
        self._drawing.show(str.__str__(turn.answer))
        self._drawing.end()
        self._drawing = None

    def end_line(self) -> None:
        """Leave the line of an answer that is not whole."""
        if self._drawing is not None:
            self._drawing.end()
            self._drawing = None

    def _catch_up(self, turns: Sequence[Turn]) -> None:
        """Show the turns that were recorded before."""
        self._shown = min(self._shown, len(turns))
        for number, turn in enumerate(turns[self._shown :], self._shown):
            if self._live:
                if len(self._names) == 1:
                    self._line(YOU, turn.said)
                elif number == 0:
                    self._line(self._names[1], turn.said)
                self._line(self._name(number), str.__str__(turn.answer))
        self._shown = len(turns)

    def show(self, turns: Sequence[Turn]) -> None:
        """Show a conversation that was recorded."""
        self._catch_up(turns)

    def _name(self, number: int) -> str:
        return self._names[number % len(self._names)]

    def _line(self, name: str, text: str) -> None:
        click.echo(f"{_label(name) if self._live else f'{name}> '}{visible(text)}")

    def _note(self, sentence: str) -> None:
        click.echo(click.style(f"  [{visible(sentence)}]", dim=True), err=not self._live)

    # What the person does ---------------------------------------------------------------------

    def listen(self, turns: Sequence[Turn]) -> Move | None:
        """Read until something is said or moved; None where the person leaves."""
        self._catch_up(turns)
        while True:
            line = self._typed()
            if line is None:
                self._leave()
                return None
            if half := half_character(line):
                self._say(f"What you say must be text, got half a character, {half}.")
                continue
            if not line.strip():
                continue
            if line.startswith("//") or not line.startswith("/"):
                text = line.removeprefix("/") if line.startswith("//") else line
                self._read = text if sys.stdin.isatty() else ""
                return Move("say", text)
            if line.split()[0] == "/quit":
                self._leave()
                return None
            try:
                move = self._command(line, turns)
            except OstinatoError as error:
                self._say(str(error))
                continue
            if move is not None:
                return move

    def _leave(self) -> None:
        assert self.work is not None
        self.work.loop.pause("The person has left.")

    def _typed(self) -> str | None:
        """Return a line; None at the end of the input, or where a signal interrupts it."""
        try:
            with _interrupts():
                return _read_line(f"{YOU}> " if self._live else "")
        except EOFError:
            if self._live:
                click.echo()
            return None
        except KeyboardInterrupt:
            self.interrupted = True
            click.echo(err=not self._live)
            return None

    def _command(self, line: str, turns: Sequence[Turn]) -> Move | None:
        """Do what a line with a slash says; return a move, if it is one."""
        name, *rest = line.split()
        does: dict[str, Callable[[list[str], Sequence[Turn]], Move | None]] = {
            "/back": self._back,
            "/retry": self._retry,
            "/branch": self._branch,
            "/why": self._why,
            "/save": self._save,
            "/end": lambda rest, turns: Move("end"),
            "/help": self._help,
        }
        if name not in does:
            known = [*does, "/quit"]
            self._say(
                f"There is no command {name}.{did_you_mean(name, known)} See /help, or write // to "
                "say something that begins with a slash."
            )
            return None
        return does[name](rest, turns)

    def _back(self, rest: list[str], turns: Sequence[Turn]) -> Move | None:
        count = _number(rest, 1)
        if count is None or not 1 <= count <= len(turns):
            self._say(f"/back takes a number from 1 to {len(turns)}." if turns else NOTHING)
            return None
        left = len(turns) - count
        after = f"The last one is now: {turns[left - 1].said}" if left else "It begins anew."
        self._say(f"Took back {counted(count, 'turns')}. {after}")
        return Move("back", turns=count)

    def _retry(self, rest: list[str], turns: Sequence[Turn]) -> Move | None:
        if not turns:
            self._say(NOTHING)
            return None
        self._read = turns[-1].said
        return Move("retry")

    def _branch(self, rest: list[str], turns: Sequence[Turn]) -> None:
        from ostinato.cli.recording import resume_line
        from ostinato.journal import Journal
        from ostinato.runs import branch

        assert self.work is not None
        run = self.work.loop.recorded_as
        turn = self._turn(rest[1:], turns, "/branch NAME TURN")
        if turn is None:
            return
        if not rest or run is None:
            self._say("/branch needs a name: /branch NAME." if run else "Nothing is recorded.")
            return
        with Journal(run.database.path) as journal:
            made = branch(journal, run, rest[0], call=turns[turn - 1].path)
            self._say(f"Made {made.name}, which goes on after turn {turn}: {resume_line(made)}")

    def _why(self, rest: list[str], turns: Sequence[Turn]) -> None:
        number = self._turn(rest, turns, "/why TURN")
        if number is not None:
            for line in why(turns[number - 1], number):
                self._say(line)

    def _save(self, rest: list[str], turns: Sequence[Turn]) -> None:
        import json

        from ostinato.output_files import require_writable, told_when_not_written, write_whole

        assert self.work is not None
        if not rest:
            self._say("/save needs a file: /save talk.jsonl.")
            return
        path = Path(" ".join(rest)).expanduser()
        require_writable(path.absolute(), "FILE")
        with told_when_not_written("Name another."):
            write_whole(path, [json.dumps(self.work.to_json(), ensure_ascii=False) + "\n"])
        self._say(f"Wrote {counted(len(turns), 'turns')} to {path}.")

    def _help(self, rest: list[str], turns: Sequence[Turn]) -> None:
        for name, line in HELP.items():
            self._say(f"{name:22} {line}")

    def _turn(self, rest: list[str], turns: Sequence[Turn], use: str) -> int | None:
        """Return the number of a turn that was named, by default the last; None for a wrong one."""
        number = _number(rest, len(turns))
        if number is None or not 1 <= number <= len(turns):
            self._say(f"{use} takes a turn from 1 to {len(turns)}." if turns else NOTHING)
            return None
        return number

    def _say(self, line: str) -> None:
        click.echo(visible(line), err=not self._live)


NOTHING = "Nothing has been answered yet."


def _number(rest: list[str], usual: int) -> int | None:
    """Return the number that was typed; None for anything else."""
    if not rest:
        return usual
    return int(rest[0]) if len(rest) == 1 and rest[0].isdecimal() else None


def _label(name: str) -> str:
    """Return a name as it stands before what is said, for a terminal."""
    return f"{name if os.environ.get('NO_COLOR') else click.style(name, bold=True)}> "


def _is_terminal(stream: Any) -> bool:
    """Return whether the cursor of a stream can be moved."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _read_line(prompt: str) -> str:
    """Read a line; in a terminal it can be edited. Raises `EOFError` at the end."""
    if prompt and sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  # `input` uses it: lines can be edited and found again
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a wait for input, which a handler of the loop would not."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
