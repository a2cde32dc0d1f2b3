"""Text and tokens: exact bytes, the template's tokens, and nothing smuggled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from ostinato.errors import InputError, ModelError
from ostinato.models import Tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = ["The train to Łódź leaves at 10:45, don't be late!\n\nsystem user assistant"] * 3


def tiny() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def tokenizer() -> Tokenizer:
    return Tokenizer(tiny(), eos_ids=[2], chat_template=TEMPLATE)


TINY = tokenizer()


def write_folder(folder: Path, **config: object) -> Path:
    tiny().save(str(folder / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return folder


@given(st.text())
def test_text_comes_back_and_its_bytes_are_those_of_its_tokens(text: str) -> None:
    ids = TINY.encode(text)
    assert TINY.decode(ids) == text
    assert b"".join(map(TINY.token_bytes, ids)) == text.encode()


@given(st.lists(st.sampled_from([*SPECIALS, "<|", "|>", "<", ">", "|", "im_end", " ", "\n", "x"])))
def test_no_text_becomes_a_control_token(parts: list[str]) -> None:
    text = "".join(parts)
    assert not TINY.special_ids & set(TINY.encode(text))
    spelled = any(special in text for special in SPECIALS)
    assert bool(TINY.special_ids & set(TINY.encode_control(text))) == spelled
    assert TINY.decode(TINY.encode(text)) == text


@given(st.lists(st.sampled_from([*SPECIALS, "<|", "|>", "<", ">", "|", "im_end", " ", "\n", "x"])))
def test_no_message_smuggles_a_control_token_into_a_conversation(parts: list[str]) -> None:
    content = "".join(parts)
    ids = TINY.chat([{"role": "user", "content": content}])
    plain = TINY.chat([{"role": "user", "content": "x"}])
    assert [i for i in ids if i in TINY.special_ids] == [i for i in plain if i in TINY.special_ids]
    spelled = TINY.chat_text([{"role": "user", "content": content}])
    shown = "".join(SPECIALS[i] if i in TINY.special_ids else f"\0{i}\0" for i in ids)
    texts = [
        TINY.decode([int(i) for i in run.split("\0") if i])
        for run in shown.replace("<|im_start|>", "\1").replace("<|im_end|>", "\1").split("\1")
    ]
    assert spelled == "".join(
        text + end
        for text, end in zip(
            texts, ["<|im_start|>", "<|im_end|>"] * 2 + ["<|im_start|>", ""], strict=True
        )
    )


def test_control_tokens_have_no_bytes_and_padding_of_the_embedding_neither() -> None:
    assert [TINY.token_bytes(i) for i in range(3)] == [b"", b"", b""]
    assert TINY.token_bytes(10_000) == b""
    assert TINY.decode([1, *TINY.encode("hi"), 2]) == "hi"


def test_tokens_and_template_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.from_folder(write_folder(tmp_path, chat_template=TEMPLATE))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "The train at 10:45?  Łódź 😀\n\n don't"
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    talk = [
        {"role": "user", "content": "  Hello there\n"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "10 < 11 | 12 > 3"},
    ]
    for prompt in (True, False):
        expected = theirs.apply_chat_template(talk, add_generation_prompt=prompt, tokenize=False)
        assert ours.chat_text(talk, prompt) == expected
        ids = theirs(expected, add_special_tokens=False)["input_ids"]
        assert ours.chat(talk, prompt) == ids


def test_every_file_that_names_an_end_is_heard(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": 1}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    assert Tokenizer.from_folder(tmp_path).eos_ids == {0, 1, 2}


def test_special_tokens_are_named_in_an_older_file_too(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    names = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>", "lstrip": False}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    found = Tokenizer.from_folder(tmp_path)
    assert found.specials == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert found.eos_ids == {2}


@pytest.mark.parametrize("where", ["config", "list", "file", "older file"])
def test_the_template_is_read_from_either_file(tmp_path: Path, where: str) -> None:
    source = "{{ messages[0].content }}{{ eos_token }}"
    kept: dict[str, object] = {}
    if where == "config":
        kept = {"chat_template": source}
    elif where == "list":
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": source}]
        kept = {"chat_template": named}
    write_folder(tmp_path, **kept)
    if where == "file":
        (tmp_path / "chat_template.jinja").write_text(source)
    elif where == "older file":
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": source}))
    found = Tokenizer.from_folder(tmp_path)
    assert found.chat_text([{"role": "user", "content": "a"}]) == "a<|im_end|>"


def test_a_template_can_refuse_and_cannot_leave_its_sandbox() -> None:
    strict = Tokenizer(tiny(), chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="roles must alternate"):
        strict.chat([])
    nosy = Tokenizer(tiny(), chat_template="{{ messages.__class__.__mro__ }}")
    with pytest.raises(InputError, match="unsafe"):
        nosy.chat([])


def test_a_template_knows_the_day_and_writes_plain_json() -> None:
    dated = Tokenizer(tiny(), chat_template="{{ strftime_now('%Y') }}{{ messages | tojson }}")
    text = dated.chat_text([{"role": "user", "content": "a<b"}])
    assert text[:2] == "20"
    assert text[4:] == '[{"role": "user", "content": "a<b"}]'


HI = [{"role": "user", "content": "hi"}]


def test_a_template_has_what_the_layout_promises_it() -> None:
    def text(source: str) -> str:
        return Tokenizer(tiny(), chat_template=source).chat_text(HI)

    assert text("{% if tools is none and documents is none %}none{% endif %}") == "none"
    assert text("{% generation %}{{ messages[0].content }}!{% endgeneration %}") == "hi!"
    assert text("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}") == (
        '{"a":2,"b":1}'
    )


@pytest.mark.parametrize("source", ["{{ 1 + messages[0].content }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_reported(source: str) -> None:
    with pytest.raises(InputError, match=r"takes, got: (Type|ZeroDivision)Error"):
        Tokenizer(tiny(), chat_template=source).chat(HI)


def test_a_template_that_is_no_text_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ 1 }}\xff")
    with pytest.raises(ModelError, match=r"template\.jinja, line 1: the text must be UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json must exist"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(ModelError, match="must have a chat template, got none"):
        Tokenizer(tiny()).chat([])
    with pytest.raises(ModelError, match="chat_template must be a jinja template"):
        Tokenizer(tiny(), chat_template="{% if %}").chat([])
    with pytest.raises(InputError, match="content of message 0 must be text, got none"):
        TINY.chat([{"role": "user", "content": None}])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="must be a tokenizer file"):
        Tokenizer.from_folder(tmp_path)


def test_bytes_of_a_sentencepiece_vocabulary() -> None:
    vocab = {"<unk>": 0, "<0xC3>": 1, "▁hi": 2, "</s>": 3}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    backend.add_special_tokens([tokenizers.AddedToken("</s>", special=True)])
    found = Tokenizer(backend)
    assert [found.token_bytes(i) for i in (1, 2, 3)] == [b"\xc3", b" hi", b""]
