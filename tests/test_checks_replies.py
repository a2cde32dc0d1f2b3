"""Prefix verdicts on real replies of a service, read character by character."""

from __future__ import annotations

import pytest

from ostinato.checks import (
    BaseCheck,
    Blocked,
    Contains,
    EndsWith,
    Excludes,
    Grounded,
    Length,
    Regex,
    Repetition,
    Sentiment,
    StartsWith,
)
from ostinato.loop import Item, PrefixStatus

REPLIES = """
Your table for 2 at Sino in San Jose is booked for 11:30 am on March 1st.
Their phone number is 408-247-8880, and the street address is 377 Santana Row #1000.
I found 10 hotels. How about The Aubrey? It has a 4-star rating and costs $480 per night.
Unfortunately, I couldn't book the room. Would you like to try another date?
The flight with Delta Airlines leaves at 6:30 am and arrives at 5 pm; it costs 480 dollars.
Please confirm: a one-way ticket from Chicago to New York on Friday, March 1, for two people.
Sure! Your balance is $1,480.00.
There are three one-bedroom apartments in Berkeley. One is at 1900 Oregon Street.
It has begun playing on the kitchen speaker. Enjoy!
The weather will be 75 degrees Fahrenheit with a 12 percent chance of rain.
I'm sorry, the 7:00 pm slot is no longer available; half past eight is.
What city do you want to dine in? Do you have a preferred restaurant?
You can reach Dr. O'Neil at (415) 555-0132, or +1 415 555 0132, between 9 and 5.
The event starts at 17:00 and the doors open at quarter to 5.
Is there anything else I can help you with?
Thank you for your patience. I really appreciate it, and I hope you have a wonderful day!
The movie "Captain Marvel" directed by Anna Boden can be rented for $4.
You're transferring $480 from checking to savings. Is that correct?
Yes, they have vegetarian options, but no outdoor seating. They're rated 4.5 out of 5.
1. Sino, 377 Santana Row
2. Sipan Peruvian Restaurant & Bar, on The Alameda
We're open 24/7, except for the 4th of July and December 25th.
The rental car is a Toyota Camry; pick it up at LAX on 2019-03-11 at 16:30.
Hello Mr. Smith, your order no. A380-7 has shipped and should arrive by Monday.
The check-in is at 3 p.m. and the check-out at 11 a.m. on the 8th.
Our refund policy covers twenty-one days from the purchase; refunds take 3 to 5 days.
Don't worry: nothing was charged to your card ending in 4321.
I have found a pop concert by Ariana Grande at the Oracle Arena on March 9th at 8 pm.
The bus leaves Fresno at ten past 9 and takes 3.5 hours, about 190 miles.
OK, what time should I book the appointment for? They have slots at 10:15 and 14:45.
Your stay from March 3rd until the 10th of March, 7 nights, costs 1480 in all.
Great, wait, that is great, that is great news, and that is great to hear.
""".strip().splitlines()

ITEM: Item = {
    "message": "A table for 2 at half past 11 please, or a flight on the 8th. I'm Smith.",
    "record": {
        "restaurant_name": "Sipan Peruvian Restaurant & Bar",
        "address": "377 Santana Row #1000",
        "city": "San Jose",
        "date": "2019-03-01",
        "time": "17:00",
        "phone_number": "408-247-8880",
        "price": "$480",
        "rating": "4.50",
    },
    "asked": ["408-247-8880", "11:30", "$480"],
}

CHECKS: dict[str, BaseCheck] = {
    "grounded": Grounded(),
    "grounded without a record": Grounded(sources=("message",)),
    "words": Length(min=6, max=12),
    "sentences": Length(min=2, max=2, unit="sentences"),
    "characters": Length(max=80, unit="characters"),
    "contains": Contains(column="asked"),
    "contains all": Contains(texts=("is", "the"), patterns=(r"\d+",), mode="all"),
    "excludes": Excludes(texts=("sorry", "res", "all"), patterns=(r"\b\d{4}\b",)),
    "blocked": Blocked(words=("refund*", "card", "*wonder*")),
    "starts": StartsWith(texts=("The", "Your", "I ")),
    "ends": EndsWith(texts=("?", "!")),
    "sentiment": Sentiment(min=0.2),
    "repetition": Repetition(n=3, times=2),
    "regex": Regex(pattern=r"[A-Z][^.!?]+[.?]( [A-Z][^.!?]+[.?])?"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_prefix_verdicts_agree_with_the_verdict_on_the_reply(name: str) -> None:
    check = CHECKS[name]
    for reply in REPLIES:
        passed = check.judge(reply, ITEM).passed
        for end in range(len(reply) + 1):
            status = check.check_prefix(reply[:end], ITEM).status
            assert not (status is PrefixStatus.IMPOSSIBLE and passed), reply[:end]
            assert not (status is PrefixStatus.CERTAIN and not passed), reply[:end]


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_impossible_stays_impossible(name: str) -> None:
    check = CHECKS[name]
    for reply in REPLIES:
        settled = PrefixStatus.POSSIBLE
        for end in range(len(reply) + 1):
            status = check.check_prefix(reply[:end], ITEM).status
            assert settled is PrefixStatus.POSSIBLE or status is settled, reply[:end]
            settled = status


def test_ungrounded_replies_are_impossible_once_their_last_word_has_ended() -> None:
    check = CHECKS["grounded"]
    failing = [reply for reply in REPLIES if not check.judge(reply, ITEM).passed]
    assert len(failing) > 15
    for reply in failing:
        assert check.check_prefix(reply + " B", ITEM).status is PrefixStatus.IMPOSSIBLE, reply
