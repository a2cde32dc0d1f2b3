"""The check grounded: which claims it sees, which sources contain them, how early it knows."""

from __future__ import annotations

import json

import pytest

from ostinato.checks import Grounded
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixStatus, Span

CHECK = Grounded()
RECORD = {
    "address": "377 Santana Row #1000",
    "city": "San Jose",
    "date": "2019-03-01",
    "found": 10,
    "has_outdoor_seating": "yes",
    "phone_number": "408-247-8880",
    "price": "$480",
    "rating": "4.00",
    "restaurant_name": "Sipan Peruvian Restaurant & Bar",
    "time": "17:00",
}
ITEM: Item = {
    "message": "A table for two at half past 11 in the morning, or at 6. I am with Ann O'Neil.",
    "conversation": [{"role": "user", "content": "Somewhere on Elm St please, the 8th."}],
    "record": RECORD,
}


@pytest.mark.parametrize(
    "text",
    [
        "I found 10 restaurants.",
        "The date is March 1st, 2019.",
        "It is on the 1st of March.",
        "It is on 1 March 2019, a Friday.",
        "It is on Friday, March 1.",
        "It is on 3/1/2019, or 2019-03-01.",
        "The 8th, or March 8th?",
        "It is open until 5 pm, 5:00 pm, or 17:00.",
        "Come at 5 o'clock, or at five.",
        "It is at 11:30, 11:30 am or half past eleven.",
        "At 6:00 pm or at 6?",
        "It is rated 4, 4.0 or 4.00.",
        "It costs 480 dollars, $480 or $480.00.",
        "Call 408-247-8880, (408) 247-8880, +1 408-247-8880, 408.247.8880 or 4082478880.",
        "Find it at 377 Santana Row #1000, San Jose.",
        "Shall I book Sipan Peruvian Restaurant & Bar for two people?",
        "Sipan in San Jose is SIPAN's best.",
        "Elm Street it is, Ms O'Neil, for 2.",
        "1. Sipan\n2. The other one",
        "Unfortunately, I have no more. Confirming: one table.",
        "I'm sorry, I can't. Don't worry! OK?",
        "",
    ],
)
def test_what_the_sources_contain_is_grounded_in_every_spelling(text: str) -> None:
    verdict = CHECK.judge(text, ITEM)
    assert verdict.passed, verdict.message
    assert verdict.score == 1


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("I found 12 restaurants.", "12"),
        ("We are open 24/7, today and tomorrow.", "24/7"),
        ("Text +1 to join.", "1"),
        ("Come in May.", "May"),
        ("It is 5 pm EST.", "EST"),
        ("It ships to the US.", "US"),
        ("It costs ３２ dollars.", "３２"),
        ("电话12号", "12"),
        ("It is in Sa\u0303o Paulo.", "Sa\u0303o Paulo"),
        ("I found three restaurants.", "three"),
        ("I found twenty-two.", "twenty-two"),
        ("It is on March 2nd.", "2"),
        ("It is on 2 March.", "2"),
        ("It is in April.", "April"),
        ("It is on Monday.", "Monday"),
        ("It is on the 9th.", "9"),
        ("Come at 5 am.", "5"),
        ("Come at 11:30 pm.", "11:30"),
        ("Come at 11:45.", "11:45"),
        ("Come at quarter past 11.", "11"),
        ("There are 5 left.", "5"),
        ("It costs $481.", "481"),
        ("It is rated 4.5.", "4.5"),
        ("Call 408-247-8881.", "408-247-8881"),
        ("It is at 378 Santana Row.", "378"),
        ("It is in San Francisco.", "Francisco"),
        ("Palo Alto is near.", "Palo Alto"),
        ("Ask for Bob Miller there.", "Bob Miller"),
        ("Sipan Jose is good.", "Jose"),
        ("Your flight is BA217.", "BA217"),
        ("Your code is x9y.", "x9y"),
    ],
)
def test_what_no_source_contains_is_named_with_its_span(text: str, claim: str) -> None:
    verdict = CHECK.judge(text, ITEM)
    assert not verdict.passed
    assert verdict.span is not None
    assert text[slice(*verdict.span)] == claim
    assert verdict.message == (
        f'Leave out "{claim}": it is not in the sources (message, conversation, record).'
    )


def test_the_score_is_the_share_of_grounded_claims() -> None:
    verdict = CHECK.judge("It is in San Jose at 5 pm, and costs $9 or $7.", ITEM)
    assert verdict.score == 0.5
    assert '"9" and "7": they are not' in verdict.message


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("Call 41", 5),  # nothing known begins so
        ("Call 408-248", 5),
        ("It costs $481", 10),
        ("It is in San Z", 13),
        ("It is in Q", 9),
        ("Come at 5 am ", 8),
        ("Come at 9", 8),
        ("Come half past 9", 15),
        ("On March 3", 9),
        ("There are 5 l", 10),
        ("There are three ", 10),
        ("Palo ", 0),
        ("Your code is x", None),
        ("Your code is x9", 13),
        ("Call 408", None),
        ("Call 408-", None),
        ("It is in San", None),
        ("It is in San J", None),
        ("Come at 5 am", None),  # 5 amber lights?
        ("Come at 1", None),
        ("Come at 5", None),
        ("There are three", None),
        ("There are 5", None),  # 5:00
        ("There are 5 ", None),  # 5 pm
        ("On the 1", None),
        ("1", None),
        ("3", None),  # 3. in a list
        ("Pal", None),  # Palpably, ...
        ("It is on Fr", None),
    ],
)
def test_a_claim_is_impossible_as_soon_as_nothing_can_ground_it(
    text: str, start: int | None
) -> None:
    verdict = CHECK.check_prefix(text, ITEM)
    if start is None:
        assert verdict.status is PrefixStatus.POSSIBLE
    else:
        assert verdict.status is PrefixStatus.IMPOSSIBLE
        assert verdict.span == Span(start, len(text.rstrip(" l").removesuffix(" am")))


def test_sources_may_be_json_texts_pairs_and_named_columns() -> None:
    record = json.dumps({"city": "Oslo", "price": 12.5})
    assert CHECK.judge("Oslo, 12.50", {"record": record}).passed
    turns = [["user", "Oslo at 7 pm"], ["assistant", "Sure", {"found": "3"}]]
    assert CHECK.judge("We have 3 in Oslo at 19:00.", {"conversation": turns}).passed
    named = Grounded(sources=("facts",), allow=("Acme Hotels",))
    assert named.columns == ("facts",)
    assert CHECK.columns == ()
    assert named.judge("Thank you for choosing Acme Hotels.", {"facts": {}}).passed
    with pytest.raises(InputError, match=r'must have "facts", got \'record\''):
        named.judge("Hello", {"record": {}})
    with pytest.raises(InputError, match=r'must have "message", "conversation" or "record"'):
        CHECK.judge("Hello", {})


def test_a_conversation_that_grew_is_read_again() -> None:
    turns = ["Hello"]
    item = {"conversation": turns}
    assert not CHECK.judge("It is 7.", item).passed
    turns.append("At 7?")
    assert CHECK.judge("It is 7:00.", item).passed


def test_yes_and_no_are_no_names_and_booleans_no_figures() -> None:
    assert not CHECK.judge("There is 1 left.", {"record": {"open": True}}).passed


def test_an_idiom_is_known_where_it_is_allowed() -> None:
    item = {"f": "8 mm drop"}
    assert not Grounded(sources=("f",)).judge("Open 24/7 for you.", item).passed
    assert Grounded(sources=("f",), allow=("24/7",)).judge("Open 24/7 for you.", item).passed


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("Transform your Smile with Colgate, 8 mm.", None),
        ("Transform your 9 mm.", "9"),
        ("It is on Monday.", "Monday"),
        ("It is on the 3rd of April.", "3"),
        ("Your flight is BA217 with Delta.", "BA217"),
        ("There are twenty of them in Rome.", "twenty"),
    ],
)
def test_without_names_only_figures_dates_and_codes_are_claims(
    text: str, claim: str | None
) -> None:
    check = Grounded(sources=("f",), names=False)
    item = {"f": "8 mm drop"}
    verdict = check.judge(text, item)
    assert verdict.passed == (claim is None)
    assert verdict.span is None or text[slice(*verdict.span)] == claim
    for end in range(len(text) + 1):
        prefix = check.check_prefix(text[:end], item)
        assert prefix.status is PrefixStatus.POSSIBLE or claim is not None
    # A check of names that reads the same facts is not misled by what this one has read.
    assert not Grounded(sources=("f",)).judge(text, item).passed
    if claim is None:
        verdict_with_names = Grounded(sources=("f",)).check_prefix(text, item)
        assert verdict_with_names.status is PrefixStatus.IMPOSSIBLE


def test_accents_and_digits_may_be_written_in_another_form() -> None:
    item = {"f": "São Paulo, ٣٢ km"}
    check = Grounded(sources=("f",))
    text = "It is in Sa\u0303o Paulo, 32 km from here."
    assert check.judge(text, item).passed
    for end in range(len(text) + 1):
        assert check.check_prefix(text[:end], item).status is PrefixStatus.POSSIBLE, text[:end]
