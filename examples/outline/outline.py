"""A text that grows from its outline: one flow, which calls itself down to the paragraphs.

ostinato flow run examples/outline/outline.py "Keeping bees in a city"

A heading gets three headings below it, each of these as well, and the last ones a paragraph. Every
level has its checks: headings are short and differ, a paragraph is whole and keeps to its heading,
and what is put together says nothing twice, or is written again.
"""

import re
from functools import partial

from ostinato.checks import Contains, Excludes, Length, Regex, Repetition
from ostinato.flow import check, flow, gather, generate

HEADING = [Regex(pattern=r"[A-Z][A-Za-z' -]+"), Length(min=2, max=6)]
PARAGRAPH = [
    Regex(name="whole", pattern=r"[A-Z][^\n#*]+[.!?]"),
    Length(min=25, max=70),
    Length(name="sentences", unit="sentences", min=2, max=4),
    Contains(name="on its heading", column="words"),
    Excludes(name="not on itself", texts=("section", "chapter", "sentence", "guide", "I")),
    Repetition(n=4, times=1),
]
WHOLE = [Repetition(n=8, times=1)]
TRIES = 3
EXAMPLES = [
    ("Growing tomatoes at home", "Choosing a sunny place"),
    ("Growing tomatoes at home", "Watering in dry weeks"),
    ("A first trip to the mountains", "What to pack"),
    ("A first trip to the mountains", "Reading the weather"),
]
"""Books and chapters that a small model sees before it writes a heading."""
SHOWN = [chapter for _, chapter in EXAMPLES]


@flow
def section(title: str, within: list[str] | None = None, depth: int = 2, parts: int = 3) -> str:
    """Return a text about `title` as Markdown; `within` has the headings above it, from the top."""
    above = within or []
    mark = "#" * (len(above) + 1)
    if depth == 0:
        return f"{mark} {title}\n\n{paragraph(title, above)}"
    text = ""
    for _ in range(TRIES):
        titles = headings(title, above, parts)
        below = [partial(section, each, [*above, title], depth - 1, parts) for each in titles]
        text = "\n\n".join([f"{mark} {title}", *gather(*below)])
        if check(text, WHOLE):
            break
    return text


def headings(title: str, above: list[str], count: int) -> list[str]:
    """Return headings of the parts of a text: a conversation that has had others before."""
    found: list[str] = []
    for _ in range(count):
        book = ": ".join([*above, title])
        said = [*EXAMPLES, *((book, each) for each in found), (book, "")]
        messages = [
            {"role": role, "content": text}
            for of, each in said
            for role, text in (("user", f"A chapter of: {of}"), ("assistant", each))
        ][:-1]
        taken = [title, *SHOWN, *words(" ".join([*above, *found]))]
        other = Excludes(name="differs", texts=tuple(taken))
        found.append(str(generate(messages, [*HEADING, other], max_new_tokens=16)))
    return found


def paragraph(title: str, above: list[str]) -> str:
    """Return a paragraph under a heading."""
    guide = f' for a guide to "{above[0]}"' if above else ""
    prompt = f'Write two or three sentences about "{title}"{guide}. Give practical advice.'
    given = {"words": words(title)}
    return str(generate(prompt, PARAGRAPH, given=given, max_new_tokens=100))


def words(text: str) -> list[str]:
    """Return the longer words of a text."""
    return [word for word in re.findall(r"[A-Za-z]+", text) if len(word) > 3]
