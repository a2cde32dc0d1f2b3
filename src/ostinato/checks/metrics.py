"""Checks of measures of a text: its tone, its repetitions, the model's confidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ostinato.arguments import counted
from ostinato.checks.base import POSSIBLE, BaseCheck, impossible
from ostinato.checks.normal_form import normal_form, normalized
from ostinato.checks.segments import split_words, word_spans
from ostinato.loop import Item, PrefixVerdict, Span, Text, Verdict


@dataclass(frozen=True, kw_only=True)
class Sentiment(BaseCheck):
    """The tone is between `min` and `max`, from -1 (hostile) to 1 (warm).

    The compound score of VADER (Hutto and Gilbert 2014), which knows English only.
    """

    kind: ClassVar[str] = "sentiment"

    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for bound in ("min", "max"):
            value = getattr(self, bound)
            if value is not None and not -1 <= value <= 1:
                raise self.refuse(bound, "in [-1, 1]", value, "0 is neutral.")
        self.bounds()

    def judge(self, output: object, item: Item) -> Verdict:
        """Measure the tone; the score is 1 minus half its distance to the bound."""
        tone = float(_vader().polarity_scores(self.text(output))["compound"])
        if self.min is not None and tone < self.min:
            message = (
                f"Write it friendlier: the tone is {tone:.2f}, at least {self.min:g} is wanted."
            )
            return self.verdict(False, message, 1 - (self.min - tone) / 2)
        if self.max is not None and tone > self.max:
            message = f"Write it soberer: the tone is {tone:.2f}, at most {self.max:g} is wanted."
            return self.verdict(False, message, 1 - (tone - self.max) / 2)
        return self.verdict(True)


@lru_cache(maxsize=1)  # it reads its lexicon from a file
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@dataclass(frozen=True, kw_only=True)
class Repetition(BaseCheck):
    """No phrase of `n` words occurs more than `times` times.

    `share` is the highest share of such phrases that may have occurred before, in [0, 1).
    """

    kind: ClassVar[str] = "repetition"

    n: int = 4
    times: int | None = 2
    share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise self.refuse("n", "1 or more words", self.n, "Give a number of words.")
        if self.times is not None and self.times < 1:
            raise self.refuse("times", "1 or more", self.times, "Every phrase occurs once.")
        if self.share is not None and not 0 <= self.share < 1:
            raise self.refuse("share", "in [0, 1)", self.share, "At 1 all would pass.")
        if self.times is None and self.share is None:
            raise self.refuse("times", "given, or 'share'", None, "Without a bound all would pass.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Count the phrases; the span is the first one that occurs too often."""
        text = self.text(output)
        phrases = self._phrases(text, closed=False)
        if (span := self._surplus(text, phrases)) is not None:
            phrase = text[slice(*span)]
            return self.verdict(False, self._message(phrase), _fresh(phrases), span)
        fresh = _fresh(phrases)
        if self.share is not None and 1 - fresh > self.share:
            message = (
                f"Repeat less: {1 - fresh:.0%} of the phrases of {counted(self.n, 'words')} "
                "were said before, "
                f"at most {self.share:.0%} are allowed."
            )
            return self.verdict(False, message, fresh)
        return self.verdict(True)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible once a phrase occurs too often and its last word has ended."""
        if self.times is None:
            return POSSIBLE
        text = self.text(output)
        span = self._surplus(text, self._phrases(text, closed=True))
        return POSSIBLE if span is None else impossible(self._message(text[slice(*span)]), *span)

    def _phrases(self, text: str, closed: bool) -> list[tuple[str, ...]]:
        """Return the phrases of a text; if `closed`, without a last word that may become longer."""
        found = split_words(normal_form(text), closed)
        return list(zip(*(found[i:] for i in range(self.n)), strict=False))

    def _surplus(self, text: str, phrases: list[tuple[str, ...]]) -> Span | None:
        """Return the first phrase that occurs once too often."""
        if self.times is None or len(phrases) <= self.times:
            return None
        if max(Counter(phrases).values()) <= self.times:  # counted in C; nearly always all there is
            return None
        counts: Counter[tuple[str, ...]] = Counter()
        for i, phrase in enumerate(phrases):
            counts[phrase] += 1
            if counts[phrase] > self.times:
                form = normalized(text)
                places = word_spans(form.text)[i : i + self.n]
                return form.span(places[0].start, places[-1].end)
        return None

    def _message(self, phrase: str) -> str:
        return f'Do not say "{phrase}" again: more than {self.times} times is not allowed.'


def _fresh(phrases: list[tuple[str, ...]]) -> float:
    """Return the share of phrases that did not occur before."""
    return len(set(phrases)) / len(phrases) if phrases else 1.0


@dataclass(frozen=True, kw_only=True)
class Confidence(BaseCheck):
    """The model was sure enough, by its tokens' natural log-probabilities (0 is certain).

    `mean` is the lower bound of their mean, `least` that of every single one.
    """

    kind: ClassVar[str] = "confidence"

    mean: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for bound in ("mean", "least"):
            value = getattr(self, bound)
            if value is not None and not value <= 0:
                raise self.refuse(bound, "0 or less", value, "It is a log-probability.")
        if self.mean is None and self.least is None:
            raise self.refuse("mean", "given, or 'least'", None, "Without a bound all would pass.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare with the bounds; the span is the first token below `least`, or the lowest one."""
        text = self.text(output)
        if not isinstance(text, Text) or len(text.logprobs) != len(text.tokens):
            return self.error(
                f"Confidence must be judged on a generated text with log-probabilities "
                f"(ostinato.loop.Text), got {type(output).__name__}. Remove this check for texts "
                f"from elsewhere."
            )
        if (unsure := self._unsure(text)) is not None:
            return self.verdict(False, self._message(text, unsure), span=_span(text, unsure))
        logprobs = list(text.logprobs)
        mean = sum(logprobs) / len(logprobs) if logprobs else 0.0  # no token: nothing is unsure
        if self.mean is not None and mean < self.mean:
            unsure = min(range(len(logprobs)), key=logprobs.__getitem__)
            message = (
                f"Say it as you are sure of it: the mean log-probability is {mean:.2f}, at least "
                f"{self.mean:g} is wanted."
            )
            return self.verdict(False, message, self.mean / mean, _span(text, unsure))
        return self.verdict(True)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible once a token is below `least`; the mean can always rise again."""
        text = self.text(output)
        if not isinstance(text, Text) or (unsure := self._unsure(text)) is None:
            return POSSIBLE
        return impossible(self._message(text, unsure), *_span(text, unsure))

    def _unsure(self, text: Text) -> int | None:
        if self.least is None:
            return None
        # `not >=`, so that NaN is unsure too.
        return next((i for i, logp in enumerate(text.logprobs) if not logp >= self.least), None)

    def _message(self, text: Text, index: int) -> str:
        start, end = _span(text, index)
        return (
            f'Say something else than "{text[start:end]}": its log-probability is '
            f"{text.logprobs[index]:.2f}, at least {self.least:g} is wanted."
        )


def _span(text: Text, index: int) -> Span:
    """Return the span of a token in the text."""
    has_next = index + 1 < len(text.starts)
    return Span(text.starts[index], text.starts[index + 1] if has_next else len(text))
