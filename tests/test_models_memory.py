"""The memory that a model needs is known from its files' headers, and told before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import psutil
import pytest
import torch
from click.testing import CliRunner, Result
from test_models_gguf_families import network
from tiny import save_tiny
from tiny_gguf import Form, write_gguf

from ostinato.cli.main import cli
from ostinato.errors import ModelError
from ostinato.models import (
    MemoryNeed,
    ModelFacts,
    QuantizedLinear,
    load_model,
    memory_needed,
    read_facts,
)
from ostinato.models import memory as model_memory

SLOT = 2 * 2 * 2 * 16 * 256  # bytes for each of a number: keys and values, layers, heads, D, tokens


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file(kind: str, family: str = "llama") -> str:
    write_gguf(Path(f"{kind}.gguf"), network(family), gguf.GGMLQuantizationType[kind], arch=family)
    return f"{kind}.gguf"


def set_free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    class Memory:
        available = count

    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def command(*words: str) -> Result:
    result = CliRunner().invoke(cli, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_1", "Q8_0", "F16"])
def test_the_memory_told_is_that_of_the_matrices_that_are_held(kind: str) -> None:
    model = load_model(file(kind)).llama()
    need = memory_needed(file(kind), slots=3, compile=True)
    held = 0
    for module in model.modules():
        if isinstance(module, QuantizedLinear) and module is not model.lm_head:  # tied
            groups = module.groups()
            held += groups.numbers.numel() * groups.bits // 8
            held += 2 * groups.scale.numel() * (1 if groups.minimum is None else 2)
    held += sum(p.numel() * p.element_size() for p in model.parameters())
    embedding = 0
    if kind != "F16":
        groups = model.model.embed_tokens.groups()  # type: ignore[operator]
        embedding = groups.numbers.numel() * groups.bits // 8
        embedding += 2 * groups.scale.numel() * (1 if groups.minimum is None else 2)
    assert need.weights == held + embedding
    assert need.cache == 3 * SLOT * model.dtype.itemsize


def test_without_compiled_code_quantized_weights_are_widened() -> None:
    path = file("Q4_0")
    need = memory_needed(path, compile=False)
    assert need.weights == need.facts.parameters * model_dtype().itemsize
    assert memory_needed(path).weights < 0.4 * need.weights


def model_dtype() -> torch.dtype:
    return load_model(file("F16")).llama().dtype


def test_facts_count_what_the_file_holds() -> None:
    facts = read_facts(file("Q8_0"))
    assert facts.parameters == sum(p.numel() for p in set(network("llama").parameters()))
    assert facts.types["Q8_0"] == 1 + 2 * 7
    assert facts.file_bytes == Path("Q8_0.gguf").stat().st_size


def test_a_folder_is_read_by_its_headers() -> None:
    save_tiny(Path("tiny"))
    facts = read_facts("tiny")
    model = load_model("tiny").llama()
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.config is not None and not facts.stays
    assert facts.weight_bytes(torch.float32) == 4 * facts.parameters


def need(free: int, weights: int = 8000, **alternatives: int) -> MemoryNeed:
    facts = ModelFacts(name="big", path=Path("big"), tensors=(), config=None)
    ways = {name.replace("_", "-"): size for name, size in alternatives.items()}
    return MemoryNeed(
        facts=facts,
        weights=weights * 10**6,
        slots=16,
        length=512,
        slot=10**8,
        free=free * 10**6,
        alternatives={name: size * 10**6 for name, size in ways.items()},
    )


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    need(9600).check()
    with pytest.raises(ModelError) as refused:
        need(8500, int8=4000, four=9000).check()
    assert str(refused.value) == (
        "big must fit into the free memory (8.50 GB), got 9.60 GB: weights 8.00 GB, cache 1.60 GB "
        "(16 x 512 tokens). Use at most 5 slots or int8 (5.60 GB), or close other programs."
    )
    with pytest.raises(ModelError, match="Close other programs, or use a smaller model"):
        need(3000, int8=4000).check()


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "hello", "--model", "Q8_0.gguf"),
        ("serve", "Q8_0.gguf"),
        ("refine", "job.toml"),
    ],
)
def test_commands_refuse_before_a_weight_is_read(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    file("Q8_0")
    Path("rows.jsonl").write_text('{"id": "a", "name": "Ada"}\n')
    Path("job.toml").write_text(
        'model = "Q8_0.gguf"\ninput = "rows.jsonl"\nid = "id"\n\n[prompt]\n'
        'template = "Greet {name}."\n\n[[check]]\nkind = "length"\nmin = 4\nmax = 24\n'
    )
    set_free(monkeypatch, 50_000)
    read: list[Any] = []
    monkeypatch.setattr(torch, "from_numpy", read.append)
    result = CliRunner().invoke(cli, words)
    assert "Q8_0.gguf must fit into the free memory (50 kB), got" in f"{result.exception}"
    assert not read


def test_a_big_model_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    file("Q8_0")
    call = ("generate", "hello", "--model", "Q8_0.gguf", "--max-new-tokens", "2")
    assert "Loading" not in command(*call).stderr
    monkeypatch.setattr(model_memory, "BIG", 1000)
    assert "Loading Q8_0.gguf: " in command(*call).stderr


def test_models_show_tells_size_types_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    file("Q4_1")
    shown = command("models", "show", "Q4_1.gguf", "--slots", "2").stdout
    assert "Q4_1.gguf: llama, 84,416 parameters" in shown and "19 F32, 15 Q4_1" in shown
    assert "(2 x 256 tokens)" in shown and "  fits into the free memory" in shown
    set_free(monkeypatch, 1000)
    row = json.loads(command("models", "show", "Q4_1.gguf", "--json").stdout)
    assert row["fits"] is False and row["free_bytes"] == 1000
    assert row["types"] == {"F32": 19, "Q4_1": 15}


def test_an_adapter_widens_a_quantized_file_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, network("llama"), Form.Q4_0)
    plain, adapted = (memory_needed(path, adapter=name) for name in (None, "support"))
    assert adapted.weights > plain.weights + adapted.facts.parameters
