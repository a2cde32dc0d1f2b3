"""The facts in an item's sources: figures, times, dates and words, in all their spellings.

Every figure is stored as all its spellings ("17:00": "17:00", "5:00", "5", ...). So it takes one
look-up by prefix to find whether an unfinished figure can become a known one. Knows no claim.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import IntFlag

import regex

from ostinato.checks.grounding.vocabulary import (
    MONTH_NAMES,
    MONTHS,
    NUMERALS,
    SAME_WORDS,
    TENS,
    UNITS,
    WEEKDAY_NAMES,
    WEEKDAYS,
)
from ostinato.checks.normal_form import NormalText, decomposed, decomposed_start, normalized
from ostinato.checks.segments import SAME_WORD, as_ascii
from ostinato.text_files import parse_json


class As(IntFlag):
    """The contexts in which a spelling means a known figure."""

    NUMBER = 1  # alone
    HOUR = 2  # alone, after "at", "by", ...
    AM = 4  # before "am"
    PM = 8  # before "pm"
    DAY = 16  # as an ordinal


class Lexicon:
    """Spellings and their contexts, looked up as a whole or by prefix."""

    def __init__(self) -> None:
        self.forms: dict[str, As] = {}
        self._sorted: list[str] | None = None

    def add(self, form: str, known_as: As) -> None:
        """Add a spelling, or more contexts to a known one."""
        self.forms[form] = self.forms.get(form, As(0)) | known_as
        self._sorted = None

    def get(self, form: str) -> As:
        """Return the contexts of a spelling; none where it is unknown."""
        return self.forms.get(form, As(0))

    def starts(self, prefix: str) -> bool:
        """Whether any spelling starts with the prefix."""
        if self._sorted is None:
            self._sorted = sorted(self.forms)
        at = bisect_left(self._sorted, prefix)
        return at < len(self._sorted) and self._sorted[at].startswith(prefix)


FIGURE = r"[0-9]+(?:[.,:/–-][0-9]+)*"
_ASCII_TOKEN = re.compile(FIGURE + r"|\w[\w'’]*")
# Where scripts without spaces meet others, such as a number behind a Chinese word, is an edge.
_TOKEN = regex.compile(rf"(?V1){FIGURE}|{SAME_WORD}(?:{SAME_WORD}|['’])*")
_MONTH = "(?P<month>" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\b"
_ORDINAL = "(?:st|nd|rd|th)"
_MERIDIEM = r"(?P<meridiem>[ap])\.?m\b\.?"
_PART = r"(?:in the )?(?P<part>morning|afternoon|evening)|(?:at )?(?P<night>night)"
_NUMERAL = "|".join(NUMERALS)

_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<year>\d{4})[-/](?P<number>\d\d?)[-/](?P<day>\d\d?)\b",
        # Month first, as in the United States.
        r"\b(?P<number>\d\d?)/(?P<day>\d\d?)(?:/(?P<year>\d{4}))?\b",
        rf"\b{_MONTH}\.?\s+(?:the\s+)?(?P<day>\d\d?){_ORDINAL}?\b(?:,?\s+(?P<year>\d{{4}}))?",
        rf"\b(?P<day>\d\d?){_ORDINAL}?\s+(?:of\s+)?{_MONTH}(?:,?\s+(?P<year>\d{{4}}))?",
    )
]
_DAY_ALONE = re.compile(rf"\b(\d\d?){_ORDINAL}\b", re.IGNORECASE)
_MONTH_YEAR = re.compile(rf"\b{_MONTH},?\s+(?P<year>\d{{4}})\b", re.IGNORECASE)
_TIME = re.compile(
    rf"\b(?P<hour>\d\d?):(?P<minute>\d\d)(?::\d\d)?(?:\s*(?:{_MERIDIEM}|{_PART}))?", re.IGNORECASE
)
_TIME_DOT = re.compile(rf"\b(?P<hour>\d\d?)\.(?P<minute>\d\d)\s*{_MERIDIEM}", re.IGNORECASE)
_HOUR = re.compile(
    rf"\b(?P<hour>\d\d?|{_NUMERAL})(?:\s*{_MERIDIEM}|\s*(?P<clock>o['’]clock)|\s+(?:{_PART}))",
    re.IGNORECASE,
)
_AT = re.compile(rf"\b(?:at|around|by)\s+(?P<hour>\d\d?|{_NUMERAL})\b(?![:.]?\d)", re.IGNORECASE)
_PAST = re.compile(
    rf"\b(?P<quarter>half|quarter)\s+(?P<direction>past|after|to|of)\s+(?P<hour>\d\d?|{_NUMERAL})\b"
    rf"(?:\s*(?:{_MERIDIEM}|{_PART}))?",
    re.IGNORECASE,
)
_NOON = re.compile(r"\b(noon|midnight)\b", re.IGNORECASE)
_CLOCK_VALUE = re.compile(r"\d\d?:\d\d(?::\d\d)?")
_PHONE = re.compile(r"(?<![\w.])\+?\(?\d[\d\s().-]{5,}\d(?!\w)")
_ISO_DATE = re.compile(r"\d{4}-\d\d?-\d\d?")
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_COMPOUND = re.compile(rf"\b({'|'.join(TENS)})[- ]({'|'.join(UNITS)})\b", re.IGNORECASE)
_RANGE = re.compile(r"[/–-]")
_POSSESSIVE = re.compile(r"(?:'s)?'*$")
_DIGIT = re.compile(r"(?![0-9])\d")
EVERY = -1  # the mask of a word that may stand beside any other: all bits are set


def plain(text: str) -> NormalText:
    """Return a text as it is read: in normal form, upper and lower case apart, ASCII digits."""
    form = normalized(text, case=True)
    if form.text.isascii():
        return form
    digits = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), form.text)
    return form._replace(text=digits)


def tokens(text: str, start: int = 0) -> Iterator[re.Match[str]]:
    """Yield the figures and words of a text from a position on."""
    pattern = _TOKEN if as_ascii(text) is None else _ASCII_TOKEN
    yield from pattern.finditer(text, start)


def norm(word: str) -> str:
    """Return a word in lower case without a possessive, as words are compared."""
    return _POSSESSIVE.sub("", word.casefold().replace("’", "'"), count=1)


class Facts:
    """The facts that a list of values contains.

    `figures`: spellings of every figure. `past`: of the hour in "half past …" and the like. `days`:
    of the day or year beside each month. `words`: for each word a bit mask of the values that
    contain it (bit i for value i). `heads`: the same for the values that start with it.
    """

    def __init__(self, values: tuple[object, ...]) -> None:
        self.figures = Lexicon()
        self.past: dict[str, Lexicon] = defaultdict(Lexicon)
        self.days: dict[int, Lexicon] = defaultdict(Lexicon)
        self.words: dict[str, int] = {}
        self.heads: dict[str, int] = {}
        self._lone_days: set[int] = set()
        texts = [plain(text).text for value in values for text in _texts(value, self._name)]
        for index, text in enumerate(texts):
            self._read(text, 1 << index)
        self._finish()

    def mask(self, word: str, before: int) -> int:
        """Return the mask of the values that a word can be from, after words from `before`.

        The words of a name come from one value, or the word starts another value.
        """
        return self.words.get(word, 0) & before or self.heads.get(word, 0)

    def has_prefix(self, prefix: str, before: int) -> bool:
        """Whether any word with the prefix has a mask after words from `before`."""
        prefix = decomposed_start(prefix)  # an accent may follow
        at = bisect_left(self._sorted_words, (prefix, ""))
        while at < len(self._sorted_words) and self._sorted_words[at][0].startswith(prefix):
            if self.mask(self._sorted_words[at][1], before):
                return True
            at += 1
        return False

    def day(self, month: int, form: str) -> bool:
        """Whether the spelling is a known day or year of the month (1 to 12)."""
        return month in self.days and bool(self.days[month].get(form))

    def _name(self, name: str) -> None:
        """Let a reply use the name of a field, also in the plural."""
        for word in re.findall(r"[^\W\d_]+", name):
            self._word(word.casefold(), EVERY)
            self._word(word.casefold() + "s", EVERY)

    def _word(self, word: str, mask: int) -> None:
        self.words[word] = self.words.get(word, 0) | mask

    def _read(self, text: str, bit: int) -> None:
        self._read_words(text, bit)
        self._read_dates(text)
        self._read_times(text)
        self._read_phones(text)
        for match in tokens(text):
            if match.group()[0] in "0123456789":
                self._number(match.group())
            elif (value := NUMERALS.get(match.group().casefold())) is not None:
                self._number(str(value))
        for tens, unit in _COMPOUND.findall(text):
            self._number(str(TENS[tens.lower()] + UNITS[unit.lower()]))

    def _read_words(self, text: str, bit: int) -> None:
        for match in tokens(text):
            word = norm(match.group())
            if word[:1] in "0123456789":
                continue
            self._word(word, bit)
            if match.start() == 0:
                self.heads[word] = self.heads.get(word, 0) | bit
            for same in SAME_WORDS:
                if word in same:
                    for other in same:
                        self._word(other, bit)

    def _number(self, form: str) -> None:
        self.figures.add(form, As.NUMBER)
        pieces = _RANGE.split(form)
        if len(pieces) == 2:  # "9-17": a reply may name either end
            for piece in pieces:
                self._number(piece)
        # A longer one is an identifier, which has one spelling only.
        if not _NUMBER.fullmatch(form) or len(form) > 15:
            return
        value = Decimal(form.replace(",", ""))
        whole, fraction = int(value), format(value % 1, "f")[2:].rstrip("0")
        endings = [f".{fraction}", f".{fraction}0"] if fraction else ["", ".0", ".00"]
        for ending in endings:
            self.figures.add(f"{whole}{ending}", As.NUMBER)
            self.figures.add(f"{whole:,}{ending}", As.NUMBER)

    def _read_dates(self, text: str) -> None:
        for match in (match for pattern in _DATES for match in pattern.finditer(text)):
            groups = match.groupdict()
            month = int(groups.get("number") or MONTHS[(groups.get("month") or "jan").lower()])
            self._date(groups.get("year"), month, int(groups["day"]))
        for match in _MONTH_YEAR.finditer(text):
            self.days[MONTHS[match["month"].lower()]].add(match["year"], As.NUMBER)
        for match in _DAY_ALONE.finditer(text):
            self._lone_days.add(int(match[1]))

    def _date(self, year: str | None, month: int, day: int) -> None:
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return
        self._word(MONTH_NAMES[month - 1], EVERY)
        for form in (str(day), f"{day:02}"):
            self.figures.add(form, As.DAY)
            self.days[month].add(form, As.DAY)
        short, padded = f"{month}/{day}", f"{month:02}/{day:02}"
        forms = [short, padded]
        if year is not None:
            forms += [f"{year}-{month:02}-{day:02}", f"{year}/{month:02}/{day:02}", year]
            forms += [f"{short}/{year}", f"{padded}/{year}", f"{short}/{year[2:]}"]
            forms += [f"{day}.{month}.{year}", f"{day:02}.{month:02}.{year}"]
            self.days[month].add(year, As.NUMBER)
            self._weekday(int(year), month, day)
        for form in forms:
            self.figures.add(form, As.NUMBER)

    def _weekday(self, year: int, month: int, day: int) -> None:
        try:
            number = datetime.date(year, month, day).weekday()
        except ValueError:
            return
        self._word(WEEKDAY_NAMES[number], EVERY)

    def _read_times(self, text: str) -> None:
        # A value that is nothing but "05:30" comes from a record, whose hours are those of 24.
        exact = _CLOCK_VALUE.fullmatch(text.strip()) is not None
        for pattern in (_TIME, _TIME_DOT, _HOUR, _AT):
            for match in pattern.finditer(text):
                groups = match.groupdict()
                minute = int(groups.get("minute") or 0)
                self._time(_hour(groups["hour"]), minute, _half(groups), exact)
        for match in _PAST.finditer(text):
            groups = match.groupdict()
            minute = 30 if groups["quarter"].lower() == "half" else 15
            hour = _hour(groups["hour"])
            if groups["direction"].lower() in ("to", "of"):
                hour, minute = (hour - 1) % 12, 60 - minute
            self._time(hour or 12, minute, _half(groups), False)
        for match in _NOON.finditer(text):
            self._time(12, 0, "p" if match[1].lower() == "noon" else "a", False)

    def _time(self, hour: int, minute: int, half: str, exact: bool) -> None:
        """Add a time; if nothing says which half of the day it is, both are known."""
        if hour > 23 or minute > 59:
            return
        if half and hour <= 12:
            hours = {hour % 12 + (12 if half == "p" else 0)}
        elif exact or hour > 12 or hour == 0:
            hours = {hour}
        else:
            hours = {hour % 12, hour % 12 + 12}
        for clock in hours:
            self._clock(clock, minute)

    def _clock(self, hour: int, minute: int) -> None:
        """Add the spellings of a time in 24 hours."""
        half, short = (As.AM if hour < 12 else As.PM), hour % 12 or 12
        for form in {str(short), f"{short:02}", str(hour), f"{hour:02}"}:
            self.figures.add(f"{form}:{minute:02}", half | As.NUMBER)
        self.figures.add(f"{short}.{minute:02}", half)
        if minute == 0:
            self.figures.add(str(short), half | As.HOUR)
            self.figures.add(f"{short:02}", half | As.HOUR)
        elif minute in (15, 30):
            self.past["half" if minute == 30 else "quarter past"].add(str(short), half | As.NUMBER)
        elif minute == 45:
            self.past["quarter to"].add(str(short % 12 + 1), half | As.NUMBER)

    def _read_phones(self, text: str) -> None:
        for match in _PHONE.finditer(text):
            digits = re.sub(r"\D", "", match.group())
            # An ISO date has the shape of a phone number; 15 digits are the most (ITU-T E.164).
            if _ISO_DATE.fullmatch(match.group()) or not 7 <= len(digits) <= 15:
                continue
            pieces = re.findall(r"\d+", match.group())
            forms = {digits, "-".join(pieces), ".".join(pieces), *pieces}
            if len(digits) == 11 and digits[0] == "1":
                digits = digits[1:]
            if len(digits) == 10:
                area, office, line = digits[:3], digits[3:6], digits[6:]
                for join in "-.":
                    local = f"{office}{join}{line}"
                    forms |= {local, f"{area}{join}{local}", f"1{join}{area}{join}{local}"}
                forms |= {area, office, line, digits}
            for form in forms:
                self.figures.add(form, As.NUMBER)

    def _finish(self) -> None:
        """Add what follows from all values: days without a month, other spellings of names."""
        for day in self._lone_days:  # "the 8th": a reply may add any month
            for form in (str(day), f"{day:02}"):
                self.figures.add(form, As.DAY)
                for month in range(1, 13):
                    self.days[month].add(form, As.DAY)
        for names in (MONTHS, WEEKDAYS):
            known = {number for name, number in names.items() if name in self.words}
            for name, number in names.items():
                if number in known:
                    self._word(name, EVERY)
        self._sorted_words = sorted((decomposed(word), word) for word in self.words)


def _hour(text: str) -> int:
    return int(text) if text.isdigit() else NUMERALS[text.lower()]


def _half(groups: Mapping[str, str | None]) -> str:
    """Return "a" or "p" for the half of the day, "" if it is unknown."""
    if meridiem := groups.get("meridiem"):
        return meridiem.lower()
    if part := groups.get("part"):
        return "a" if part.lower() == "morning" else "p"
    return "p" if groups.get("night") else ""


def _texts(value: object, on_name: Callable[[str], None]) -> Iterator[str]:
    """Yield every text and number in a value; call `on_name` with the names of its fields."""
    if isinstance(value, str):
        parsed = _parsed(value)
        if parsed is None:
            yield value
        else:
            yield from _texts(parsed, on_name)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "role":  # of a chat turn: who speaks is no fact
                on_name(str(name))
                yield from _texts(inner, on_name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, on_name)
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        yield str(value)


def _parsed(text: str) -> object:
    """Return the table or list in a text of JSON, such as a record in a CSV column; else None."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return parse_json(text, keep_halves=True)
    except ValueError:
        return None
