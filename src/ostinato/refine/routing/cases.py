"""Past cases: answered messages; the nearest to a new message is its answer or an example for it.

By words: BM25 (Robertson and Zaragoza 2009, in Lucene's form, which is never negative). It is
divided by the score that a text has for itself, and the smaller direction counts. So equal bags of
words have similarity 1, and texts without a common word 0. By meaning: the cosine of sentence
vectors. By both: the mean of the two. Knows no rules and no prompts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ostinato.arguments import did_you_mean
from ostinato.checks import normal_form, split_words
from ostinato.errors import InputError
from ostinato.row_files import iter_rows, place

if TYPE_CHECKING:
    import bm25s
    from torch import Tensor

    from ostinato.models import Encoder

Similarity = Literal["words", "meaning", "both"]
K1, B = 1.5, 0.75  # the usual parameters of BM25
LIKELY = 64  # cases by each similarity that `CasesByBoth` compares by both


@dataclass(frozen=True, slots=True)
class Case:
    """A past message and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Near:
    """A past case and its similarity to a new message, in [0, 1]."""

    case: Case
    similarity: float


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """How past cases are used.

    `column` is the item's column that is compared with the questions, by words, by meaning (the
    sentence vectors of `encoder`) or by both. The nearest case is the answer if its similarity is
    at least `answer_above` (None: never). Otherwise up to `examples` cases of at least
    `example_above` are shown to the model.
    """

    file: Path
    column: str
    question: str = "question"
    answer: str = "answer"
    answer_above: float | None = None
    example_above: float = 0.3
    examples: int = 3
    by: Similarity = "words"  # needs no encoder; `meaning` finds the right service more often
    encoder: str = "minilm"


class Cases(ABC):
    """Finds the past cases nearest to a message."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)

    @abstractmethod
    def nearest(self, message: str, count: int) -> list[Near]:
        """Return at most `count` cases, the nearest first; equal ones in the file's order."""

    def _first(self, similarities: Sequence[float], count: int) -> list[Near]:
        near = [Near(*pair) for pair in zip(self.cases, similarities, strict=True) if pair[1] > 0]
        return sorted(near, key=lambda one: -one.similarity)[:count]


class PastCases(Cases):
    """Finds the past cases nearest to a message by shared words (BM25, normalized to [0, 1])."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(cases)
        self._words = [words(case.question) for case in self.cases]
        # 1.0 if every question is empty, so that nothing is divided by 0.
        self._average = sum(map(len, self._words)) / max(1, len(self._words)) or 1.0

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return at most `count` cases, the nearest first; equal ones in the file's order.

        Cases that share no word with the message are left out.
        """
        query = words(message)
        found = [
            Near(self.cases[n], self.similarity(query, self._words[n]))
            # BM25 ranks in one direction, `similarity` in both: a few more keep the nearest.
            for n in sorted(self.likely(query, count + 16))
        ]
        return sorted(found, key=lambda near: -near.similarity)[:count]

    def likely(self, query: Sequence[str], count: int) -> list[int]:
        """Return the indices of at most `count` cases that share words, by BM25 score."""
        if not query or not any(self._words):
            return []
        scores = self._index.get_scores(list(query))
        best = sorted(range(len(self.cases)), key=lambda n: -float(scores[n]))[:count]
        return [n for n in best if scores[n] > 0]

    def similarity_to(self, query: Sequence[str], index: int) -> float:
        """Return the similarity to the words of the case at an index, in [0, 1]."""
        return self.similarity(query, self._words[index]) if query else 0.0

    def similarity(self, one: Sequence[str], other: Sequence[str]) -> float:
        """Return the similarity of the words of two texts, in [0, 1]; symmetric."""
        return min(self._share(one, other), self._share(other, one))

    def _share(self, query: Sequence[str], document: Sequence[str]) -> float:
        own = self._score(query, query)
        # A document can repeat a word that the query has once, and score higher than the query
        # itself.
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
        import bm25s  # takes half a second, with what it brings

        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index(self._words, show_progress=False)
        return index


class CasesByMeaning(Cases):
    """Finds the nearest past cases by the cosine of sentence vectors, in [0, 1]."""

    def __init__(self, cases: Sequence[Case], encoder: Encoder) -> None:
        super().__init__(cases)
        self._encoder = encoder

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return at most `count` cases, the nearest first; equal ones in the file's order."""
        return self._first(self.similarities(message), count)

    def similarities(self, message: str) -> list[float]:
        """Return the cosine of each case with a message; a negative one counts as 0.

        Each row is summed alone, in float64, so a similarity does not depend on the other cases.
        """
        (query,) = self._encoder.vectors([message])
        cosines: list[float] = (self._vectors * query.double()).sum(1).tolist()
        return [min(1.0, max(0.0, cosine)) for cosine in cosines]

    @cached_property
    def _vectors(self) -> Tensor:
        return self._encoder.vectors([case.question for case in self.cases]).double()


class CasesByBoth(Cases):
    """Finds the nearest past cases by the mean of both similarities.

    Only the `LIKELY` best by words and by meaning are compared by both. On 300 messages of
    dialogues the mean was no better than meaning alone (docs/log.md).
    """

    def __init__(self, cases: Sequence[Case], encoder: Encoder) -> None:
        super().__init__(cases)
        self._words, self._meaning = PastCases(cases), CasesByMeaning(cases, encoder)

    def nearest(self, message: str, count: int) -> list[Near]:
        """Return at most `count` cases, the nearest first; equal ones in the file's order."""
        query, meanings = words(message), self._meaning.similarities(message)
        # Exact word similarities of all cases would cost a pass over the whole file for each item.
        most = max(LIKELY, count)
        by_meaning = sorted(range(len(meanings)), key=lambda n: -meanings[n])[:most]
        found = [0.0] * len(self.cases)
        for n in {*by_meaning, *self._words.likely(query, most)}:
            found[n] = (meanings[n] + self._words.similarity_to(query, n)) / 2
        return self._first(found, count)


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in the form in which checks compare them."""
    return split_words(normal_form(text))


def read_cases(settings: CaseSettings) -> Cases:
    """Read the past cases of a file of rows.

    Raises `InputError` with file and line, and `ModelError` if the encoder is missing.
    """
    cases = []
    for line, row in iter_rows(settings.file):
        for column in (settings.question, settings.answer):
            if not isinstance(row.get(column), str) or not row[column].strip():
                guess = "" if column in row else did_you_mean(column, row)
                raise InputError(
                    f"{settings.file.name}, {place(settings.file, line)}: the column '{column}' of "
                    f"a past case must be a text, got {row.get(column)!r}.{guess} Fix it there."
                )
        cases.append(Case(row[settings.question], row[settings.answer]))
    if not cases:
        raise InputError(f"{settings.file.name} must hold past cases, got none. Add them.")
    if settings.by == "words":
        return PastCases(cases)
    from ostinato.models import load_encoder  # brings torch

    encoder = load_encoder(settings.encoder)
    return (CasesByMeaning if settings.by == "meaning" else CasesByBoth)(cases, encoder)
