"""A context-free grammar as a text: reading it, parsing by it, and its trees as pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """A symbol with what it was expanded to: trees, or one word."""

    symbol: str
    parts: list[Tree] = field(default_factory=list)
    word: str = ""

    @property
    def words(self) -> list[str]:
        """The words of a sentence, from left to right."""
        if not self.parts:
            return [self.word]
        return [word for part in self.parts for word in part.words]

    def drawn(self, before: str = "", rest: str = "") -> str:
        """Return the tree as lines; `before` stands before its own, `rest` before the others."""
        lines = [f"{before}{self.symbol}{f' {self.word}' if self.word != self.symbol else ''}"]
        for number, part in enumerate(self.parts, 1):
            last = number == len(self.parts)
            branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
            lines.append(part.drawn(rest + branch, rest + below))
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Grammar:
    """The alternatives of each symbol, and the words of those that stand for one word."""

    rules: dict[str, list[list[str]]]
    words: dict[str, list[str]]

    @property
    def start(self) -> str:
        """The symbol that a sentence grows from."""
        return next(iter(self.rules))

    def known(self, symbol: str) -> bool:
        """Whether a symbol is expanded; any other one is a word."""
        return symbol in self.rules or symbol in self.words

    @cached_property
    def heights(self) -> dict[str, int]:
        """How many levels the lowest tree of each symbol has; a symbol without any is left out."""
        found = dict.fromkeys(self.words, 1)
        while True:
            new = {
                symbol: 1 + min(heights)
                for symbol, alternatives in self.rules.items()
                if symbol not in found and (heights := _heights(alternatives, self, found))
            }
            if not new:
                return found
            found |= new

    def fitting(self, symbol: str, levels: int) -> list[list[str]]:
        """Return the alternatives of a symbol whose lowest trees have so many levels, or fewer.

        The lowest ones where none fits: growing by them ends.
        """
        by_height = {
            number: max(self.heights.get(part, 0) for part in parts)
            for number, parts in enumerate(self.rules[symbol])
        }
        most = max(levels - 1, min(by_height.values()))
        return [
            self.rules[symbol][number] for number, height in by_height.items() if height <= most
        ]

    def trees(self, words: list[str]) -> list[Tree]:
        """Return all trees of a sentence: by recursive descent, each symbol at each word once."""

        @cache
        def of(symbol: str, start: int) -> list[tuple[int, Tree]]:
            if start == len(words):
                return []
            if symbol in self.words:
                found = words[start] in self.words[symbol]
                return [(start + 1, Tree(symbol, word=words[start]))] if found else []
            if symbol not in self.rules:
                return [(start + 1, Tree(symbol, word=symbol))] if words[start] == symbol else []
            return [
                (end, Tree(symbol, parts))
                for alternative in self.rules[symbol]
                for end, parts in sequence(tuple(alternative), start)
            ]

        @cache
        def sequence(symbols: tuple[str, ...], start: int) -> list[tuple[int, list[Tree]]]:
            if not symbols:
                return [(start, [])]
            return [
                (end, [first, *others])
                for middle, first in of(symbols[0], start)
                for end, others in sequence(symbols[1:], middle)
            ]

        return [tree for end, tree in of(self.start, 0) if end == len(words)]


def _heights(alternatives: list[list[str]], grammar: Grammar, found: dict[str, int]) -> list[int]:
    known = [[part for part in parts if grammar.known(part)] for parts in alternatives]
    return [
        max((found[part] for part in parts), default=0)
        for parts in known
        if all(part in found for part in parts)
    ]


def read_grammar(path: Path) -> Grammar:
    """Read a grammar. Raises `ValueError` for a line that is none, and for rules without an end."""
    grammar = Grammar({}, {})
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = line.partition("#")[0].strip()
        symbol, arrow, parts = line.partition("->")
        name, colon, words = line.partition(":")
        if arrow and parts.split() and len(symbol.split()) == 1:
            grammar.rules.setdefault(symbol.strip(), []).append(parts.split())
        elif colon and words.strip() and len(name.split()) == 1:
            grammar.words[name.strip()] = [word.strip() for word in words.split(",")]
        elif line:
            raise ValueError(
                f"{path.name}, line {number} must be 'SYMBOL -> PART PART …' or 'SYMBOL : word, "
                f"word', got {line!r}."
            )
    _require_usable(grammar, path)
    return grammar


def _require_usable(grammar: Grammar, path: Path) -> None:
    if not grammar.rules:
        raise ValueError(f"{path.name} must have a rule 'SYMBOL -> PART …', got none.")
    endless = [symbol for symbol in grammar.rules if symbol not in grammar.heights]
    if endless:
        raise ValueError(f"{endless[0]} in {path.name} must have an alternative that ends.")
    for symbol in grammar.rules:
        seen, waiting = set[str](), [symbol]
        while waiting:
            firsts = {parts[0] for parts in grammar.rules.get(waiting.pop(), [])}
            if symbol in firsts:
                raise ValueError(
                    f"{symbol} in {path.name} must not begin with itself, by which a parser that "
                    "descends never ends. Put what follows first, as in Nom -> Adj Nom."
                )
            waiting += firsts - seen
            seen |= firsts
