"""A run killed with SIGKILL at random moments ends as one never stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tiny_gguf import save_tiny_gguf

from ostinato.inference.compiled.build import has_compiler
from ostinato.testing import Forks, check_killed

TARGETS: list[tuple[str, Mapping[str, str]]] = [
    ("killable:walk", {}),
    ("killable:spell", {}),
    ("killable:spell", {"own": "yes"}),
    ("killable:toy_family", {}),
    ("killable:refine", {}),
    ("killable:train", {"optimizer": "muon", "lora": "2"}),
    ("killable:refine", {"keep": "results"}),
    ("killable:refine", {"strategy": "constrain"}),
    ("killable:refine", {"strategy": "smc"}),
    ("killable:refine", {"strategy": "best_of"}),
    ("killable:denoise", {"solver": "dpmpp_2m"}),
    ("killable:denoise", {"solver": "ddpm"}),
]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("killable") as opened:
        yield opened


@pytest.mark.parametrize(("make", "arguments"), TARGETS, ids=str)
@pytest.mark.slow
def test_a_killed_run_equals_an_undisturbed_one(
    make: str, arguments: Mapping[str, str], forks: Forks
) -> None:
    assert check_killed(make, kills=2, arguments=arguments, forks=forks) >= 1


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["constrain", "feedback"])
def test_so_does_one_of_the_compiled_pass(strategy: str, forks: Forks) -> None:
    arguments = {"strategy": strategy, "compiled": "float32"}
    assert check_killed("killable:refine", kills=2, arguments=arguments, forks=forks) >= 1


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize("form", ["bfloat16", "float16", "8", "4", "Q4_0", "Q4_1", "Q8_0"])
def test_so_does_one_in_each_number_format(form: str, forks: Forks, tmp_path: Path) -> None:
    compiled = str(save_tiny_gguf(tmp_path, form)) if form.startswith("Q") else form
    arguments = {"compiled": compiled}
    assert check_killed("killable:refine", kills=2, arguments=arguments, forks=forks) >= 1


@pytest.mark.slow
def test_so_does_one_of_new_interpreters() -> None:
    assert check_killed("killable:walk", kills=2) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("make", "arguments"), TARGETS[4:6], ids=str)
def test_fifty_kills_leave_no_trace(make: str, arguments: Mapping[str, str], forks: Forks) -> None:
    assert check_killed(make, kills=50, seed=1, arguments=arguments, forks=forks) == 50


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("killable:broken", r"got exit code 1\.\n(?s:.*)RuntimeError: it broke at 3"),
        ("killable:no_such", "(?s:.*)no attribute 'no_such'"),
    ],
)
def test_a_process_that_fails_by_itself_fails_the_check_with_its_output(
    make: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_killed(make, kills=1)
