"""What the prefix verdicts of a job's checks cost at each token, in several scripts.

The checks are of the kinds that the support job has. Times are of the CPU, the best of `--repeats`.

    python benchmarks/check_prefixes.py [--repeats N] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path

from ostinato.checks import (
    BaseCheck,
    Blocked,
    Contains,
    Excludes,
    Length,
    Regex,
    Repetition,
)
from ostinato.checks.blocked import read_words

SUPPORT = Path(__file__).parent.parent / "examples" / "support"
ENGLISH = (
    "We have a table for two at half past 11, and we can't hold it for long. "
    "Please call 408-247-8880 for more details of your trip. "
)
TEXTS = {
    "ASCII": ENGLISH * 8,
    "typographic": ENGLISH.replace("'", "’") * 8,
    "Cyrillic": "Мы не можем сделать это сегодня. Позвоните нам, пожалуйста, завтра утром. " * 11,
    "Chinese": "我们今天不能这样做。请致电我们或明天再来，谢谢您的耐心等待。" * 12,
}
ITEM = {"asked": ["8 am", "8:00 am"], "offer": "Sipan Restaurant", "untrue": ["has been made"]}
_TOKEN = re.compile(r"\s*\S{1,5}")


def checks() -> list[BaseCheck]:
    """Return checks that the texts neither pass for certain nor fail, so that all are judged."""
    return [
        Contains(name="asked", column="asked"),
        Contains(name="offer", column="offer"),
        Excludes(column="untrue"),
        Length(min=2, max=4000),
        Length(name="sentences", unit="sentences", max=400),
        Blocked(words=read_words(SUPPORT / "blocked.txt")),
        Repetition(n=5, times=100),
        Regex(pattern=r"\w.*[.!?。]"),
    ]


def microseconds(text: str, judged: Sequence[BaseCheck], repeats: int) -> float:
    """Return the time of one token's prefix verdicts, the mean over the text's tokens."""
    tokens = _TOKEN.findall(text)
    best = float("inf")
    for _ in range(repeats):
        start, prefix = time.thread_time(), ""
        for token in tokens:
            prefix += token
            for check in judged:
                check.check_prefix(prefix, ITEM)
        best = min(best, time.thread_time() - start)
    return best / len(tokens) * 1e6


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    options = parser.parse_args()
    found = {}
    for name, text in TEXTS.items():
        alone = {c.name: microseconds(text, [c], options.repeats) for c in checks()}
        found[name] = {"all": microseconds(text, checks(), options.repeats), **alone}
        shown = ", ".join(f"{check} {cost:.1f}" for check, cost in found[name].items())
        print(f"{name}, {len(text)} characters, us a token: {shown}")
    if options.json:
        print(json.dumps({"machine": platform.processor(), "us_per_token": found}))


if __name__ == "__main__":
    main()
