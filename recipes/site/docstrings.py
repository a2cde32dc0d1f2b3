"""Lists in docstrings: lines of `name: what it is`, which describe fields, become lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from griffe import Extension, Object

FIELD = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.+)")


class FieldLists(Extension):
    """Rewrites the docstring of each class and function before it is rendered."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = "\n".join(listed(obj.docstring.value.splitlines()))


def listed(lines: list[str]) -> Iterator[str]:
    """Yield lines of Markdown: a block of fields is a list, with a blank line before it."""
    within = False
    for number, line in enumerate(lines):
        match = FIELD.fullmatch(line)
        opens = number == 0 or not lines[number - 1].strip()
        if match and (within or opens):
            if not within:
                yield ""
            within = True
            names = ", ".join(f"`{name}`" for name in match[1].split(", "))
            yield f"- {names}: {match[2]}"
        else:
            within = within and line.startswith("    ")
            yield line
