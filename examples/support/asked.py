"""Which value a customer asked for, and the forms in which a reply may say it.

Read from the customer's message and the record alone; knows nothing of replies but `said`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Ask(NamedTuple):
    """A way to ask, and the record's fields that hold the answer, the likeliest first."""

    question: re.Pattern[str]
    fields: tuple[str, ...]


class Asked(NamedTuple):
    """A field that was asked for, with the forms of its value that count as said."""

    field: str
    forms: list[str]


def _ask(question: str, *fields: str) -> Ask:
    return Ask(re.compile(question, re.IGNORECASE), fields)


_LEAVE = r"(leav|depart|tak(e|es|ing) off|take-?off|flying out|fly out)"
_ARRIVE = r"(arriv|land|get (there|in)|reach|destination)"
_WHICH = r"(which|what|name of|where)"
_WHEN = r"(when|what time|time)"

ASKS: tuple[Ask, ...] = (
    _ask(r"\bphone\b|telephone|contact (number|no|info|detail)|(their|his|her|the|your) (number"
         r"|digits)\b|how (do|can|could|would|should) i (contact|reach|call|talk)|number to call",
         "phone_number"),
    _ask(r"where.*(pick|collect|get (it|the car))|pick-? ?up (location|place|point|spot|address)"
         r"|(which|what) (location|place|station|airport).*pick", "pickup_location"),
    _ask(r"\badd?ress|where('s| is| are| will| can| does| do).*\b(located|location|place|happen"
         r"|find|venue|office|hotel|held|they|it|at)\b|(exact|physical|their|its|the) location",
         "street_address", "address_of_location", "address"),
    _ask(r"balance|how much (money )?(is|do i|have|i have)\b.*(account|checking|savings)"
         r"|what about my (checking|savings)|how about my (checking|savings)", "account_balance"),
    _ask(r"how long|duration|length of|length and|reach there|minutes",
         "approximate_ride_duration"),
    _ask(r"how long|when (will|does|should)|how (many|much) (days|time)", "transfer_time"),
    _ask(r"how much (is|it|are|does|do|would|will|for|should|was|and|money|to|per|a\b|this|that"
         r"|i|\?)|how much\W*$|how much's|\b(price|cost|costs|costing|fare|bill|nightly rate"
         r"|(the|monthly) rent|charge|run me|pay|total)\b",
         "total_price", "ride_fare", "price_per_night", "fare", "rent", "price"),
    _ask(r"(price|cost|expensive|cheap|pricey|economical|affordable)", "price_range"),
    _ask(r"\bstars?\b.*(rat|is|many)|\brat(ed|ing|ings)\b|how many stars|reviews?\b",
         "rating", "aggregate_rating", "star_rating"),
    _ask(r"direct(ed|or|s)\b", "director"),
    _ask(r"\b(actors?|acted|acts|acting|stars?|starring|starred|cast|hero|who('s| is) in"
         r"|plays in)\b", "starring", "actors"),
    _ask(r"subtitle", "subtitle_language"),
    _ask(r"genre|(type|kind|sort|style) of (music|song|movie|film)|what kind|what type",
         "genre"),
    _ask(r"(type|kind|sort|style) of (food|cuisine|restaurant|meal|dish)|what (cuisine|food|do they"
         r" serve)", "category"),
    _ask(r"(type|kind|sort) of (event|show|game|concert|sport|music|attraction|place|match)"
         r"|what sport|more (info|information|details)|(what|which) (kind|type)", "subcategory",
         "category"),
    _ask(r"humid", "humidity"),
    _ask(r"\bwind(y|s|iness)?\b", "wind"),
    _ask(r"\brain|precipitation", "precipitation"),
    _ask(r"temperature|how (hot|cold|warm)|weather|forecast", "temperature"),
    _ask(rf"{_WHICH}.*(air)?port.*{_LEAVE}|{_LEAVE}.*airport|where.*{_LEAVE}",
         "origin_airport_name"),
    _ask(rf"{_WHICH}.*(air)?port.*{_ARRIVE}|{_ARRIVE}.*airport|where.*{_ARRIVE}",
         "destination_airport_name"),
    _ask(rf"{_WHICH}.*station.*{_LEAVE}|{_LEAVE}.*station|where.*{_LEAVE}|catch the bus",
         "from_station"),
    _ask(rf"{_WHICH}.*station.*({_ARRIVE}|going|end up)|{_ARRIVE}.*station|where.*{_ARRIVE}",
         "to_station"),
    _ask(rf"{_WHEN}.*(return|back).*{_ARRIVE}", "inbound_arrival_time"),
    _ask(rf"{_WHEN}.*(return|back).*{_LEAVE}", "inbound_departure_time"),
    _ask(rf"{_WHEN}.*{_ARRIVE}|arrival time", "outbound_arrival_time"),
    _ask(rf"{_WHEN}.*{_LEAVE}|departure time", "outbound_departure_time", "leaving_time"),
    _ask(rf"{_WHEN}.*(start|begin|event|show|game|concert|happen)", "time"),
    _ask(r"\b(what|which|kind of|type of)\b.*(class|seat)|class of|is (it|this|that|the)\b"
         r".*(business|economy|first class)", "flight_class"),
    _ask(r"which airline|what airline", "airlines"),
    _ask(r"what year|which year|when (was|did|is)|year|how old|released?", "year"),
    _ask(r"(what|which|name of the|from the) album", "album"),
    _ask(r"(who|artist|singer|sings|sung|by whom)", "artist"),
    _ask(r"\balarms?\b|any other|the other", "alarm_time"),
    _ask(r"where|which venue|what venue", "event_location"),
    _ask(r"(what|which) (car|model)|(kind|type) of car|name of the car", "car_name", "type"),
    _ask(r"(kind|type|sort) of (therapist|doctor|counsel|specialist)|speciali", "type"),
)  # fmt: skip
"""Read in order: the first field of the first question that the record answers comes first."""

YES_OR_NO: tuple[Ask, ...] = (
    _ask(r"wi-?fi|internet", "has_wifi"),
    _ask(r"\bpets?\b|\b(dog|cat)s?\b", "pets_allowed"),
    _ask(r"smok", "smoking_allowed"),
    _ask(r"furnish|furniture", "furnished"),
    _ask(r"vegetarian|vegan", "has_vegetarian_options"),
    _ask(r"outdoor|outside|al fresco", "has_seating_outdoors"),
    _ask(r"\b(kid|child|children|family)", "good_for_kids"),
    _ask(r"free|entr(y|ance) fee|charge", "free_entry"),
    _ask(r"next day|day after|same day", "arrives_next_day"),
)
"""Questions whose answer is yes or no in the record."""

NO = (
    "no",
    "not",
    "don't",
    "doesn't",
    "isn't",
    "aren't",
    "can't",
    "cannot",
    "unfortunately",
    "sadly",
)
"""Words of which a reply that says no has one, and a reply that says yes has none."""

_REQUEST = re.compile(
    r"\?|\b(tell me|give me|know|find out|provide|share|let me|may i|can i|could i|show me"
    r"|check|(get|grab) me (the|their|his|her|its|an?)"
    r"|(want|need|see|have) (the|their|his|her|its|my))\b"
    r"|(^|[.,!] *)(and |also |ok(ay)?,? )?(what|how|who|where|when|which)('?s)?\b",
    re.IGNORECASE,
)
_SEARCH = re.compile(
    r"\b(find|search|look(ing)?|book|reserve|another|others?|else|more options|alternatives?|buy|"
    r"recommend|suggest|schedule|transfer|set|add|change|make)\b",
    re.IGNORECASE,
)
_SEARCHABLE = frozenset(
    {
        *("category", "subcategory", "genre", "type", "director", "starring", "actors", "artist"),
        *("album", "year", "subtitle_language", "flight_class", "airlines", "leaving_time", "time"),
        *("car_name", "event_location", "star_rating", "price_range", "alarm_time"),
        "pickup_location",
    }
)
"""Fields that customers name when they look for something, which is not to ask for them."""

_MONEY = frozenset(
    {
        *("total_price", "ride_fare", "price_per_night", "fare", "rent", "price"),
        *("account_balance", "transfer_amount"),
    }
)
_UNITS = {
    "humidity": ("{}%", "{} percent"),
    "precipitation": ("{}%", "{} percent"),
    "wind": ("{} miles", "{} mph"),
    "temperature": ("{} degrees", "{} F"),
    "approximate_ride_duration": ("{} minutes", "{} min", "{}-minute"),
    "transfer_time": ("{} business days", "{} days"),
    "star_rating": ("{} stars", "{} star", "{}-star"),
    "rating": ("{} stars",),
}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def said(text: str, forms: Sequence[str]) -> bool:
    """Tell whether a text says one of the forms, as words of their own, in any case."""
    return any(
        re.search(rf"(?<!\w){re.escape(form)}(?!\w)(?![.:,]\d)", text, re.IGNORECASE)
        for form in forms
    )


def forms_of(field: str, value: str) -> list[str]:
    """Return the ways to say a field's value, the plainest first, each once."""
    forms = [value]
    if field in _MONEY:
        forms = _money(value)
    elif re.fullmatch(r"\d{1,2}:\d\d|\d{1,2}(:\d\d)? ?[ap]m", value, re.IGNORECASE):
        forms = _clock(value)
    elif re.fullmatch(r"\d+(\.\d+)?", value):
        forms = _number(field, value)
    elif field == "phone_number":
        forms = [value, re.sub(r"^\+\d+ ", "", value)]
    elif field in ("address", "street_address", "address_of_location"):
        forms = [value, value.split(",")[0], re.split(r" ?#", value)[0]]
    return list(dict.fromkeys(form for form in forms if form))


def _money(value: str) -> list[str]:
    """ "$1,650" as "$1,650", "$1650", "1,650", "1650", "1650 dollars"."""
    plain = value.replace("$", "").replace(",", "").strip()
    whole, _, cents = plain.partition(".")
    plain = f"{whole}.{cents:0<2}" if cents else whole
    grouped = f"{int(whole):,}{plain[len(whole) :]}"
    return [f"${grouped}", f"${plain}", grouped, plain, f"{plain} dollars", f"{grouped} dollars"]


def _clock(value: str) -> list[str]:
    """ "13:00" or "1 pm" as "1 pm", "1:00 pm", "1pm", "13:00"."""
    match = re.fullmatch(r"(\d{1,2})(?::(\d\d))? ?([ap]m)?", value, re.IGNORECASE)
    assert match is not None
    hour, minute, half = int(match[1]), match[2] or "00", (match[3] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    twelve, half = hour % 12 or 12, "pm" if hour >= 12 else "am"
    short = f"{twelve}" if minute == "00" else f"{twelve}:{minute}"
    dotted = f"{half[0]}.{half[1]}."
    forms = [f"{short} {half}", f"{twelve}:{minute} {half}", f"{short}{half}"]
    forms += [f"{twelve}:{minute}{half}", f"{short} {dotted}", f"{hour}:{minute}"]
    forms += [f"{hour:02}:{minute}", f"{twelve}:{minute}"]
    return forms + ({0: ["midnight"], 12: ["noon"]}.get(hour, []) if minute == "00" else [])


def _number(field: str, value: str) -> list[str]:
    """ "4.00" as "4.00 stars", "4.0", "4"; small whole numbers in words too."""
    short = re.sub(r"\.?0+$", "", value) if "." in value else value
    shapes = [f"{float(value):.1f}", value, short] if "." in value else [short]
    if short.isdigit() and int(short) < 10 and "." not in value:
        shapes.append(_NUMBER_WORDS[int(short)])
    units = _UNITS.get(field, ())
    if short == "1":
        units = tuple(unit.removesuffix("s") for unit in units)
    return [unit.format(shape) for shape in shapes for unit in units] + shapes


def asked_of(message: str, record: Mapping[str, str]) -> list[Asked]:
    """Return what a message asks for and its record holds, in the order of `ASKS`.

    What the message itself says is not asked for, nor is a field by which something new is sought.
    """
    if not _REQUEST.search(message):
        return []
    seeks = bool(_SEARCH.search(message))
    found: dict[str, Asked] = {}
    for ask in ASKS:
        field = next((name for name in ask.fields if name in record), None)
        if field is None or field in found or not ask.question.search(message):
            continue
        value = record[field]
        if value.lower() in ("none", "yes", "no") or (seeks and field in _SEARCHABLE):
            continue
        forms = forms_of(field, value)
        if not said(message, forms):
            found[field] = Asked(field, forms)
    return list(found.values())


def denied(message: str, record: Mapping[str, str]) -> bool | None:
    """Tell whether the one yes-or-no question of a message is to be answered with no.

    None where there is no such question, or more than one.
    """
    if "?" not in message and not _REQUEST.search(message):
        return None
    if _SEARCH.search(message):
        return None
    fields = [ask.fields[0] for ask in YES_OR_NO if ask.question.search(message)]
    if len(fields) != 1 or record.get(fields[0]) not in ("yes", "no"):
        return None
    return record[fields[0]] == "no"
