"""What a reply must say though nobody asked: what was found, what is booked, and how that ended.

Read from the records alone. A reply that offers something new names it; one that has a booking
confirmed repeats it; one that ends a booking tells how it ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from asked import forms_of

NAMES = (
    *("restaurant_name", "hotel_name", "place_name", "event_name", "attraction_name"),
    *("property_name", "therapist_name", "title", "movie_name", "song_name", "car_name"),
    *("airlines", "leaving_time"),
)
"""The fields by which an offer is known; a bus by the time at which it leaves."""

BOOKED = (
    *("transfer_amount", "recipient_name", "appointment_time", "pickup_time", "new_alarm_time"),
    *("time", "appointment_date", "visit_date", "check_in_date", "pickup_date", "leaving_date"),
    *("date", "destination", "playback_device", "stay_length", "number_of_days", "dropoff_date"),
    *("number_of_seats", "number_of_riders", "number_of_rooms", "travelers"),
)
"""The fields of a booking that a customer has to confirm, the weightiest first."""
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")  # how search results write a day
_ASKED_BACK = frozenset(
    {
        *("transfer_amount", "appointment_time", "appointment_date", "visit_date", "check_in_date"),
        *("new_alarm_time", "playback_device", "number_of_riders", "number_of_seats"),
        *("dropoff_date", "stay_length", "number_of_days", "travelers"),
    }
)
"""Those that are recorded first when a customer is asked to confirm, not when an offer is made."""

_DONE = (
    *("booked", "confirmed", "reserved", "reservation is made", "reservation was made"),
    *("has been made", "have been made", "made your", "made the", "successful", "successfully"),
    *("success", "scheduled", "completed", "complete", "all set", "on the way", "on its way"),
    *("started", "playing", "purchased", "rented", "bought", "transferred", "initiated", "added"),
)
_DONE_BY_FIELD = {
    "ride_fare": "on the way",
    "transfer_amount": "transferred",
    "recipient_name": "transferred",
    "subtitle_language": "rented",
    "playback_device": "playing",
    "new_alarm_time": "added",
    "appointment_time": "scheduled",
    "visit_date": "scheduled",
}
_FAILED = (
    *("sorry", "unfortunately", "apologies", "apologize", "couldn't", "could not", "unable"),
    *("wasn't able", "was not able", "can't", "cannot", "failed", "not successful"),
    *("unsuccessful", "didn't", "did not", "wasn't", "was not", "weren't"),
)


def offer_of(records: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the forms of the name of what the last record offers for the first time, if any.

    `records` are those of all replies so far. A booking under way is no offer.
    """
    record = records[-1]
    before = records[-2] if len(records) > 1 else {}
    field = next((name for name in NAMES if name in record), None)
    if field is None or "request" in record or before.get(field) == record[field]:
        return []
    name = record[field]
    return list(dict.fromkeys([*forms_of(field, name), name.split(",")[0]]))


def repeats_of(records: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Return, for each field of a booking that the last record holds anew, the forms to repeat it.

    Empty where the record tells an outcome, or nothing is to be confirmed.
    """
    record = records[-1]
    before = records[-2] if len(records) > 1 else {}
    new = [name for name in BOOKED if name in record and before.get(name) != record[name]]
    found = "found" in record or any(_ISO_DATE.fullmatch(record[name]) for name in new)
    if found or "request" in record or not _ASKED_BACK.intersection(new):
        return []
    return [forms_of(name, record[name]) for name in new]


def outcome_of(record: Mapping[str, str]) -> list[str]:
    """Return the words of which one tells how a booking ended, the fittest first, or none."""
    request = record.get("request")
    if request == "failed":
        return list(_FAILED)
    if request != "done":
        return []
    first = next((word for field, word in _DONE_BY_FIELD.items() if field in record), "booked")
    return list(dict.fromkeys([first, *_DONE]))
