"""What a reply must not claim, given whether the booking, the rental or the transfer went through.

Read from the records alone: `request` is "done" or "failed" in the record of the reply that tells
how it went, and nothing before that is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DONE = (
    "has been made",
    "have been made",
    "has been booked",
    "have been booked",
    "has been reserved",
    "has been confirmed",
    "have been purchased",
    "reservation is confirmed",
    "I have booked",
    "I've booked",
    "I have reserved",
    "was successful",
    "have successfully",
    "is on the way",
)
"""Said only of what went through."""

NOT_DONE = (
    "couldn't",
    "could not",
    "unable to",
    "wasn't able",
    "was not able",
    "not successful",
    "unsuccessful",
    "went wrong",
    "didn't go through",
    "did not go through",
    "failed",
)
"""Said only of what did not go through."""


def untrue_claims(records: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the phrases that would be untrue in the reply to which the last record belongs.

    `records` are those of all replies so far, that of this reply included. Once something went
    through and another reply has told so, both kinds can be true: the list is empty.
    """
    states = [record.get("request", "") for record in records]
    if states[-1] == "done":
        return list(NOT_DONE)
    if "done" in states and states[-1] != "failed":
        return []
    return list(DONE)
