"""What a dialogue teaches: the assistant's words with their end tokens, whatever the template."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from chat_families import FAMILIES
from test_chat_tokens import TALKS, TEXTS, messages, pair

from ostinato.errors import InputError
from ostinato.models import Tokenizer
from ostinato.train import conversation, examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def learned(tokenizer: Tokenizer, talk: list[dict[str, Any]]) -> list[str]:
    """Return the runs of learned tokens; control tokens are spelled out."""
    example = conversation(tokenizer, talk, 1000)
    assert list(example.tokens) == tokenizer.chat(talk, add_generation_prompt=False)
    runs: list[list[int]] = [[]]
    for token, counted in zip(example.tokens, example.loss_mask, strict=True):
        if counted:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return ["".join(_shown(tokenizer, i) for i in run) for run in runs if run]


def _shown(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.token_bytes(token).decode("utf-8", "replace") or tokenizer.shown(token)


ENDS = {
    "llama3": "<|eot_id|>",
    "qwen3": "<|im_end|>",
    "mistral": "</s>",
    "llama2": "</s>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "unigram": "</s>",
}
FOUR = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (FOUR, ["two", "four"]),
        ([("system", "Be brief."), *FOUR], ["two", "four"]),
        (
            [("user", "yes"), ("assistant", "yes"), ("user", "yes"), ("assistant", "yes")],
            ["yes"] * 2,
        ),
        (
            [("user", "a"), ("assistant", " yes \n"), ("user", "b"), ("assistant", "no")],
            ["yes", "no"],
        ),
        ([("user", "a"), ("assistant", "x <|im_end|> </s> y")], ["x <|im_end|> </s> y"]),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], ["b"]),
    ],
)
def test_the_assistants_words_are_learned_with_their_ends(
    folder: Path, family: str, talk: list[tuple[str, str]], words: list[str]
) -> None:
    tokenizer, _ = pair(family, folder / family)
    runs = learned(tokenizer, messages(talk))
    runs = [run.removesuffix("<|endoftext|>") for run in runs]  # phi3's end of the whole dialogue
    assert [run.removesuffix(ENDS[family]).strip() for run in runs] == words
    assert all(run.endswith(ENDS[family]) for run in runs)


GENERATION = {
    "qwen3": (
        "{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
        "{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}{{- '\n' }}"
        "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
        "{%- endfor %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}<|eot_id|>"
        "{% endgeneration %}{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("family", GENERATION)
@pytest.mark.parametrize("talk", TALKS)
def test_generation_blocks_are_learned_as_transformers_marks_them(
    folder: Path, family: str, talk: str
) -> None:
    template = GENERATION[family]
    tokenizer, theirs = pair(family, folder / f"{family}-marked", chat_template=template)
    found = theirs.apply_chat_template(
        messages(TALKS[talk]), return_dict=True, return_assistant_tokens_mask=True
    )
    tokens, mask = tokenizer.chat_with_mask(messages(TALKS[talk]))
    assert tokens == found["input_ids"]
    assert mask == [bool(marked) for marked in found["assistant_masks"]]


def test_what_only_the_last_turn_has_is_not_learned_with_earlier_ones(folder: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if loop.last and m.role == 'assistant' %}"
        "(thinks){% endif %}{{ m.content }}{% endfor %}"
    )
    tokenizer, _ = pair("qwen3", folder / "last", chat_template=template)
    assert learned(tokenizer, messages(FOUR)) == ["two", "four"]


def test_thoughts_calls_and_empty_answers_are_learned_where_they_are_shown(folder: Path) -> None:
    tokenizer, _ = pair("qwen3", folder / "qwen3")
    thought = "<think>\nhm\n</think>\n\n"
    talk = messages([("user", "one"), ("assistant", thought + "two"), ("user", "three")])
    talk += [{"role": "assistant", "content": "four", "reasoning_content": "mm"}]
    assert learned(tokenizer, talk) == ["two<|im_end|>", "mm\n</think>\n\nfour<|im_end|>"]
    call = {"name": "weather", "arguments": {"city": "Łódź"}}
    talk = messages([("user", "a")])
    talk += [{"role": "assistant", "content": "", "tool_calls": [call]}]
    (run,) = learned(tokenizer, talk)
    assert run.endswith(
        '{"name": "weather", "arguments": {"city": "Łódź"}}\n</tool_call><|im_end|>'
    )
    assert learned(tokenizer, messages([("user", "a"), ("assistant", "")])) == ["<|im_end|>"]


def test_a_template_that_hides_the_assistants_words_is_refused(folder: Path) -> None:
    template = "{% for m in messages %}{{ m.content | length }}{% endfor %}"
    tokenizer, _ = pair("qwen3", folder / "hidden", chat_template=template)
    with pytest.raises(InputError, match="must show the assistant's words"):
        conversation(tokenizer, messages(FOUR), 100)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dialogue_is_learned_with_the_tokens_it_is_asked_with(folder: Path, family: str) -> None:
    tokenizer, _ = pair(family, folder / family)
    for reply in ("yes, they do", "北京", "<script> x", "1234 !"):
        asked = tokenizer.chat(messages([*FOUR, ("user", "five")]))
        example = conversation(
            tokenizer, messages([*FOUR, ("user", "five"), ("assistant", reply)]), 999
        )
        answer = example.tokens[len(asked) :]
        assert [*asked, *answer] == list(example.tokens)
        assert reply in tokenizer.decode(answer)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_learned_with_the_tokens_they_are_asked_with(
    folder: Path, tmp_path: Path, family: str
) -> None:
    tokenizer, theirs = pair(family, folder / family)
    rows = [
        {"prompt": "one two:", "completion": " three"},
        {"prompt": "one\n", "completion": "two"},
        {"prompt": "", "completion": "two"},
        {"completion": "<s> two"},
        {"text": "one two"},
    ]
    plain = tmp_path / "plain.txt"
    plain.write_text("one two three four " * 9)
    first, second, *_ = examples([plain], tokenizer, 10)
    begin = list(tokenizer.bos_ids)
    assert list(first.tokens[: len(begin)]) == begin
    assert first.tokens[-1] == second.tokens[0]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert begin == theirs("").input_ids
    for row, example in zip(rows, examples([path], tokenizer, 100), strict=True):
        prompt = row.get("prompt", "")
        asked = theirs(prompt).input_ids if "completion" in row else begin
        assert list(example.tokens[: len(asked)]) == asked
        counted = [i for i, c in zip(example.tokens, example.loss_mask, strict=True) if c]
        assert counted == list(example.tokens[max(1, len(asked)) :])
        if "completion" in row and asked:
            assert tokenizer.decode(counted) == row["completion"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_continuation_adds_its_own_text_only(folder: Path, family: str) -> None:
    tokenizer, _ = pair(family, folder / family)
    for text in TEXTS:
        kept = unicodedata.normalize("NFC", text) if family == "qwen3" else text
        assert tokenizer.decode(tokenizer.continuation(text)) == kept
