"""What was found out about this machine is remembered; losing it costs nothing but time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_inference_same_bits import network, sequence
from tiny import save_tiny, tiny_model

import ostinato.inference.fastest as timing
from ostinato import Loop, Steps
from ostinato.checks import Judge, Length
from ostinato.checks.judge import check as judging
from ostinato.errors import RunError
from ostinato.image import Denoise
from ostinato.image.unet import UNet, UNetConfig
from ostinato.inference import CompiledBackend, FixedShapeBackend, GRUBackend, open_backend
from ostinato.inference.compiled import build
from ostinato.inference.self_test import SelfTest
from ostinato.inference.slot_backend import SlotBackend
from ostinato.journal import Journal
from ostinato.models import (
    GRU,
    GRUConfig,
    LanguageModel,
    Llama,
    facts,
    load_model,
    recall,
    remember,
)
from ostinato.refine import BestOf, Refine
from ostinato.text import write

QUESTION = "Is {output} polite?"
KEY = {"machine": "this one", "sizes": [1, 2]}
needs_compiler = pytest.mark.skipif(not build.has_compiler(), reason="there is no C++ compiler")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember facts in a folder of the test."""
    if build.has_compiler():
        build.open_kernel()  # from the usual cache folder: compiling takes seconds
    monkeypatch.setenv(facts.FACTS, "on")
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    forget()
    return tmp_path / "cache" / "facts"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def forget() -> None:
    """Forget what this process has found out, as another process knows only the files."""
    facts._found.clear()


# The store ----------------------------------------------------------------------------------------


def test_a_fact_is_known_under_its_key_alone(folder: Path) -> None:
    assert recall("speed", KEY) is None
    remember("speed", KEY, {"seconds": 1.5})
    for _ in range(2):
        assert recall("speed", KEY) == {"seconds": 1.5}
        assert recall("self-test", KEY) is None
        assert recall("speed", {**KEY, "sizes": [1, 3]}) is None
        forget()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"value": 1}', b'{"value": 1, "key": {}}', b"[1]", b"\xff", b"[" * 100_000],
    ids=["empty", "cut", "no-key", "other-key", "list", "binary", "deep"],
)
def test_a_damaged_file_is_a_fact_that_is_not_known(folder: Path, damage: bytes) -> None:
    remember("speed", KEY, 1)
    forget()
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert recall("speed", KEY) is None
    remember("speed", KEY, 2)
    forget()
    assert recall("speed", KEY) == 2


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.parent.write_text("a file where the folder should be")
    remember("speed", KEY, 1)
    assert recall("speed", KEY) == 1  # in this process
    forget()
    assert recall("speed", KEY) is None


def test_facts_can_be_turned_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("speed", KEY, 1)
    monkeypatch.setenv(facts.FACTS, "off")
    assert recall("speed", KEY) is None
    remember("other", KEY, 1)
    assert len(list(folder.iterdir())) == 1


def test_processes_that_write_one_fact_leave_a_whole_one(folder: Path) -> None:
    program = (
        "import sys\n"
        "from ostinato.models import facts\n"
        "number = int(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    facts.remember('speed', {'a': 1}, [number] * 1000)\n"
        "    facts._found.clear()\n"
        "    value = facts.recall('speed', {'a': 1})\n"
        "    assert len(value) == 1000 and len(set(value)) == 1, value\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(2)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len(list(folder.iterdir())) == 1  # no unfinished file


# Self-tests ---------------------------------------------------------------------------------------


def gru() -> GRUBackend:
    return GRUBackend(GRU(GRUConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1)), 2)


BACKENDS: list[object] = [
    gru,
    lambda: FixedShapeBackend(network("grouped"), 2),
    pytest.param(lambda: CompiledBackend(network("grouped"), 2), marks=needs_compiler),
]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends whose self-test was run."""
    names: list[str] = []
    self_test = SlotBackend.self_test

    def counted(self: SlotBackend, *, again: bool = False) -> SelfTest:
        compare = self._compare_rows

        def run() -> SelfTest:
            names.append(type(self).__name__)
            return compare()

        self._compare_rows = run  # type: ignore[method-assign]
        return self_test(self, again=again)

    monkeypatch.setattr(SlotBackend, "self_test", counted)
    return names


@pytest.mark.parametrize("make", BACKENDS, ids=["gru", "plain", "compiled"])
def test_a_self_test_runs_once_on_a_machine(
    folder: Path, runs: list[str], make: Callable[[], SlotBackend]
) -> None:
    first = make().self_test()
    for _ in range(2):
        assert make().self_test() == first
        forget()
    assert first.batch_invariant
    assert len(runs) == 1
    assert make().self_test(again=True) == first
    assert len(runs) == 2


def test_a_failed_self_test_is_remembered_and_can_be_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FixedShapeBackend(network("grouped"), 16)
    feed = backend.feed
    with monkeypatch.context() as broken:
        broken.setattr(backend, "feed", lambda rows: feed(rows) * (1 + 1e-6 * len(rows)))
        assert not backend.self_test().batch_invariant
    forget()
    known = FixedShapeBackend(network("grouped"), 16).self_test()
    assert not known.batch_invariant
    assert "gave other bits among 16 rows than alone" in known.sentence
    assert backend.self_test(again=True).batch_invariant
    assert FixedShapeBackend(network("grouped"), 16).self_test().batch_invariant


OTHERS: dict[str, Callable[[], SlotBackend]] = {
    "slots": lambda: FixedShapeBackend(network("grouped"), 3),
    "block": lambda: FixedShapeBackend(network("grouped"), 2, block=8),
    "chunk": lambda: FixedShapeBackend(network("grouped"), 2, prefill_chunk=128),
    "packed": lambda: FixedShapeBackend(network("grouped"), 2, packed=False),
    "dtype": lambda: FixedShapeBackend(network("grouped").bfloat16(), 2),
    "converted": lambda: FixedShapeBackend(network("grouped"), 2, dtype=torch.bfloat16),
    "shape": lambda: FixedShapeBackend(network("whole"), 2),
    "zeros": lambda: FixedShapeBackend(zeroed(), 2),
    "kind": lambda: CompiledBackend(network("grouped"), 2),
}


def zeroed() -> Llama:
    made = network("grouped")
    made.zero_init()
    return made


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=needs_compiler) if n == "kind" else n for n in OTHERS]
)
def test_another_computation_has_a_self_test_of_its_own(
    folder: Path, runs: list[str], name: str
) -> None:
    FixedShapeBackend(network("grouped"), 2).self_test()
    OTHERS[name]().self_test()
    assert len(runs) == 2


def test_another_number_of_threads_has_a_self_test_of_its_own(
    folder: Path, runs: list[str]
) -> None:
    FixedShapeBackend(network("grouped"), 2).self_test()
    torch.set_num_threads(2)
    FixedShapeBackend(network("grouped"), 2).self_test()
    assert len(runs) == 2


def test_a_denoiser_is_tested_once_on_a_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = UNetConfig(size=8, classes=3, patch=1, widths=(16, 16), blocks=1, embedding=16, head=16)
    assert Denoise(UNet(shape)).deterministic
    forget()
    with monkeypatch.context() as broken:
        broken.setattr("ostinato.image.denoise.is_batch_invariant", lambda *a, **b: False)
        assert Denoise(UNet(shape)).deterministic
        assert not Denoise(UNet(replace(shape, classes=2))).deterministic
    assert Denoise(UNet(shape)).deterministic


# The fastest compute mode -------------------------------------------------------------------------


@pytest.fixture
def timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Time also the tiny model."""
    monkeypatch.setattr(timing, "SMALL", 0)
    return monkeypatch


def slow(patch: pytest.MonkeyPatch, kind: type) -> None:
    feed = kind.feed  # type: ignore[attr-defined]

    def slower(self: object, rows: object) -> object:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        return feed(self, rows)

    patch.setattr(kind, "feed", slower)


def free() -> LanguageModel:
    """Return the tiny model with its compute mode left open."""
    return replace(tiny_model(), compile=None)


def mode_of(model: LanguageModel) -> str:
    return open_backend(model, 1).compute_mode.partition(", by")[0]


@needs_compiler
@pytest.mark.parametrize(
    ("slower", "mode"), [(CompiledBackend, "not compiled"), (FixedShapeBackend, "compiled")]
)
def test_the_faster_mode_is_taken_and_remembered(
    timed: pytest.MonkeyPatch, slower: type, mode: str
) -> None:
    with timed.context() as patch:
        slow(patch, slower)
        assert mode_of(free()).startswith(mode)
    chosen = mode_of(free())
    assert chosen.startswith(mode)
    forget()
    timed.setattr(timing, "_timed", None)  # timed again, it would raise
    assert mode_of(free()) == chosen


@needs_compiler
def test_a_mode_that_breaks_the_promise_is_not_taken(timed: pytest.MonkeyPatch) -> None:
    with timed.context() as patch:
        slow(patch, FixedShapeBackend)
        patch.setattr(CompiledBackend, "_compare_rows", lambda self: SelfTest(False, "It differs."))
        assert mode_of(free()).startswith("not compiled")


@needs_compiler
def test_what_the_user_chose_is_not_timed(timed: pytest.MonkeyPatch) -> None:
    timed.setattr(timing, "_timed", None)
    assert mode_of(replace(free(), compile=True)) == "compiled"
    assert mode_of(replace(free(), compile=False)) == "not compiled"
    assert mode_of(replace(free(), compile=False, dtype=torch.bfloat16)) == (
        "not compiled, in bfloat16"
    )


@needs_compiler
def test_a_chosen_type_is_kept(timed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = load_model(save_tiny(tmp_path / "tiny"), dtype=torch.bfloat16)
    slow(timed, CompiledBackend)
    backend = open_backend(model, 1)
    assert isinstance(backend, FixedShapeBackend)
    assert (backend.dtype, backend.compute_mode) == (torch.bfloat16, "not compiled")


@needs_compiler
def test_small_models_are_not_timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_timed", None)
    assert mode_of(free()) == "compiled"


def test_a_converted_network_has_the_bits_of_one_loaded_so() -> None:
    tokens, rows = sequence(3, 70, 80), [(0, 5, 70), (1, 7, 0)]

    def computed(backend: FixedShapeBackend) -> torch.Tensor:
        backend.prefill(0, tokens)
        return backend.logits(backend.feed(rows))

    for own, other in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        given = network("qwen3").to(own)
        converted = computed(FixedShapeBackend(given, 2, dtype=other))
        assert given.model.embed_tokens.weight.dtype == own
        assert torch.equal(converted, computed(FixedShapeBackend(given.to(other), 2)))


# Runs keep their mode -----------------------------------------------------------------------------


def begin(make: Callable[[], Loop]) -> str:
    """Start a run and leave it after a few steps; return its compute mode."""
    with make() as loop:
        for _, _ in zip(range(3), loop, strict=False):
            pass
        mode = loop.process.compute_mode  # type: ignore[attr-defined]
    return str(mode).partition(", by")[0]


def finish(make: Callable[[], Loop]) -> list[object]:
    with make() as loop:
        return [one.output for step in loop for one in step.results]


def beams(model: LanguageModel, run: str | None) -> Loop:
    return write(["We can"], model=model, each=Steps(8), num_beams=2, run=run)


def samples(model: LanguageModel, run: str | None) -> Loop:
    return write(["We can"], model=model, each=Steps(8), run=run)


def groups(model: LanguageModel, run: str | None) -> Loop:
    refine = Refine(
        model,
        [{"text": "We can"}],
        prompt="{text}",
        checks=[Length(max=400)],
        strategy=BestOf(n=2, parallel=2),
        max_new_tokens=8,
    )
    return refine.loop(run=run)


@needs_compiler
@pytest.mark.parametrize("make", [samples, beams, groups])
def test_a_run_keeps_its_mode_where_another_one_would_be_chosen_now(
    timed: pytest.MonkeyPatch, folder: Path, make: Callable[[LanguageModel, str | None], Loop]
) -> None:
    with timed.context() as patch:
        slow(patch, CompiledBackend)
        mode = begin(lambda: make(free(), "kept"))
        assert mode.startswith("not compiled")
        expected = finish(lambda: make(free(), None))
    forget()
    shutil.rmtree(folder)  # the cache is cleared
    with timed.context() as patch:
        slow(patch, FixedShapeBackend)
        assert mode_of(free()) == "compiled"
        with make(free(), "kept") as resumed:
            assert resumed.process.compute_mode == mode  # type: ignore[attr-defined]
        with pytest.raises(RunError, match="must be resumed in its compute mode, not compiled"):
            make(replace(free(), compile=True), "kept")
        assert finish(lambda: make(free(), "kept")) == expected


@needs_compiler
def test_a_mode_that_this_machine_lacks_is_refused_on_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin(lambda: samples(free(), "moved")) == "compiled"
    monkeypatch.setattr("platform.machine", lambda: "another")
    with pytest.raises(RunError, match=r"in its compute mode, compiled.*, got not compiled"):
        samples(free(), "moved")


@needs_compiler
def test_a_run_keeps_the_mode_of_its_judge(
    timed: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    judge = str(save_tiny(tmp_path / "judge"))

    def judged(run: str | None) -> Loop:
        judging._local.cache_clear()  # as in another process
        checks = [Judge(question=QUESTION, model=judge, min=1e-9)]
        items = [{"text": text} for text in ("We can", "They may")]
        refine = Refine(
            replace(free(), compile=False), items, prompt="{text}", checks=checks, slots=1
        )
        return refine.loop(run=run)

    def mode(run: str | None) -> str:
        loop = judged(run)
        if run is not None:
            begin(lambda: loop)
        return Judge(question=QUESTION, model=judge).compute_mode

    with timed.context() as patch:
        slow(patch, CompiledBackend)
        plain = mode("kept")
        assert plain.startswith("not compiled")
    assert plain in str(Journal().get("kept").spec["judge_mode"])
    forget()
    shutil.rmtree(folder)
    with timed.context() as patch:
        slow(patch, FixedShapeBackend)
        assert mode(None).startswith("compiled")
        assert mode("kept") == plain
