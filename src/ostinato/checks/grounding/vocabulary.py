"""English words that the recognition of figures and names needs. Tables only."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)
MONTHS: dict[str, int] = {
    **{name: number for number, name in enumerate(MONTH_NAMES, 1)},
    **{name[:3]: number for number, name in enumerate(MONTH_NAMES, 1)},
    "sept": 9,
}
WEEKDAY_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKDAYS: dict[str, int] = {
    **{name: number for number, name in enumerate(WEEKDAY_NAMES)},
    **{name[:3]: number for number, name in enumerate(WEEKDAY_NAMES)},
    "tues": 1,
    "thur": 3,
    "thurs": 3,
}
UNITS: dict[str, int] = {
    word: number
    for number, word in enumerate(_words("one two three four five six seven eight nine"), 1)
}
TEENS: dict[str, int] = {
    word: number
    for number, word in enumerate(
        _words(
            "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
        ),
        10,
    )
}
TENS: dict[str, int] = {
    word: 10 * number
    for number, word in enumerate(
        _words("twenty thirty forty fifty sixty seventy eighty ninety"),
        2,
    )
}
NUMERALS: dict[str, int] = {**UNITS, **TEENS, **TENS}

SAME_WORDS: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        *("street st", "avenue ave av", "road rd", "boulevard blvd", "drive dr", "lane ln"),
        *("court ct", "place pl", "square sq", "highway hwy", "parkway pkwy", "suite ste"),
        *("north n", "south s", "east e", "west w", "mount mt", "saint st", "fort ft"),
    )
)
"""Words that replace each other in addresses."""

ALWAYS: frozenset[str] = frozenset(
    _words("""
    a an and are as at be but by do for from he her his how i if in is it its me my no not of ok
    okay on or our she so that the their there they this to us was we what when where who will with
    yes you your mr mrs ms dr sir madam miss am pm tv wi fi wifi id faq vip rsvp asap pin eta atm
    app sms url pdf fahrenheit celsius f c etc about around among shall which
    have has each another any can could would should please here some let dollars
    """)
)
"""Words that are not names even if they are capitalized within a sentence."""

ACRONYMS: frozenset[str] = frozenset(("US", "IT", "WHO"))
"""Names, although they are ordinary words in lower case."""

OPENERS: frozenset[str] = ALWAYS | frozenset(
    _words("""
    above absolutely according additionally affirmative after afternoon again ah all alright also
    care chance found genre itinerary
    although always amount another any anyone anything anytime anyway anywhere apologies apparently
    apply appreciate arrival arrive ask average awesome back balance because been before begin
    below besides best better between board book booking both brilliant business bye call can
    cancel car card certainly change check cheers choose city clear click come complete
    confirm congrats congratulations consider contact cool correct cost could customer date day
    dear definitely depart departure despite destination details did does done drop due during each
    either email enjoy enough ensure enter even evening event events ever every everything
    excellent exactly expect explore fabulous fair fantastic fare few final find fine first flight
    flights follow forgot fortunately free fresh friendly full further get give glad go good
    goodbye got gosh grab grateful great greetings half happy has have having hello help here
    hey hi hmm hold home hope hopefully hotel house however ideal impossible include indeed inform
    instead just keep kind kindly know last later latest learn least leave less let lets like list
    live location long look lots lovely low lunch make many match may maybe meanwhile might mind
    more morning most movie movies much music must nah name nearby need neither never next nice
    night none nope nor nothing now number oh old once only open options order other others ought
    out over own parking party pay people per perfect perhaps phone pick place play please
    plenty plus possibly press price prices provide purchase put quick quite rain rather read ready
    really recommend refund regarding rent request reservation reserve restaurant return review
    ride right room rooms run safe same save say schedule search season slots see seems select send
    set several shall should show similar simply since some someone something sometimes somewhere
    song songs soon sorry sounds speak start stay still stop such suggest super sure table take talk
    tell temperature temperatures terrific text thank thanks then these thing things think those
    though through thus ticket tickets till time tips today together tomorrow tonight too total
    transfer travel trip try turn type ugh under understood unfortunately unless until update upon
    use used very view visit wait want warm water way weather welcome well were whatever whenever
    whether which while whom whose why wind wish within without wonderful work works would wow
    write yeah yep yesterday yet yours yup
    """)
)
"""Words that often start a sentence, and are not names there."""

ORDINARY_ENDINGS = ("ing", "ed", "ly", "n't")
"""Endings of words that are not taken for names at the start of a sentence."""
