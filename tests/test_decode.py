"""Decode conforms to the lane protocol, and samples as its settings say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from ostinato.arguments import SAMPLING_RANGES
from ostinato.decode import Decode, SamplingParams, TokenPrompt, plain_prompt
from ostinato.decode.detokenizer import Detokenizer
from ostinato.decode.sampling import GREEDY_BELOW, SamplingRow, adjust, draw, drawn_probs
from ostinato.errors import EditError, InputError, ItemError
from ostinato.journal import StopKind
from ostinato.loop import Lane, Lanes, Loop, Phrase, Policy, Report, Steps, Text, Timeline
from ostinato.testing import check_lane_process
from ostinato.text import write
from ostinato.text.writing import _token_limit

VOCAB = tiny_model().config.vocab_size
ITEMS = {
    "short": "The",
    "long": "Your table is booked for two. The phone number is 408-247-8880. " * 3,
    "other": "We can help you",
    "same prefix": "Your table is booked for two. The phone number is 408-247-8880. " * 2,
}


def decode(slots: int = 4, **settings: Any) -> Decode:
    model = tiny_model()
    sampling = settings.pop("sampling", SamplingParams(temperature=1.0))
    prompt = settings.pop("prompt", plain_prompt(model.tokenizer.encode))
    return Decode(model, prompt, slots=slots, sampling=sampling, **settings)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.8, top_k=20),
        SamplingParams(temperature=1.2, top_p=0.9, repetition_penalty=1.3),
    ],
    ids=["greedy", "plain", "top-k", "nucleus"],
)
def test_decode_conforms(sampling: SamplingParams) -> None:
    edits = {"forbid": [5, 6], "temperature": 0.5, "bias": {7: 3.0}}
    check_lane_process(lambda n: decode(n, sampling=sampling), ITEMS, steps=12, edits=edits)


def test_an_edit_of_a_later_position_does_not_act_before() -> None:
    edits = Timeline(((3, {"temperature": 0.0}), (4, {"bias": {7: 50.0}})))
    plain, changed = decode(1), decode(1)
    plain.start(Lane("a", seed=2), ITEMS["other"])
    changed.start(Lane("a", seed=2, edits=edits), ITEMS["other"])
    one = [plain.step()["a"]["token"] for _ in range(5)]
    other = [changed.step()["a"]["token"] for _ in range(5)]
    assert one[:3] == other[:3] and other[4] == 7 != one[4]


def run(process: Decode, items: Mapping[str, object] = ITEMS, steps: int = 12) -> dict[str, Any]:
    lanes = Lanes(process, items.items(), Policy(each=Steps(steps)), seed=1)
    return {
        one.key: one.to_json() for step in Loop(lanes, until=Steps(999)) for one in step.results
    }


def test_greedy_tokens_and_logprobs_are_those_of_the_plain_network() -> None:
    model = tiny_model()
    process = decode(sampling=SamplingParams())
    prompt = model.tokenizer.encode(ITEMS["long"])
    process.start(Lane("a"), ITEMS["long"])
    network = model.llama()
    tokens = list(prompt)
    for _ in range(8):
        report = process.step()["a"]
        with torch.no_grad():
            logits = network.logits(network(torch.tensor([tokens])))[0, -1]
        assert report["token"] == int(logits.argmax())
        expected = float(torch.log_softmax(logits, -1)[report["token"]])
        assert report["logprob"] == pytest.approx(expected, abs=1e-4)
        tokens.append(report["token"])


def test_a_token_taken_back_at_once_has_cost_nothing() -> None:
    process = decode()
    process.start(Lane("a", 1), "The")
    reports = [process.step()["a"] for _ in range(3)]
    assert [report["computed"] for report in reports] == [0, 1, 1]
    last = reports[-1]["token"]
    process.rewind(Lane("a", 1, backtracks=1, edits=Timeline().added(2, {"forbid": [last]})), 2)
    again = process.step()["a"]
    assert again["token"] != last
    assert again["computed"] == 0


def test_rounds_and_common_prefixes_share_the_prompt() -> None:
    process = decode(slots=2)
    computed = process._inference.counts
    process.start(Lane("a"), ITEMS["long"])
    assert process.step()["a"]["prompt"] == len(tiny_model().tokenizer.encode(ITEMS["long"]))
    first = computed.prompt
    process.drop("a")
    process.start(Lane("a", round=1), ITEMS["long"])
    process.step()
    assert computed.prompt == first  # nothing but its last token, which is fed
    process.start(Lane("b"), ITEMS["same prefix"])
    assert computed.prompt - first < 64


def test_a_forced_token_that_is_forbidden_later_is_not_taken() -> None:
    process = decode()
    process.start(Lane("a", edits=Timeline(((0, {"force": [9, 9]}), (1, {"forbid": [9]})))), "The")
    tokens = [process.step()["a"]["token"] for _ in range(2)]
    assert tokens[0] == 9 and tokens[1] != 9


def test_tokens_are_forced_from_a_position_on() -> None:
    process = decode()
    forced = tiny_model().tokenizer.encode(" 408-247")
    process.start(Lane("a"), "The")
    process.step()
    process.rewind(Lane("a", backtracks=1, edits=Timeline().added(1, {"force": forced})), 1)
    for _ in forced:
        process.step()
    text = process.output("a")
    assert isinstance(text, Text)
    assert list(text.tokens[1:]) == forced
    assert text.endswith(" 408-247")
    assert all(text.starts[i] <= text.starts[i + 1] for i in range(len(text.starts) - 1))


def test_tracked_logprobs_are_recorded_at_every_position() -> None:
    model = tiny_model()

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        return TokenPrompt(model.tokenizer.encode(str(item)), track_logprobs=[10, 11])

    process = decode(prompt=prompt)
    process.start(Lane("a"), "The")
    report = process.step()["a"]
    text = process.output("a")
    assert isinstance(text, Text)
    assert [list(seen.values()) for seen in text.tracked_logprobs] == [report["tracked_logprobs"]]
    assert set(text.tracked_logprobs[0]) == {10, 11} and max(text.tracked_logprobs[0].values()) <= 0


def test_the_end_of_text_ends_a_lane_also_on_its_last_step() -> None:
    end = min(tiny_model().tokenizer.eos_ids)
    process = decode(sampling=SamplingParams(logit_bias={end: 100.0}))
    lanes = Lanes(process, [("a", "The")], Policy(each=Steps(1)))
    (result,) = [one.to_json() for step in Loop(lanes, until=Steps(9)) for one in step.results]
    assert result["stopped"]["kind"] == StopKind.ENDED.value  # type: ignore[index]
    assert result["output"] == ""


def test_a_phrase_ends_a_lane() -> None:
    process = decode()
    forced = tiny_model().tokenizer.encode(" at 11:30 am. And")
    process.start(Lane("a"), "The")
    process.drop("a")
    lanes = Lanes(process, [("a", "The")], Policy(each=Phrase("11:30") | Steps(40)))
    lanes.step()
    lanes.change({"lane": "a", "force": forced})
    while not lanes.finished:
        lanes.step()
    assert lanes.finished[0].output.endswith("11:30")


def test_a_full_context_ends_a_lane_and_says_so() -> None:
    ends = tiny_model().tokenizer.eos_ids
    endless = SamplingParams(temperature=1.0, logit_bias=dict.fromkeys(ends, -math.inf))
    process = decode(sampling=endless)
    stopped = run(process, {"a": "The"}, steps=1000)["a"]["stopped"]
    assert stopped["sentence"] == "The model's context of 256 tokens is full."
    assert (stopped["kind"], stopped["condition"]) == ("budget", "out_of_room")
    process.start(Lane("b"), "The")
    while process.step():
        pass
    # `ended` means that the last token is an end token, whose text is empty.
    assert not process.output("b").ended


def test_a_text_of_a_fixed_length_ends_with_its_last_token() -> None:
    row = run(decode(length=5), {"a": "The"}, steps=1000)["a"]
    assert (row["length"], row["accepted"], row["stopped"]["kind"]) == (5, True, "ended")


def test_what_is_too_long_or_empty_is_one_item_s_error() -> None:
    process = decode()
    with pytest.raises(
        ItemError, match=r"The prompt has \d+ tokens; the model reads fewer than 256"
    ):
        process.start(Lane("a"), "table " * 300)
    with pytest.raises(ItemError, match="at least one token"):
        process.start(Lane("a"), "")
    rows = run(process, {"bad": "table " * 300, "good": "The"})
    assert rows["bad"]["stopped"]["kind"] == "error" and rows["good"]["length"] > 0


def test_an_unknown_edit_is_refused_with_the_known_names() -> None:
    process = decode()
    with pytest.raises(EditError, match="temperature must be a number from 0 to 100, got -1"):
        process.start(Lane("a", edits=Timeline().added(0, {"temperature": -1})), "The")
    with pytest.raises(EditError, match=r"Unknown edit 'temprature' .* temperature"):
        process.start(Lane("a", edits=Timeline().added(0, {"temprature": 1.0})), "The")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"temperature": "hot"}, "temperature must be a number from 0 to 100, got 'hot'"),
        ({"top_k": 2.5}, r"top_k must be a whole number from 0 to 2147483647, got 2\.5"),
        ({"temperature": True}, "temperature must be a number from 0 to 100, got True"),
        ({"bias": {"5": float("nan")}}, "bias must map tokens from 0 to"),
        ({"bias": {"-1": 1.0}}, "bias must map tokens from 0 to"),
        ({"logit_bias": {"5": "1"}}, "logit_bias must map tokens"),
        ({"forbid": 5}, "forbid must be a list of tokens from 0 to .*, got 5"),
        ({"forbid": "abc"}, "forbid must be a list of tokens"),
        ({"force": [1 << 30]}, "force must be a list of tokens"),
        ({"bias": {"x": 1.0}}, "bias must map tokens from 0 to"),
        ({"logit_bias": 5}, "logit_bias must map tokens"),
    ],
)
def test_an_edit_of_a_wrong_value_is_refused_before_a_token_is_drawn(
    edit: dict[str, object], message: str
) -> None:
    process = decode()
    process.start(Lane("a"), "The")
    with pytest.raises(EditError, match=message):
        process.rewind(Lane("a", edits=Timeline().added(0, edit)), 0)


def test_a_bias_is_the_same_out_of_json() -> None:
    drawn = set()
    for edit in ({"logit_bias": {7: 100.0}}, {"logit_bias": {"7": 100.0}}, {"bias": {"7": 100.0}}):
        process = decode(sampling=SamplingParams())
        process.start(Lane("a", edits=Timeline().added(0, edit)), "The")
        drawn.add(process.step()["a"]["token"])
    assert drawn == {7}


def test_the_earliest_steps_of_a_condition_limit_the_tokens() -> None:
    assert _token_limit(Phrase("x")) is None
    assert _token_limit(Steps(4096)) == 4096
    assert _token_limit(Steps(6000) | Phrase("x") | Steps(5000)) == 5000


@pytest.mark.parametrize("sampling", [{"logit_bias": {7: 1.0}}, {"end_bias": 2.0}])
def test_a_setting_that_a_server_lacks_is_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(sampling))} must not be given with a server"):
        write(["x"], model="http://127.0.0.1:9#m", sampling=SamplingParams(**sampling))


def test_alternatives_show_the_runners_up_and_the_entropy() -> None:
    process = decode(alternatives=3, sampling=SamplingParams())
    process.start(Lane("a"), "The")
    report = process.step()["a"]
    best = report["alternatives"]
    assert isinstance(best, list) and len(best) == 3
    assert best[0][1] >= best[1][1] >= best[2][1]
    assert 0 < report["entropy"] < 6  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in SAMPLING_RANGES
            for value in (-1, math.nan, "5", True, None, [1])
        ),
        *((name, math.inf) for name in SAMPLING_RANGES),
        *(("temperature", 100.5), ("top_k", 2.0), ("top_k", 1 << 31), ("end_within", 0)),
        *(("top_p", 0), ("top_p", 1.01), ("min_p", 1), ("end_bias", 1e7)),
        *(("repetition_penalty", value) for value in (0, 1e-40, 1e300)),
        *(
            ("logit_bias", value)
            for value in (None, 5, [1], {-1: 100}, {1.5: 1}, {"5": 1}, {True: 1})
        ),
        *(("logit_bias", {5: value}) for value in (math.nan, math.inf, "5", None, True, 1e30)),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=rf"^{name}(\[5\])? must be"):
        SamplingParams(**values)


@pytest.mark.parametrize("bias", [{VOCAB: 100.0}, {1 << 40: -1.0}])
def test_a_bias_of_a_token_that_the_model_lacks_is_refused_by_name(bias: dict[int, float]) -> None:
    sampling = SamplingParams(logit_bias=bias)
    with pytest.raises(InputError, match="logit_bias must be a mapping from tokens from 0 to"):
        decode(sampling=sampling)
    process = decode(prompt=lambda item, edits: TokenPrompt([1, 2], sampling))
    with pytest.raises(InputError, match="logit_bias must be a mapping from tokens from 0 to"):
        process.start(Lane("a"), "The")


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-38, 1e-7, 9.9e-6])
@pytest.mark.parametrize("cut", [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_a_temperature_near_zero_is_zero(temperature: float, cut: dict[str, Any]) -> None:
    """Divided by it the logits would overflow, and a forbidden token could be drawn."""
    sampling = SamplingParams(temperature=temperature, **cut)
    best = int(LOGITS[0].argmax())
    assert drawn(sampling, 50)[best] == 1
    assert drawn(sampling, 50, forbid=[best])[best] == 0


def test_the_least_temperature_that_is_drawn_from_gives_the_most_likely_token_too() -> None:
    assert drawn(SamplingParams(temperature=GREEDY_BELOW), 50)[int(LOGITS[0].argmax())] == 1
    assert drawn(SamplingParams(temperature=100), 4000).count_nonzero() > 900


LOGITS = torch.randn(1, 1000, generator=torch.Generator().manual_seed(4)) * 3


def drawn(sampling: SamplingParams, count: int = 4000, **more: Any) -> torch.Tensor:
    rows = [SamplingRow(sampling, (n + 0.5) / count, **more) for n in range(count)]
    logits = adjust(LOGITS.expand(count, -1), rows)
    return torch.bincount(torch.tensor(draw(logits, rows)), minlength=1000) / count


def reference(sampling: SamplingParams) -> torch.Tensor:
    """The same distribution by sorting the whole row, as the papers define it."""
    probs = torch.softmax(LOGITS[0].double() / sampling.temperature, -1)
    order = torch.argsort(probs, descending=True)
    ranked = probs[order]
    keep = torch.ones(1000, dtype=torch.bool)
    if sampling.top_k:
        keep &= torch.arange(1000) < sampling.top_k
    ranked = ranked * keep / (ranked * keep).sum()
    keep &= torch.cumsum(ranked, 0) - ranked < sampling.top_p
    keep &= ranked >= sampling.min_p * ranked[0]
    result = torch.zeros(1000, dtype=torch.double)
    result[order[keep]] = ranked[keep] / ranked[keep].sum()
    return result


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.7, top_k=5),
        SamplingParams(temperature=1.5, top_k=300),
        SamplingParams(temperature=1.0, top_p=0.8),
        SamplingParams(temperature=5.0, top_p=0.99),
        SamplingParams(temperature=1.3, min_p=0.2),
        SamplingParams(temperature=0.9, top_k=50, top_p=0.9, min_p=0.01),
    ],
    ids=str,
)
def test_draws_follow_the_distribution_that_the_settings_define(sampling: SamplingParams) -> None:
    # Evenly spaced uniforms through an inverse CDF hit each share to within one draw.
    error = (drawn(sampling, 4000).double() - reference(sampling)).abs().max()
    assert error < 1.1 / 4000


def test_a_forbidden_token_is_never_drawn_and_a_penalty_makes_rarer() -> None:
    best = int(LOGITS.argmax())
    plain = drawn(SamplingParams(temperature=1.0))
    assert drawn(SamplingParams(temperature=1.0), forbid=[best])[best] == 0
    rare = drawn(SamplingParams(temperature=1.0, repetition_penalty=1.5), seen=[best])
    assert 0 < rare[best] < plain[best]
    assert drawn(SamplingParams(), bias={3: 100.0})[3] == 1


def test_greedy_ties_are_broken_by_the_lowest_id() -> None:
    logits = torch.zeros(1, 1000)
    logits[0, [700, 30, 999]] = 5.0
    assert draw(logits, [SamplingRow(SamplingParams(), 0.9)]) == [30]


def test_a_row_draws_the_same_token_in_any_batch() -> None:
    logits = torch.randn(16, 1003, generator=torch.Generator().manual_seed(1)) * 2
    for sampling in (
        SamplingParams(temperature=0.9),
        SamplingParams(temperature=0.9, top_k=40, top_p=0.95),
    ):
        rows = [SamplingRow(sampling, (n + 0.5) / 16) for n in range(16)]
        together = draw(logits, rows)
        alone = [draw(logits[n : n + 1], rows[n : n + 1])[0] for n in range(16)]
        turned = draw(logits.flip(0), rows[::-1])[::-1]
        assert together == alone == turned


@given(st.text(max_size=30), st.integers(1, 3), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_decoded_tokens_join_to_the_text_wherever_characters_are_cut(
    text: str, size: int, crop: int
) -> None:
    encoded = text.encode("utf-8", "replace")
    parts = [encoded[i : i + size] for i in range(0, len(encoded), size)]
    detokenizer = Detokenizer()
    for part in parts:
        detokenizer.add(part)
    assert detokenizer.text == encoded.decode("utf-8")
    keep = min(crop, len(parts))
    fresh = Detokenizer()
    for part in parts[:keep]:
        fresh.add(part)
    detokenizer.crop(keep)
    assert (detokenizer.text, detokenizer.starts) == (fresh.text, fresh.starts)
    for part in parts[keep:]:
        detokenizer.add(part)
    assert detokenizer.text == encoded.decode("utf-8")


def test_a_lane_resumed_where_it_had_gone_back_to_counts_no_row_twice() -> None:
    process = decode()
    process.start(Lane("a", 1), "The")
    past = [process.step()["a"] for _ in range(4)]
    lane = Lane("a", 1, backtracks=1, edits=Timeline().added(2, {"forbid": [past[2]["token"]]}))
    process.rewind(lane, 2)
    expected: list[Report] = [process.step()["a"] for _ in range(3)]
    fresh = decode()
    fresh.start(replace(lane, past=tuple(past[:2]), again=True), "The")
    assert [fresh.step()["a"] for _ in range(3)] == expected


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.5, top_k=5),
        SamplingParams(temperature=1.5, top_k=300, top_p=0.8),
        SamplingParams(temperature=2.0, top_p=0.7),
        SamplingParams(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05),
    ],
)
@pytest.mark.parametrize("allowed", [None, (3, 40, 500, 900)])
def test_the_probabilities_shown_are_those_that_tokens_are_drawn_with(
    sampling: SamplingParams, allowed: tuple[int, ...] | None
) -> None:
    mask = None
    if allowed is not None:
        mask = torch.zeros(1000, dtype=torch.bool)
        mask[list(allowed)] = True
    share = drawn(sampling, 8000, allowed=mask)
    (adjusted,) = adjust(LOGITS, [SamplingRow(sampling, 0.0, allowed=mask)])
    shown = drawn_probs(adjusted, sampling)
    assert float(shown.sum()) == pytest.approx(1)
    assert torch.allclose(share, shown, atol=3e-4)


def alternatives(*edits: tuple[int, dict[str, object]]) -> list[list[Any]]:
    process = decode(alternatives=5)
    process.start(Lane("a", edits=Timeline(edits)), "The")
    found = process.step()["a"]["alternatives"]
    assert isinstance(found, list)
    return found


def test_what_cannot_come_is_not_among_the_alternatives() -> None:
    texts = [text for text, _, _ in alternatives()]
    assert texts[:2] == ["*", "B"]
    without = alternatives((0, {"forbid": [12, 36]}))
    assert [text for text, _, _ in without][:3] == texts[2:]
    assert all(drawn > prob for _, prob, drawn in without)
