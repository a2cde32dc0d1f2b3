"""Choose the messages of the example job from the Schema-Guided Dialogue data.

    python examples/support/build.py --data FOLDER
    python examples/support/build.py --data FOLDER --tune FILE

FOLDER holds `dev.jsonl` and `train.jsonl` in the layout that `recipes/sgd.py` describes. Writes
`messages.jsonl` and `cases.jsonl` beside this file: the same data give the same bytes. The second
line writes messages of `train.jsonl`, to tune a model on with the job's checks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from asked import NO, Asked, asked_of, denied, said  # noqa: E402
from cases import choose_cases, turns_of  # noqa: E402
from claims import untrue_claims  # noqa: E402
from required import offer_of, outcome_of, repeats_of  # noqa: E402

from recipes.sgd import dialogue_messages, read_dialogues  # noqa: E402

ITEMS = 240
CASES = 40
KEPT = 10  # of so many dialogues one is among the texts to keep
PER_DIALOGUE = 1
ASKED_SHARE = 0.4
LONGEST_PROMPT = 400  # tokens, estimated
LONG_AGO = 2  # turns of the customer since the record held the asked value

_CLOSING_WORDS = frozenset(
    re.findall(
        r"\S+",
        """a about again all alright am and any anything appreciate appreciated are as assistance at
    awesome be been beautiful bye care cool currently day do does don't done else enough everything
    evening excellent fantastic fine for from good goodbye great have help helped helpful helping i
    i'd i'll i'm i've is it it's just kind lot lots moment much my need needed needs nice night no
    nope not nothing now of ok okay one only perfect please really require right same see service so
    super sure take thank thankful thanks that that'd that'll that's the then there's think this
    thx time to today too very want was welcome well were will with wonderful would you you're
    you've your thats nah such more immense hear get got should set been bunch later talk
    always kindly lovely amazing guy hey oh alrighty enjoyed know information""",
    )
)
_LEAVE = re.compile(
    r"thank|thx|bye|appreciate|(that|it|this)('?s| is|'ll be| will be|) (all|it|everything)\b"
    r"|nothing|^\W*(no|nope)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A turn of a customer that could become a message of the job."""

    dialogue: str
    turn: int
    service: str
    message: str
    messages: list[dict[str, str]]
    record: dict[str, str]
    asked: list[Asked]
    offer: list[str]
    repeats: list[list[str]]
    outcome: list[str]
    untrue: list[str]
    long_ago: bool
    closing: bool
    reference: str

    @property
    def tidy(self) -> bool:
        """Whether the reference is written as a desk would: a capital first, a full stop last."""
        return re.fullmatch(r"[\"'$+]?[A-Z0-9].*[.!?]", self.reference, re.DOTALL) is not None

    @property
    def order(self) -> str:
        """A place in a shuffled order that depends on the turn alone."""
        return hashlib.sha256(f"{self.dialogue}/{self.turn}".encode()).hexdigest()

    def row(self) -> dict[str, object]:
        """Return the line of `messages.jsonl`."""
        first = self.asked[0] if self.asked else None
        second = self.asked[1] if len(self.asked) > 1 else None
        return {
            "id": f"{self.dialogue}-{self.turn // 2}",
            "service": self.service,
            "message": self.message,
            "messages": self.messages,
            "record": self.record,
            "asked": first.forms if first else [],
            "asked_too": second.forms if second else [],
            "offer": self.offer,
            "repeats": self.repeats[0] if self.repeats else [],
            "repeats_too": self.repeats[1] if len(self.repeats) > 1 else [],
            "outcome": self.outcome,
            "untrue": self.untrue,
            "reference": self.reference,
        }


def is_closing(message: str) -> bool:
    """Tell whether a message only thanks, declines more, or takes leave."""
    words = re.findall(r"[a-z']+", message.lower().replace("’", "'"))
    return "?" not in message and _CLOSING_WORDS.issuperset(words) and bool(_LEAVE.search(message))


def fields_of_services(dialogues: Iterable[Mapping[str, object]]) -> dict[str, set[str]]:
    """Return each service's record fields, learned from the dialogues about one service only."""
    fields: dict[str, set[str]] = defaultdict(set)
    for dialogue in dialogues:
        services = dialogue["services"]
        if len(services) == 1:
            for _, _, record in dialogue["turns"][1::2]:
                fields[services[0]].update(record)
    return fields


def service_of(
    record: Mapping[str, str],
    services: Sequence[str],
    fields: Mapping[str, set[str]],
    before: str,
) -> str:
    """Return the service whose fields a record has; with no record, the one spoken of before."""
    if not record:
        return before
    shared = {name: len(fields[name].intersection(record)) for name in services}
    most = max(shared.values())
    return before if shared[before] == most else max(services, key=lambda name: shared[name])


def candidates(
    dialogue: Mapping[str, object], fields: Mapping[str, set[str]]
) -> Iterator[Candidate]:
    """Yield every turn of the customer with its conversation, its record and what it asks."""
    turns, services = dialogue["turns"], dialogue["services"]
    service = services[0]
    records: list[dict[str, str]] = []
    for turn in range(0, len(turns) - 1, 2):
        message, (_, reference, record) = turns[turn][1], turns[turn + 1]
        service = service_of(record, services, fields, service)
        records.append(record)
        asked, untrue = _expected(message, record, reference)
        yield Candidate(
            dialogue=dialogue["id"],
            turn=turn,
            service=service,
            message=message,
            messages=dialogue_messages(dialogue, upto=turn + 1),
            record=record,
            asked=asked,
            offer=_kept(offer_of(records), reference, message),
            repeats=[forms for forms in repeats_of(records) if said(reference, forms)],
            outcome=_kept(outcome_of(record), reference),
            untrue=untrue_claims(records) + untrue,
            long_ago=bool(asked) and _is_long_ago(asked[0].field, records),
            closing=is_closing(message),
            reference=reference.strip(),
        )


def _expected(
    message: str, record: Mapping[str, str], reference: str
) -> tuple[list[Asked], list[str]]:
    """Return what is asked, and what would be an untrue answer, as the reference bears out."""
    asked = [one for one in asked_of(message, record) if said(reference, one.forms)]
    no = denied(message, record)
    if no and said(reference, NO):
        asked.append(Asked("no", list(NO)))
    return asked, list(NO) if no is False and not said(reference, NO) else []


def _kept(forms: list[str], reference: str, message: str = "") -> list[str]:
    """Return the forms if the reference says one of them, and the message none."""
    return forms if said(reference, forms) and not said(message, forms) else []


def _is_long_ago(field: str, records: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether the record has held this value for `LONG_AGO` turns and more."""
    value = records[-1].get(field)
    recent = records[-1 - LONG_AGO :]
    return (
        value is not None
        and len(recent) > LONG_AGO
        and all(record.get(field) == value for record in recent)
    )


def prompt_tokens(messages: Sequence[Mapping[str, str]]) -> float:
    """Estimate the length of a prompt in tokens of SmolLM2, template included, to about 7%.

    The weights were fitted to the tokenizer's own counts; digits are single tokens there.
    """
    text = "\n".join(message["content"] for message in messages)
    words = len(re.findall(r"[A-Za-z]+", text))
    digits = len(re.findall(r"\d", text))
    marks = len(re.findall(r"[^\w\s]|_|\n", text))
    return 1.04 * words + 0.95 * digits + 1.36 * marks + 5.4 * len(messages) + 24


def choose(everything: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose messages: services in turn, askers and closings in their shares, no twins.

    Among those who ask, every other one asks for something that the record has held for long.
    """
    closing_share = sum(c.closing for c in everything) / len(everything)
    pools: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(everything, key=lambda c: c.order):
        pools[candidate.service].append(candidate)
    chosen: list[Candidate] = []
    used: Counter[str] = Counter()
    seen: set[str] = set()
    while len(chosen) < count:
        for service in sorted(pools)[: count - len(chosen)]:
            kinds = _wanted_kinds(chosen, service, closing_share)
            pick = _pick(pools[service], kinds, used, seen)
            if pick is None:
                raise SystemExit(f"too few messages of {service}: {len(chosen)} were found.")
            chosen.append(pick)
            used[pick.dialogue] += 1
            seen.add(_twin_key(pick))
    return sorted(chosen, key=lambda c: c.order)


def kind(candidate: Candidate) -> str:
    """Return which of the four kinds of messages this is."""
    if candidate.asked:
        return "asked long ago" if candidate.long_ago else "asked"
    return "closing" if candidate.closing else "other"


def _wanted_kinds(chosen: Sequence[Candidate], service: str, closing_share: float) -> list[str]:
    """Return the kinds in the order of how much they lag behind their shares.

    They are to be right within the service first, then over all.
    """
    shares = {
        "asked": ASKED_SHARE / 2,
        "asked long ago": ASKED_SHARE / 2,
        "closing": closing_share,
        "other": 1 - ASKED_SHARE - closing_share,
    }
    overall = _lags(chosen, shares)
    within = _lags([c for c in chosen if c.service == service], shares)
    order = sorted(shares, key=lambda name: within[name] + overall[name] / 4)
    return [name for name in order if name != "closing" or overall[name] < 0]


def _lags(chosen: Sequence[Candidate], shares: Mapping[str, float]) -> dict[str, float]:
    """Return for each kind how many more than its share were chosen; below 0 where fewer were."""
    have = Counter(kind(c) for c in chosen)
    return {name: have[name] - share * (len(chosen) + 1) for name, share in shares.items()}


def _pick(
    pool: Sequence[Candidate], kinds: Sequence[str], used: Mapping[str, int], seen: set[str]
) -> Candidate | None:
    """Return the first candidate of the first kind that has one left."""
    free = [
        c
        for c in pool
        if c.tidy
        and used[c.dialogue] < PER_DIALOGUE
        and _twin_key(c) not in seen
        and prompt_tokens(c.messages) <= LONGEST_PROMPT
    ]
    return next((c for name in kinds for c in free if kind(c) == name), None)


def _twin_key(candidate: Candidate) -> str:
    return json.dumps([candidate.message.lower(), candidate.record], sort_keys=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def chosen_of(path: Path, count: int, every: int = 1) -> list[Candidate]:
    """Return the messages chosen from a file of dialogues, or from every so many of them."""
    dialogues = list(read_dialogues(path))[::every]
    fields = fields_of_services(dialogues)
    return choose([c for d in dialogues for c in candidates(d, fields)], count)


def main() -> None:
    """Write the messages and print what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data")
    parser.add_argument("--tune", type=Path, metavar="FILE", help="write messages to tune on there")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="write people's dialogues to keep there, too"
    )
    parser.add_argument("--count", type=int, default=800, help="messages to tune on")
    options = parser.parse_args()
    folder = options.data
    if options.tune is not None:
        # A fifth of them is as many as dev.jsonl has.
        chosen = chosen_of(folder / "train.jsonl", options.count, every=5)
        write_rows(options.tune, [c.row() for c in chosen])
        if options.texts is not None:
            dialogues = list(read_dialogues(folder / "train.jsonl"))[::KEPT]
            write_rows(options.texts, [{"messages": dialogue_messages(d)} for d in dialogues])
        return
    chosen = chosen_of(folder / "dev.jsonl", ITEMS)
    write_rows(HERE / "messages.jsonl", [c.row() for c in chosen])
    past = turns_of(read_dialogues(folder / "train.jsonl"))
    cases = choose_cases([turn for turn in past if is_closing(turn[0])], CASES)
    write_rows(HERE / "cases.jsonl", cases)
    print(f"{len(chosen)} messages, {len(cases)} past cases")
    for title, counts in (
        ("kind", Counter(map(kind, chosen))),
        ("service", Counter(c.service for c in chosen)),
    ):
        print(title, dict(sorted(counts.items())))


if __name__ == "__main__":
    main()
