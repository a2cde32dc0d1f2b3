"""Which compiled kernel a processor gets, and what is said where there is none."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ostinato.errors import ModelError
from ostinato.inference import has_kernel
from ostinato.inference.compiled import build, variants
from ostinato.inference.compiled.build import _choice
from ostinato.models import compute_dtype, instruction_sets, processor
from ostinato.models.processor import _of_older_torch

AVX2 = {"sse4_2", "avx", "avx2", "fma3", "f16c", "bmi2"}
SKYLAKE = AVX2 | {"avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl"}
ICE_LAKE = SKYLAKE | {"avx512_vnni", "avx512_vbmi"}
ZEN_4 = ICE_LAKE | {"avx512_bf16"}
SAPPHIRE_RAPIDS = ZEN_4 | {"amx_tile", "amx_bf16", "amx_int8", "avx512_fp16"}
ALL = [variant.march for variant in variants.VARIANTS]

PROCESSORS = {
    "none": (set(), None),
    "sandy bridge": ({"avx", "sse4_2"}, None),
    "without fma": ({"avx2"}, None),
    "haswell": (AVX2, "x86-64-v3"),
    "alder lake": (AVX2 | {"avx_vnni"}, "alderlake"),
    "knights landing": (AVX2 | {"avx512_f", "avx512_cd"}, "x86-64-v3"),
    "skylake-x": (SKYLAKE, "x86-64-v3"),
    "ice lake": (ICE_LAKE, "x86-64-v4"),
    "zen 5": (ZEN_4 | {"avx_vnni"}, "x86-64-v4"),
    "zen 4": (ZEN_4, "x86-64-v4"),
    "sapphire rapids": (SAPPHIRE_RAPIDS, "sapphirerapids"),
    "apple m1": ({"neon", "dot"}, None),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_gets_the_best_that_it_can_run(name: str) -> None:
    features, expected = PROCESSORS[name]
    variant = variants.best_variant(features, ALL)
    assert (variant.march if variant else None) == expected
    assert variants.best_variant(features, []) is None


CHOICES = [
    (None, SAPPHIRE_RAPIDS, ALL, "sapphirerapids", "the best of 4 that this processor supports"),
    (None, SAPPHIRE_RAPIDS, ["x86-64-v3"], "x86-64-v3", "the best of 1"),
    (None, {"avx"}, ALL, None, "this processor supports no carried kernel"),
    (None, SAPPHIRE_RAPIDS, [], None, "this installation carries no kernel"),
    ("x86-64-v3", SAPPHIRE_RAPIDS, ALL, "x86-64-v3", "OSTINATO_MARCH asks for x86-64-v3"),
    ("x86-64-v3", SAPPHIRE_RAPIDS, [], None, "OSTINATO_MARCH asks for x86-64-v3"),
    ("native", SAPPHIRE_RAPIDS, ALL, None, "OSTINATO_MARCH asks for "),
    ("znver3", AVX2, ALL, None, "OSTINATO_MARCH asks for "),
]


@pytest.mark.parametrize(("asked", "features", "carried", "expected", "reason"), CHOICES)
def test_the_environment_decides_else_the_best_carried_kernel_is_used(
    asked: str | None, features: set[str], carried: list[str], expected: str | None, reason: str
) -> None:
    variant, why = _choice(asked, frozenset(features), carried)
    assert (variant.march if variant else None) == expected
    assert why.startswith(reason)


def test_instructions_that_the_processor_lacks_are_refused() -> None:
    expected = "whose instructions this one has, got sapphirerapids, which also needs amx_bf16, "
    with pytest.raises(ModelError, match=expected):
        _choice("sapphirerapids", frozenset(ZEN_4), ALL)


@pytest.mark.skipif(not variants.compiler_path(), reason="there is no C++ compiler")
@pytest.mark.parametrize("variant", variants.VARIANTS, ids=lambda variant: variant.march)
def test_a_variant_uses_only_instructions_that_it_is_chosen_by(variant: variants.Variant) -> None:
    """What the compiler may use beyond the baseline of AVX2 is in `needs`."""
    if platform.machine() != "x86_64":
        pytest.skip("the flags are of x86-64")
    compiler = variants.compiler_path()
    assert compiler
    macros = variants.predefined_macros(compiler, variant.flags)
    allowed = set(re.findall(r"#define __(AVX512\w+|AMX\w+|AVXVNNI)__ 1", macros))
    names = (name.upper().replace("AVX512_", "AVX512") for name in variant.needs)
    assert allowed == {name.replace("AVX_", "AVX") for name in names} - {"AVX2", "FMA3"}
    assert "#define __FMA__ 1" in macros and "#define __AVX2__ 1" in macros


def test_without_a_compiler_a_carried_kernel_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not has_kernel()
    monkeypatch.setattr(build, "carried_names", lambda: ALL)
    monkeypatch.setattr(build, "instruction_sets", lambda: frozenset(AVX2))
    assert has_kernel()
    monkeypatch.setattr(build, "instruction_sets", lambda: frozenset({"avx"}))
    assert not has_kernel()


def test_the_error_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv(build.MARCH, "native")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    wheel = (
        r"Install g\+\+, or install Ostinato from its wheel, which carries kernels, or leave out"
    )
    with pytest.raises(ModelError, match=f"{wheel} OSTINATO_MARCH, or leave out compile"):
        build.find_compiler()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")  # no wheel has kernels for it
    with pytest.raises(ModelError, match=r"Install g\+\+, or leave out OSTINATO_MARCH, or leave"):
        build.find_compiler()


def test_a_carried_kernel_that_does_not_load_is_compiled_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not variants.compiler_path():
        pytest.skip("there is no C++ compiler")
    if not variants.VARIANTS[-1].runs_on(instruction_sets()):
        pytest.skip("the processor has no AVX2")
    (tmp_path / "x86-64-v3.so").write_bytes(b"damaged")
    monkeypatch.delenv(build.MARCH, raising=False)
    monkeypatch.setattr(build, "CARRIED", tmp_path)
    monkeypatch.setattr(build, "carried_names", lambda: variants.carried_names(tmp_path))
    kernel = build.find_kernel()
    assert (kernel.carried, kernel.march) == (False, "native")
    assert kernel.reason.startswith("the carried kernel does not load: ")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ModelError,
        match=r"\(the carried kernel does not load: .*\)\. Install g\+\+, or leave out compile",
    ):
        build.find_kernel()


def test_what_a_kernel_is_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if not variants.compiler_path():
        pytest.skip("there is no C++ compiler")
    monkeypatch.delenv(build.MARCH, raising=False)
    told = r"compiled here by (g\+\+|clang) \d+\.\d+(\.\d+)? for native"
    kernel = build.find_kernel()
    assert re.fullmatch(told, str(kernel))
    carried = build.Kernel(kernel.library, "x86-64-v3", True, "g++ 12.2.0", "")
    assert str(carried) == "carried, AVX2 (x86-64-v3), built by g++ 12.2.0"


def test_a_compiler_is_named_by_its_macros() -> None:
    assert variants.compiler_name('#define __GNUC__ 12\n#define __VERSION__ "12.2.0"\n') == (
        "g++ 12.2.0"
    )
    clang = '#define __GNUC__ 4\n#define __clang__ 1\n#define __VERSION__ "Clang 16.0.6 (x)"\n'
    assert variants.compiler_name(clang) == "clang 16.0.6"


def test_the_glibc_that_libraries_need_is_read_from_them(tmp_path: Path) -> None:
    library = tmp_path / "a.so"
    library.write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBCXX_3.4.30\0GLIBC_PRIVATE\0")
    assert variants.glibc_needed([library]) == (2, 34)
    library.write_bytes(b"\0GLIBC_2.2.5\0")
    assert variants.glibc_needed([library]) == (2, 17)


# The processor --------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("lscpu"), reason="there is no lscpu")
def test_the_instruction_sets_are_those_that_the_system_sees() -> None:
    seen = set(subprocess.run(["lscpu"], capture_output=True, text=True).stdout.split())
    system = {"fma3": "fma", "avx512_f": "avx512f", "avx512_bw": "avx512bw"}
    for name in ("avx2", "fma3", "avx512_f", "avx512_bw", "avx512_vnni", "amx_bf16", "amx_tile"):
        assert (name in instruction_sets()) == (system.get(name, name) in seen), name


def test_an_older_pytorch_tells_what_decides() -> None:
    """The names of a newer one, as far as a variant needs them, but AVX2's VNNI."""
    decisive = frozenset().union(*(variant.needs for variant in variants.VARIANTS)) - {"avx_vnni"}
    assert _of_older_torch() & decisive == instruction_sets() & decisive


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (set(), torch.float32),
        (AVX2, torch.float32),
        (ICE_LAKE, torch.float32),
        (ZEN_4, torch.bfloat16),
        ({"neon", "bf16"}, torch.float32),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, features: set[str], expected: torch.dtype
) -> None:
    monkeypatch.setattr("ostinato.models.device.instruction_sets", lambda: frozenset(features))
    assert compute_dtype() == expected


def test_the_bandwidth_of_memory_is_measured() -> None:
    assert 0.1 < processor.read_gb_s(torch.device("cpu"), 1 << 24) < 10_000
