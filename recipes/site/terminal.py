"""Record a command in a terminal as an animated SVG, for the README.

    python -m recipes.site.terminal docs/images/refine.svg

Runs the support job on eight messages, with a journal and an output of its own. Times are the real
ones, but for the start: while the model is loaded, the picture stands still. Needs POSIX.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from recipes.site.screen import Cell, Screen

ROOT = Path(__file__).parents[2]
COLUMNS, ROWS = 104, 13
COMMAND = "ostinato refine examples/support/job.toml --limit 8 --seed 6 --watch"
START = 1.5  # seconds of the picture while the model is loaded
HOLD = 5.0  # seconds of the last picture

FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
WIDTH, HEIGHT, PADDING = 8.4, 19, 14  # pixels of a character at 14 pixels, of a line, of the edge

STYLES = {"1": "b", "2": "d", "9": "s", "31": "r", "32": "g", "33": "y", "36": "c"}
"""SGR codes, with the classes of the style sheet."""

SHEET = """
text{font:14px FONT;white-space:pre;fill:#e6e6e6}
.b{font-weight:bold}.d{fill:#9a9a9a}.s{text-decoration:line-through;fill:#f08080}
.r{fill:#f08080}.g{fill:#8fd18f}.y{fill:#e5c07b}.c{fill:#7fc7d9}
g{visibility:hidden}
"""


@dataclass(frozen=True)
class Frame:
    """What a terminal shows from a time on, in seconds."""

    at: float
    lines: tuple[tuple[Cell, ...], ...]


def record(command: list[str], folder: Path) -> Iterator[tuple[float, str]]:
    """Run a command in a terminal; yield what it writes, with the seconds since its start."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    start = time.monotonic()
    try:
        while data := os.read(terminal, 65536):
            yield time.monotonic() - start, data.decode("utf-8", "replace")
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.waitpid(child, 0)
        os.close(terminal)


def frames(written: Iterator[tuple[float, str]]) -> list[Frame]:
    """Return the pictures of a terminal that differ from the one before."""
    screen = Screen()
    screen.write(f"$ {COMMAND}\r\n")
    shown = [Frame(0.0, screen.lines())]
    for at, text in written:
        screen.write(text)
        if screen.lines() != shown[-1].lines:
            shown.append(Frame(at, screen.lines()))
    return _without_loading(shown)


def _without_loading(shown: list[Frame]) -> list[Frame]:
    """Return the pictures with the first text at `START`; below it stands the line of progress."""
    first = next(frame.at for frame in shown if len(frame.lines) > 2)
    earlier = max(0.0, first - START)
    later = [replace(frame, at=frame.at - earlier) for frame in shown if frame.at >= first]
    return [replace(shown[1], at=0.0), *later]


def svg(shown: list[Frame]) -> str:
    """Return the pictures as an SVG that plays them again and again.

    Where motion is not wanted, it shows the last one.
    """
    total = shown[-1].at + HOLD
    height = max(len(frame.lines) for frame in shown) * HEIGHT + 2 * PADDING
    width = COLUMNS * WIDTH + 2 * PADDING
    ends = [*(frame.at for frame in shown[1:]), total]
    rules, groups = [], []
    for number, (frame, end) in enumerate(zip(shown, ends, strict=True)):
        first, last = 100 * frame.at / total, 100 * end / total
        visible = f"{first:.3f}%{{visibility:visible}}"
        after = "" if number == len(shown) - 1 else f"{last:.3f}%{{visibility:hidden}}"
        rules.append(f"@keyframes k{number}{{{visible}{after}}}")
        rules.append(f"#f{number}{{animation:k{number} {total:.2f}s step-end infinite}}")
        groups.append(f'<g id="f{number}">{"".join(_lines(frame))}</g>')
    still = f"#f{len(shown) - 1}{{visibility:visible}}"
    rules.append(f"@media(prefers-reduced-motion:reduce){{g{{animation:none!important}}{still}}}")
    sheet = SHEET.replace("FONT", FONT) + "\n".join(rules)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}"><style>{sheet}</style>'
        f'<rect width="100%" height="100%" rx="8" fill="#1e1e24"/>{"".join(groups)}</svg>\n'
    )


def _lines(frame: Frame) -> Iterator[str]:
    for row, line in enumerate(frame.lines):
        y = PADDING + HEIGHT * row + 14
        spans = "".join(_span(style, text) for style, text in _runs(line))
        if spans:
            yield f'<text x="{PADDING}" y="{y}">{spans}</text>'


def _runs(line: tuple[Cell, ...]) -> Iterator[tuple[str, str]]:
    """Yield the parts of a line that have one style."""
    style, text = "", ""
    for cell in line:
        if cell.style != style:
            if text:
                yield style, text
            style, text = cell.style, ""
        text += cell.char
    if text:
        yield style, text


def _span(style: str, text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    classes = " ".join(STYLES[code] for code in style.split(";") if code in STYLES)
    return f'<tspan class="{classes}">{text}</tspan>' if classes else f"<tspan>{text}</tspan>"


def main(target: Path) -> None:
    """Record the support job, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "examples" / "support"
        shutil.copytree(ROOT / "examples" / "support", copy, ignore=shutil.ignore_patterns("out"))
        command = [sys.executable, "-m", "ostinato", *COMMAND.split()[1:]]
        shown = frames(record(command, Path(folder)))
    target.write_text(svg(shown), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
