"""Past cases: answered messages, of which the nearest to a new one is an answer or an example.

By words: ranked by BM25 (Robertson & Zaragoza 2009, in Lucene's form, which never goes below 0).
Likeness is the BM25 score of one text for the other as a share of the score that the text has for
itself, in the direction in which it is smaller: 1 for equal bags of words, 0 where no word is
shared. By meaning: the cosine of sentence vectors. By both: the mean of the two.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import bm25s

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.refine.job.items import read_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.models import Encoder

By = Literal["words", "meaning", "both"]
K1, B = 1.5, 0.75
LIKELY = 64
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Case:
    """A message that was answered before."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Near:
    """A past case with its likeness to a new message, in [0, 1]."""

    case: Case
    likeness: float


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """How past cases are used, and by what they are compared (`encoder`: the model of meaning).

    The nearest is the answer from the likeness `answer_above` on (None: never); else up to
    `examples` of those from `example_above` on are shown to the model. `column` is what they are
    compared with.
    """

    file: Path
    column: str
    question: str = "question"
    answer: str = "answer"
    answer_above: float | None = None
    example_above: float = 0.3
    examples: int = 3
    by: By = "words"
    encoder: str = "minilm"


class Cases(ABC):
    """Finds the past cases nearest to a message."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)

    @abstractmethod
    def nearest(self, message: str, count: int) -> list[Near]:
        """Return the `count` nearest cases, the nearest first; equal ones in the file's order."""

    def _first(self, likeness: Sequence[float], count: int) -> list[Near]:
        near = (Near(case, like) for case, like in zip(self.cases, likeness, strict=True))
        return sorted((one for one in near if one.likeness > 0), key=lambda n: -n.likeness)[:count]


class PastCases(Cases):
    """Finds the past cases nearest to a message by the words that they share."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(cases)
        self._words = [words(case.question) for case in self.cases]
        self._average = sum(map(len, self._words)) / max(1, len(self._words)) or 1.0

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return the `count` nearest cases, the nearest first; equal ones in the file's order.

        Cases that share no word with the message are left out.
        """
        asked = words(message)
        found = [
            Near(self.cases[n], self.likeness(asked, self._words[n]))
            for n in sorted(self.likely(asked, count + 16))
        ]
        return sorted(found, key=lambda near: -near.likeness)[:count]

    def likely(self, asked: Sequence[str], count: int) -> list[int]:
        """Return the places of at most `count` cases that share words, by their BM25 scores."""
        if not asked or not any(self._words):
            return []
        scores = self._index.get_scores(list(asked))
        best = sorted(range(len(self.cases)), key=lambda n: -float(scores[n]))[:count]
        return [n for n in best if scores[n] > 0]

    def likeness_to(self, asked: Sequence[str], place: int) -> float:
        """Return how alike the words of the case at a place are, in [0, 1]."""
        return self.likeness(asked, self._words[place]) if asked else 0.0

    def likeness(self, one: Sequence[str], other: Sequence[str]) -> float:
        """Return how alike two texts' words are, in [0, 1]; the same both ways."""
        return min(self._share(one, other), self._share(other, one))

    def _share(self, query: Sequence[str], document: Sequence[str]) -> float:
        own = self._score(query, query)
        return min(1.0, self._score(query, document) / own) if own else 0.0

    def _score(self, query: Sequence[str], document: Sequence[str]) -> float:
        counts = Counter(document)
        norm = K1 * (1 - B + B * len(document) / self._average)
        return sum(
            self._idf(word) * counts[word] / (counts[word] + norm)
            for word in query
            if word in counts
        )

    def _idf(self, word: str) -> float:
        holding = self._document_counts.get(word, 0)
        return math.log(1 + (len(self.cases) - holding + 0.5) / (holding + 0.5))

    @cached_property
    def _document_counts(self) -> Counter[str]:
        return Counter(word for case in self._words for word in set(case))

    @cached_property
    def _index(self) -> bm25s.BM25:
        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index(self._words, show_progress=False)
        return index


class CasesByMeaning(Cases):
    """Finds the past cases nearest to a message by the cosine of sentence vectors, in [0, 1]."""

    def __init__(self, cases: Sequence[Case], encoder: Encoder) -> None:
        super().__init__(cases)
        self._encoder = encoder

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return the `count` nearest cases, the nearest first; equal ones in the file's order."""
        return self._first(self.likenesses(message), count)

    def likenesses(self, message: str) -> list[float]:
        """Return the cosine of each case with a message; one below 0 counts as 0.

        Products are summed row by row, so that a case's likeness depends on no other case.
        """
        (asked,) = self._encoder.vectors([message])
        cosines: list[float] = (self._vectors * asked.double()).sum(1).tolist()
        return [min(1.0, max(0.0, cosine)) for cosine in cosines]

    @cached_property
    def _vectors(self) -> Tensor:
        return self._encoder.vectors([case.question for case in self.cases]).double()


class CasesByBoth(Cases):
    """Finds the past cases nearest to a message by the mean of both likenesses.

    Looked at are the `LIKELY` likeliest by words and by meaning.
    """

    def __init__(self, cases: Sequence[Case], encoder: Encoder) -> None:
        super().__init__(cases)
        self._words, self._meaning = PastCases(cases), CasesByMeaning(cases, encoder)

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return the `count` nearest cases, the nearest first; equal ones in the file's order."""
        asked, meanings = words(message), self._meaning.likenesses(message)
        most = max(LIKELY, count)
        by_meaning = sorted(range(len(meanings)), key=lambda n: -meanings[n])[:most]
        found = [0.0] * len(self.cases)
        for n in {*by_meaning, *self._words.likely(asked, most)}:
            found[n] = (meanings[n] + self._words.likeness_to(asked, n)) / 2
        return self._first(found, count)


def words(text: str) -> list[str]:
    """Return the words and figures of a text in lower case."""
    return _WORD.findall(text.lower())


def read_cases(settings: CaseSettings) -> Cases:
    """Read the past cases of a JSONL or CSV file. Raises `InputError` with file and line.

    `ModelError` where the encoder that they are to be compared by is missing.
    """
    cases = []
    for line, row in read_rows(settings.file):
        for column in (settings.question, settings.answer):
            if not isinstance(row.get(column), str) or not row[column].strip():
                guess = "" if column in row else did_you_mean(column, row)
                raise InputError(
                    f"{settings.file.name}, line {line}: the column '{column}' of a past case must "
                    f"be a text, got {row.get(column)!r}.{guess} Mend it there."
                )
        cases.append(Case(row[settings.question], row[settings.answer]))
    if not cases:
        raise InputError(f"{settings.file.name} must hold past cases, got none. Add them.")
    if settings.by == "words":
        return PastCases(cases)
    from ostinato.models import load_encoder  # brings torch

    encoder = load_encoder(settings.encoder)
    return (CasesByMeaning if settings.by == "meaning" else CasesByBoth)(cases, encoder)
