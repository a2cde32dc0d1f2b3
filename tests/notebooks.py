"""Runs the code cells of a notebook in one namespace, and writes what they show into it.

`python tests/notebooks.py docs/notebook.ipynb` writes the output of each cell.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def outputs(path: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each code cell with its outputs: what it prints, and the value of its last line."""
    namespace: dict[str, object] = {"__name__": "notebook"}
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        out, err = io.StringIO(), io.StringIO()
        with kernel(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            value = run(source(cell), f"{path.name}, cell {number}", namespace)
        shown = [stream(name, text) for name, text in (("stderr", err), ("stdout", out))]
        yield cell, [each for each in [*shown, result(value, number)] if each]


class ZMQInteractiveShell:
    """What the kernel of a notebook calls its shell: progress is shown as a bar."""


@contextlib.contextmanager
def kernel() -> Iterator[None]:
    """Let a cell find itself in a notebook."""
    vars(builtins)["get_ipython"] = ZMQInteractiveShell
    try:
        yield
    finally:
        del vars(builtins)["get_ipython"]


def run(code: str, name: str, namespace: dict[str, object]) -> object:
    """Run a cell; return the value of its last line, None where that is no expression."""
    body = ast.parse(code, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec", dont_inherit=True), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)


def read(path: Path) -> dict[str, Any]:
    """Return a notebook as it is in its file."""
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def source(cell: dict[str, Any]) -> str:
    """Return the code of a cell."""
    return "".join(cell["source"])


def stream(name: str, text: io.StringIO) -> dict[str, Any] | None:
    """Return what was written to a stream as an output; of a line that is redrawn, the last."""
    lines = [line.rsplit("\r", 1)[-1] for line in text.getvalue().splitlines(keepends=True)]
    return {"name": name, "output_type": "stream", "text": lines} if lines else None


def result(value: object, number: int) -> dict[str, Any] | None:
    """Return the value of a cell as an output; a table is shown as one."""
    if value is None:
        return None
    shown = {"text/plain": repr(value).splitlines(keepends=True)}
    to_html = getattr(value, "_repr_html_", None)
    if to_html is not None:
        shown["text/html"] = to_html().splitlines(keepends=True)
    return {
        "data": shown,
        "execution_count": number,
        "metadata": {},
        "output_type": "execute_result",
    }


def main(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook = read(path)
    code = iter([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
    for number, (_, shown) in enumerate(outputs(path), 1):
        next(code).update(outputs=shown, execution_count=number)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
