"""Sentences that grow from a grammar by recursion, and are parsed back by it.

ostinato flow run examples/grammar/grammar.py:sentence --seed 3
ostinato flow run examples/grammar/grammar.py:parse "the dog sees a cat with this telescope"
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rules import Tree, read_grammar

from ostinato.checks import Regex
from ostinato.decode import SamplingParams
from ostinato.flow import flow, generate, uniform

GRAMMAR = read_grammar(Path(__file__).with_name("english.txt"))
By = Literal["chance", "model"]


@flow
def sentence(levels: int = 6, words: By = "chance") -> str:
    """Grow a sentence whose tree has at most about `levels` levels, and parse it.

    Its words are drawn by chance, or by a language model that knows the sentence so far.
    """
    grown = grow(GRAMMAR.start, levels, words, "")
    trees = GRAMMAR.trees(grown.words)
    if grown not in trees:
        raise AssertionError(f"It has grown from the grammar, and is no sentence of it: {grown}")
    return f"{told(grown.words, len(trees))}\n\n{grown.drawn()}"


@flow
def grow(symbol: str, levels: int, words: By, before: str) -> Tree:
    """Return a tree of a symbol: one of its alternatives, whose parts grow in the same way."""
    if symbol in GRAMMAR.words:
        return Tree(symbol, word=word_of(symbol, words, before))
    if symbol not in GRAMMAR.rules:
        return Tree(symbol, word=symbol)
    alternatives = GRAMMAR.fitting(symbol, levels)
    parts: list[Tree] = []
    for part in alternatives[int(uniform() * len(alternatives))]:
        parts.append(grow(part, levels - 1, words, before))
        before = " ".join([before, *parts[-1].words]).strip()
    return Tree(symbol, parts)


def word_of(symbol: str, words: By, before: str) -> str:
    """Choose a word of a symbol, if there is one that the sentence does not have yet.

    By chance, or by the model, which can write nothing else.
    """
    said = before.split()
    known = [word for word in GRAMMAR.words[symbol] if word not in said] or GRAMMAR.words[symbol]
    if words == "chance":
        return known[int(uniform() * len(known))]
    return generate(
        f"Complete the sentence with one word: {before} ___",
        Regex(pattern="|".join(known)),
        strategy="constrain",
        sampling=SamplingParams(temperature=1.0),
        max_new_tokens=12,
    )


@flow
def parse(text: str) -> str:
    """Return all trees of a sentence of the grammar."""
    words = text.lower().strip(" .").split()
    trees = GRAMMAR.trees(words)
    if not trees:
        known = {word for each in GRAMMAR.words.values() for word in each}
        known |= {part for each in GRAMMAR.rules.values() for parts in each for part in parts}
        unknown = [word for word in words if word not in known]
        why = f"does not know {', '.join(unknown)}" if unknown else "has no tree for them"
        raise ValueError(f"The words must be a sentence of the grammar, which {why}, got: {text}")
    return "\n\n".join([told(words, len(trees)), *(tree.drawn() for tree in trees)])


def told(words: list[str], trees: int) -> str:
    """Return a sentence as one writes it, and how many trees it has."""
    text = " ".join(words)
    count = "one tree" if trees == 1 else f"{trees} trees, so it can be read in as many ways"
    return f"{text[0].upper()}{text[1:]}.\nThe grammar has {count}."
