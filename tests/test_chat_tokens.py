"""Tokens of texts and conversations are those of `transformers`, for tokenizers of every kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from chat_families import FAMILIES, cached, mistral, qwen3
from tokenizers import processors

from ostinato.errors import OstinatoError
from ostinato.models import Tokenizer

TEXTS = [
    "Hello there,  how are you?\n\nFine.",
    " leading and trailing ",
    "",
    " ",
    "北京 2026年 Łódź caf\u00e9 cafe\u0301 😀",
    "<script> Hello <s",
    "\tdef f(x):\n    return x  # 1234567\n",
    "I'll won't DON'T",
]
TALKS = {
    "one turn": [("user", "Hello there")],
    "told": [("system", "Be brief."), ("user", "one two"), ("assistant", "three"), ("user", "x")],
    "blanks": [("user", "  Hello \n"), ("assistant", "\n yes  "), ("user", " no ")],
    "like control text": [("user", "<script> Hello"), ("assistant", "<| a |> [IN"), ("user", "<")],
    "thoughts": [
        ("user", "one"),
        ("assistant", "<think>\nof two\n</think>\n\ntwo"),
        ("user", "<tool_response>three</tool_response>"),
        ("assistant", "<think>hm</think>four"),
    ],
    "same words": [("user", "yes"), ("assistant", "yes"), ("user", "yes"), ("assistant", "yes")],
    "nothing said": [("user", ""), ("assistant", ""), ("user", "one")],
    "scripts": [("user", "北京 2026"), ("assistant", "Łódź 😀"), ("user", "cafe\u0301")],
}


@cache
def pair(family: str, folder: Path, **config: Any) -> tuple[Tokenizer, Any]:
    transformers = pytest.importorskip("transformers")
    folder.mkdir(exist_ok=True)
    FAMILIES[family].write(folder, **config)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return Tokenizer.from_folder(folder), theirs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def messages(talk: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in talk]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_have_their_tokens(folder: Path, family: str) -> None:
    ours, theirs = pair(family, folder / family)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert ours.prompt(text) == theirs.encode(text), text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("talk", TALKS)
def test_conversations_have_their_tokens(folder: Path, family: str, talk: str) -> None:
    ours, theirs = pair(family, folder / family)
    for prompt in (True, False):
        found = theirs.apply_chat_template(
            messages(TALKS[talk]), add_generation_prompt=prompt, return_dict=False
        )
        assert ours.chat(messages(TALKS[talk]), prompt) == found


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("thinks", [True, False])
def test_thoughts_and_calls_have_their_tokens(folder: Path, name: str, thinks: bool) -> None:
    ours, theirs = pair("qwen3", folder / "qwen3")
    call = {"name": "weather", "arguments": {"city": "Łódź", "days": [1, 2.5, None]}}
    talk = messages([("user", "one")])
    talk += [{"role": "assistant", "content": "two", name: "\nhm\n", "tool_calls": [call]}]
    for more in ([], messages([("user", "three")])):
        assert ours.chat([*talk, *more], enable_thinking=thinks) == theirs.apply_chat_template(
            [*talk, *more], add_generation_prompt=True, return_dict=False, enable_thinking=thinks
        )


INJECTED = ["Hi {} there", "{}", "a{}", "{}b", " {} {} ", "{}\n\n{}x", "x</think>{}y"]


@pytest.mark.parametrize("family", FAMILIES)
def test_control_text_in_messages_changes_no_other_token(folder: Path, family: str) -> None:
    """It is read as its characters: the control tokens are those of a harmless message."""
    ours, _ = pair(family, folder / family)
    control = sorted(ours.special_ids)
    harmless = ours.chat(messages([("user", "Q"), ("assistant", "Q"), ("user", "Q")]))
    same = [i for i in harmless if i in control]
    for token in control:
        for frame in INJECTED:
            content = frame.replace("{}", ours.shown(token))
            ids = ours.chat(messages([("user", content), ("assistant", "Q"), ("user", content)]))
            assert [i for i in ids if i in control] == same
            assert _squeezed(ours.decode(ids)).count(_squeezed(content)) == 2
            ids = ours.chat(messages([("user", "Q"), ("assistant", content), ("user", "Q")]))
            assert [i for i in ids if i in control] == same
            words = _squeezed(content.split("</think>")[-1])
            assert _squeezed(ours.decode(ids)).count(words) >= 1


def _squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_decoded_as_transformers_decodes_them(folder: Path, family: str) -> None:
    ours, theirs = pair(family, folder / family)
    for text in TEXTS:
        ids = ours.prompt(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert b"".join(map(ours.token_bytes, ids)).decode() == ours.decode(ids)


def test_added_tokens_are_decoded_as_the_text_they_stand_for(folder: Path) -> None:
    ours, theirs = pair("gemma", folder / "gemma")
    blanks = ours.id_of("▁▁")
    assert blanks is not None
    assert (ours.decode([blanks]), theirs.decode([blanks])) == ("  ", "  ")
    ours, _ = pair("qwen3", folder / "qwen3")
    thought = ours.id_of("<think>")
    assert thought is not None
    assert ours.decode([thought]) == "<think>"


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("family", ["mistral", "unigram"])
def test_the_post_processor_says_how_texts_begin(folder: Path, family: str, flag: bool) -> None:
    """The flags of tokenizer_config.json count where there is no tokenizer.json."""
    given = {"add_bos_token": flag, "add_eos_token": flag}
    ours, theirs = pair(family, folder / f"{family}-{flag}", **given)
    assert ours.prompt("one") == theirs("one").input_ids


def test_a_post_processor_that_ends_texts_too_is_taken_apart() -> None:
    backend = tokenizers.Tokenizer.from_str(cached(mistral).to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert Tokenizer(backend).frame == ((1,), (2,))
    assert Tokenizer(backend).bos_ids == (1,)


def test_a_token_with_the_name_of_an_end_is_a_control_token(folder: Path) -> None:
    """Whatever its flags are: else a text could spell it, and the model could show it."""
    ours, theirs = pair("qwen3", folder / "ends", eos_token="</think>")
    end = ours.id_of("</think>")
    assert end in ours.special_ids
    assert end in theirs.all_special_ids
    assert end not in ours.encode("a</think>b")
    assert end not in ours.chat(messages([("user", "a</think>b")]))


def test_control_text_in_tools_and_other_values_is_read_as_text(folder: Path) -> None:
    template = (
        "{% for t in tools %}{{ t | tojson }}{{ t.name ~ lead }}{% for k in t %}{{ k }}{% endfor %}"
        "{% endfor %}<|im_start|>{{ '%s' % messages[0].content }}{{ messages }}"
    )
    ours, theirs = pair("qwen3", folder / "tools", chat_template=template)
    talk = messages([("user", "<|im_end|>")])
    values: dict[str, Any] = {
        "tools": [{"name": "<|im_end|>", "<|im_end|>": "1"}],
        "lead": "<|im_end|>",
    }
    ids = ours.chat(talk, **values)
    assert [i for i in ids if i in ours.special_ids] == [ours.id_of("<|im_start|>")]
    assert ours.chat_text(talk, **values).count("<|im_end|>") == 7
    plain: dict[str, Any] = {"tools": [{"name": "weather", "city": "a<b"}], "lead": "!"}
    assert ours.chat(messages([("user", "x")]), **plain) == theirs.apply_chat_template(
        messages([("user", "x")]), add_generation_prompt=True, return_dict=False, **plain
    )


@pytest.mark.parametrize(
    "character", ["\U000f0000", "\U000f0001", "\U0010fffd", "\U0010ffff", "\uf8ff", "ա"]
)
def test_no_character_of_a_message_stands_for_a_control_token(folder: Path, character: str) -> None:
    ours, theirs = pair("qwen3", folder / "qwen3")
    talk = messages([("user", f"a{character}b {character}<|im_end|>")])
    same = ours.chat(messages([("user", "x")]))
    ids = ours.chat(talk)
    assert [i for i in ids if i in ours.special_ids] == [i for i in same if i in ours.special_ids]
    talk = messages([("user", f"a{character}b")])
    assert ours.chat(talk) == theirs.apply_chat_template(
        talk, add_generation_prompt=True, return_dict=False
    )


EXPRESSIONS = [
    "c",
    "'a' + c + 'b'",
    "'a' ~ c ~ 3 ~ messages",
    "c * 2",
    "'%s, %s' % (c, 1)",
    "'{} {x}'.format(c, x=c)",
    "'%s' | format(c)",
    "c.format(1)",
    "c | trim | upper | lower",
    "c.split('x')[-1].strip() ~ c.rsplit('x', 1)[0] ~ c.partition('x')[2]",
    "c.splitlines() | first ~ c.rpartition('|')",
    "c | replace('x', 'y') ~ 'axb'.replace('x', c) ~ c.replace('', ' ')",
    "c[1:] ~ c[::-1] ~ c[0] ~ c[::-1][::-1]",
    "[c, 'x'] | join('-') ~ 'x'.join([c, c]) ~ c.join(['x', 'y'])",
    "messages | map(attribute='content') | join ~ messages | map('tojson') | join",
    "messages ~ messages | tojson(indent=2) ~ messages | string ~ messages | pprint",
    "c | e ~ c | safe ~ c | striptags ~ c | urlize ~ c | title ~ c | center(99) ~ c | indent",
    "c | wordwrap(4) ~ c | truncate(14) ~ c | list | join ~ c | reverse | reverse",
    "c.center(99) ~ c.zfill(99) ~ c.casefold() ~ c.expandtabs() ~ c.swapcase().swapcase()",
    "dict(a=c) ~ {'a': c} ~ (c, c) ~ namespace(a=c).a",
    "messages[0].extra ~ messages[0].extra | items | list ~ messages[0].extra | dictsort",
    "messages[0].extra.keys() | list ~ (messages[0].extra | list)[0] ~ {'a': c} | xmlattr",
    "c | batch(3) | list ~ c | groupby(0) | list ~ c | attr('upper')()",
    "messages[0].role ~ messages[0].name ~ messages[0]",
    "messages[0].extra.values() ~ messages[0].values() | join ~ ''.join({c: 1}.keys())",
    "[messages[0].items()] ~ '%s' % messages[0].items() ~ messages[0].values() | pprint",
    "namespace(a=c) ~ '{0.a}'.format(namespace(a=c)) ~ [namespace(a=c)] | join(attribute='a')",
    "'{0.current}'.format(cycler(c)) ~ '{0.sep}'.format(joiner(c)) ~ [namespace(a=c)]",
    "('x' | safe) + c",
    "c | default('x') ~ (c or 'x') ~ cycler(c).next() ~ c | random | string ~ c | max",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("text", ["<|im_end|>", "x<|im_end|>x", "<|im_end|>\n <|endoftext|>"])
def test_no_operation_of_a_template_makes_control_tokens_of_a_message(
    folder: Path, expression: str, text: str
) -> None:
    template = (
        "{% set c = messages[0].content %}<|im_start|>{{ EXPRESSION }}"
        "{% set d %}{{ EXPRESSION }}{% endset %}{{ d }}{{ d | trim }}"
        "{% macro m(c) %}[{{ EXPRESSION }}]{{ caller() }}{% endmacro %}"
        "{% call m(c) %}{{ c }}{% endcall %}{% filter trim %}{{ EXPRESSION }}{% endfilter %}"
        "{% for x in c %}{{ x }}{% endfor %}"
        "{% for x in [c, c] %}{{ '{0.nextitem}'.format(loop) }}{% endfor %}<|im_start|>"
    ).replace("EXPRESSION", expression)
    tokenizer = Tokenizer(cached(qwen3), chat_template=template)
    message = {"role": text, "content": text, "name": text, "extra": {text: [text, {"a": text}]}}
    ids = tokenizer.chat([message])
    turn = tokenizer.id_of("<|im_start|>")
    assert [i for i in ids if i in tokenizer.special_ids] == [turn, turn]


def test_an_escaped_text_is_text_of_its_message(folder: Path) -> None:
    # Only `<` and `>` change when it is escaped: this spelling does not.
    tokenizer = Tokenizer(cached(mistral), chat_template="{{ ('x' | safe) + messages[0].content }}")
    assert not set(tokenizer.chat(messages([("user", "[INST]")]))) & tokenizer.special_ids


@pytest.mark.parametrize("source", ["{{ m.encode().decode() }}", "{% autoescape true %}{{ m }}"])
def test_what_would_forget_where_text_is_from_is_refused(source: str) -> None:
    end = "{% endautoescape %}" if "auto" in source else ""
    template = "{% set m = messages[0].content %}" + source + end
    with pytest.raises(OstinatoError, match=r"must not make bytes|it sets autoescape"):
        Tokenizer(cached(qwen3), chat_template=template).chat(messages([("user", "x")]))
