"""Small tokenizers and chat templates that behave as those of well-known model families."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as kinds

CORPUS = [
    "The train to Łódź leaves at 10:45, don't be late!\n\nsystem user assistant",
    "one two three four  Hello there, how are you?\n<script> thinks of <s> and [INST] 北京 2026",
    "answer: yes, no; the <|im_end|> of it all\t{'name': 'weather', 'arguments': {}}",
]
CASED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer, the names of its special tokens, and a chat template."""

    backend: Callable[[], tokenizers.Tokenizer]
    template: str
    specials: dict[str, str]
    system: bool = True

    def write(self, folder: Path, **config: object) -> Path:
        """Write the files of a checkpoint's tokenizer."""
        cached(self.backend).save(str(folder / "tokenizer.json"))
        values = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "chat_template": self.template,
            **self.specials,
            **config,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(values))
        return folder


@cache
def cached(build: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    return build()


def special(*names: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(name, special=True, **{"normalized": False, **flags}) for name in names]


def byte_level(
    split: Sequence[pre_tokenizers.PreTokenizer], control: list[AddedToken]
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(kinds.BPE(ignore_merges=True))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, plain])
    backend.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=control,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def begin(backend: tokenizers.Tokenizer, token: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=[f"{token}:0", "$A:0"], special_tokens=[(token, backend.token_to_id(token))]
    )


def llama3() -> tokenizers.Tokenizer:
    control = special(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )
    split = pre_tokenizers.Split(Regex(CASED % 3), "isolated")
    backend = byte_level([split], control)
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), begin(backend, "<|begin_of_text|>")]
    )
    return backend


def qwen3() -> tokenizers.Tokenizer:
    backend = byte_level(
        [pre_tokenizers.Split(Regex(CASED % 1), "isolated")],
        special("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    )
    backend.normalizer = normalizers.NFC()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    names = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    backend.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    return backend


def deepseek() -> tokenizers.Tokenizer:
    split = [
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(
            Regex(r" ?[\p{P}\p{S}]+|[^\r\n\p{L}]?\p{L}+|\s*[\r\n]+|\s+"), "isolated"
        ),
    ]
    names = ("begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant")
    backend = byte_level(split, special(*(f"<｜{name}｜>" for name in names)))
    backend.post_processor = begin(backend, "<｜begin▁of▁sentence｜>")
    backend.add_tokens([AddedToken(name, special=False) for name in ("<think>", "</think>")])
    return backend


def sentencepiece(control: list[AddedToken]) -> tokenizers.Tokenizer:
    """BPE with bytes for what it does not know; the caller chooses how a text begins."""
    backend = tokenizers.Tokenizer(kinds.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # No token joins the end of a line with the next one.
    lines = pre_tokenizers.Split("\n", "isolated")
    words = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([lines, words])
    first = special("<unk>", "<s>", "</s>")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*first, *special(*(f"<0x{byte:02X}>" for byte in range(256)))],
        show_progress=False,
        limit_alphabet=60,
    )
    backend.train_from_iterator(CORPUS, trainer)
    # The bytes are ordinary tokens of the vocabulary: only the trainer has them as control tokens.
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < 3]
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.add_tokens(control)
    replace = decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = begin(backend, "<s>")
    return backend


def mistral() -> tokenizers.Tokenizer:
    backend = sentencepiece(special("[INST]", "[/INST]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def llama2() -> tokenizers.Tokenizer:
    backend = sentencepiece([])
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return backend


def phi3() -> tokenizers.Tokenizer:
    backend = sentencepiece(
        special("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", rstrip=True)
        + special("<|endoftext|>", lstrip=True)
    )
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return backend


def gemma() -> tokenizers.Tokenizer:
    backend = sentencepiece(special("<start_of_turn>", "<end_of_turn>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.add_tokens([AddedToken("▁▁", normalized=True), AddedToken("\n\n", normalized=False)])
    return backend


def unigram() -> tokenizers.Tokenizer:
    words = sorted({w for line in CORPUS for w in line.split()})
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [("▁", -3.0), *((f"▁{w}", -6.0) for w in words)]
    pieces += [(c, -9.0) for c in sorted({c for line in CORPUS for c in line} - {" "})]
    backend = tokenizers.Tokenizer(kinds.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.add_tokens(special("<unk>", "<s>", "</s>") + special("<sep>", single_word=True))
    backend.add_tokens(special("<turn>", normalized=True))
    replace = decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse()])
    return backend


LLAMA3 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{% set told = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{% else %}{% set told = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nYear: 2026\n\n' + told + '<|eot_id|>' }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'
  + m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

# The last answer gets a place for thoughts; those of earlier answers are dropped.
QWEN3 = """{%- set ns = namespace(last=-1) %}
{%- for m in messages %}
{%- if m.role == 'user' and not m.content.startswith('<tool_response>') %}
{%- set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- set content = m.content %}
{%- if m.role == 'assistant' %}
{%- set thoughts = '' %}
{%- if m.reasoning_content is string %}{% set thoughts = m.reasoning_content %}
{%- elif '</think>' in content %}
{%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}
{%- if loop.index0 > ns.last and (loop.last or thoughts) %}
{{- '<|im_start|>' + m.role + '\n<think>\n' + thoughts.strip('\n')
  + '\n</think>\n\n' + content.lstrip('\n') }}
{%- else %}{{- '<|im_start|>' + m.role + '\n' + content }}{% endif %}
{%- for call in m.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' ~ call.name
  ~ '", "arguments": ' ~ call.arguments | tojson ~ '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- else %}{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""

MISTRAL = """{%- if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}
{%- set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}
{{- bos_token }}
{%- for m in turns %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate: user, assistant, user') }}{% endif %}
{%- if m['role'] == 'user' %}
{%- if loop.last and told is defined %}
{{- '[INST] ' + told + '\n\n' + m['content'] + '[/INST]' }}
{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{% endif %}
{%- elif not m['content'] %}{% continue %}
{%- else %}{{- ' ' + m['content'] | trim + eos_token }}{% endif %}
{%- endfor %}"""

LLAMA2 = """{% for m in messages %}
{% if loop.first and m['role'] == 'system' %}{% continue %}{% endif %}
{% if m['role'] == 'user' %}
{% set told = '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n'
  if loop.index0 == 1 and messages[0].role == 'system' else '' %}
{{ bos_token ~ '[INST] ' ~ told ~ m.content.strip() ~ ' [/INST]' }}
{% else %}{{ ' ' ~ m.content.strip() ~ ' ' ~ eos_token }}{% endif %}
{% endfor %}"""

GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] + '\n\n' %}
{%- set turns = messages[1:] %}{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}
{%- for m in turns %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\n' + (lead if loop.first else '')
  + m['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

PHI3 = """{% for m in messages %}
{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

DEEPSEEK = """{% set ns = namespace(told='') %}
{%- for m in messages %}{% if m['role'] == 'system' %}
{%- set ns.told = ns.told + m['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.told }}
{%- for m in messages %}
{%- if m['role'] == 'user' %}{{- '<｜User｜>' + m['content'] }}
{%- elif m['role'] == 'assistant' %}
{%- set content = m['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜>' }}{% endif %}"""

UNIGRAM = """{%- for m in messages %}{{- ['<turn>', m.role, ': ', m.content] | join -}}
{%- if m.role == 'assistant' %} </s>{% endif %} <sep> {% endfor %}
{%- if add_generation_prompt %}{{- '<turn>assistant:' -}}{% endif %}"""

FAMILIES = {
    "llama3": Family(llama3, LLAMA3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "qwen3": Family(qwen3, QWEN3, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "mistral": Family(mistral, MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}),
    "llama2": Family(llama2, LLAMA2, {"bos_token": "<s>", "eos_token": "</s>"}),
    "gemma": Family(gemma, GEMMA, {"bos_token": "<s>", "eos_token": "<end_of_turn>"}),
    "phi3": Family(phi3, PHI3, {"bos_token": "<s>", "eos_token": "<|endoftext|>"}),
    "deepseek": Family(
        deepseek,
        DEEPSEEK,
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
    ),
    "unigram": Family(unigram, UNIGRAM, {"bos_token": "<s>", "eos_token": "</s>"}),
}
