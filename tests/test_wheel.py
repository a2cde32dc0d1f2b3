"""The wheel holds the package whole, and works when it is installed alone, without a compiler."""

from __future__ import annotations

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from tiny import save_tiny

from ostinato.inference.compiled.variants import VARIANTS, best_variant, compiler_path
from ostinato.models import instruction_sets

ROOT = Path(__file__).parents[1]
CARRIED = "ostinato/inference/compiled/carried"
KERNELS = {f"{CARRIED}/{name}" for name in [*(v.file for v in VARIANTS), "kernels.json"]}
MOST_BYTES = 16_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
builds_kernels = pytest.mark.skipif(
    not compiler_path() or sysconfig.get_platform() != "linux-x86_64",
    reason="only a wheel that is built on x86-64 Linux with a C++ compiler has kernels",
)


def build(kind: str, folder: Path, **environment: str) -> Path:
    """Build the wheel or the source distribution into a folder; return its path."""
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(folder)]
    environ = {**os.environ, **environment}
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, env=environ)
    (made,) = folder.glob("ostinato-*")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("--wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_works_when_it_is_installed_alone(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which would hide the wheel's package
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies are those of this environment; the package is the wheel's.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    script = str(tmp_path / "venv" / "bin" / "ostinato")
    models = subprocess.run(
        [script, "models", "--json"], capture_output=True, text=True, check=True
    )
    assert "smollm2" in models.stdout and "support" in models.stdout
    job = tmp_path / "job.toml"
    made = subprocess.run([script, "refine", "--new", job], capture_output=True, text=True)
    assert made.returncode == 0 and job.exists()
    picture = tmp_path / "seven.png"
    sample = [script, "sample", "image", "--label", "7", "--steps", "2", "--out", str(picture)]
    sample.append("--until-passes")  # with the denoiser and the classifier that ship
    told = subprocess.run(sample, check=True, capture_output=True, text=True).stdout
    assert "1 of 1: " in told
    assert picture.stat().st_size > 0
    music = [script, "sample", "music", "--out", str(tmp_path / "bach.wav")]
    subprocess.run(music, check=True, capture_output=True)
    assert (tmp_path / "bach.wav").stat().st_size > 100_000
    code = "import ostinato; print(ostinato.__file__)"
    where = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert str(tmp_path) in where.stdout


@builds_kernels
def test_the_wheel_carries_every_kernel_and_is_named_by_the_glibc_that_they_need(
    wheel: Path, unpacked: Path
) -> None:
    assert {str(path.relative_to(unpacked)) for path in (unpacked / CARRIED).iterdir()} == KERNELS
    tag = re.search(r"-(py3-none-manylinux_(\d+)_(\d+)_x86_64)\.whl$", wheel.name)
    assert tag
    (about,) = unpacked.glob("*.dist-info/WHEEL")
    metadata = email.message_from_string(about.read_text())
    assert (metadata["Tag"], metadata["Root-Is-Purelib"]) == (tag[1], "false")
    if not shutil.which("objdump"):
        pytest.skip("there is no objdump")
    needed = {(2, 17)}
    for variant in VARIANTS:
        command = ["objdump", "-T", str(unpacked / CARRIED / variant.file)]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        needed |= {(int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)}
        assert "GLIBCXX" not in symbols  # the library of C++ is in it
        exported = re.findall(r" g +DF \.text.* (\w+)$", symbols, re.M)
        assert {"ask_tiles", "forward", "product", "scratch_floats"} <= set(exported)
        assert not [name for name in exported if name.startswith("_ZNS")]  # of that library
    assert max(needed) == (int(tag[2]), int(tag[3]))


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES


def test_without_a_compiler_the_wheel_is_pure(tmp_path: Path) -> None:
    pure = build("--wheel", tmp_path, CXX="no-such-compiler")
    assert pure.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(CARRIED)]
    assert "ostinato/inference/compiled/kernel.cpp" in names  # compiled on the machine


def test_the_source_distribution_builds_a_wheel(tmp_path: Path) -> None:
    source = build("--sdist", tmp_path / "source")
    shutil.unpack_archive(source, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("ostinato-"))
    assert (folder / "hatch_build.py").is_file()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(folder)]
    environ = {**os.environ, "CXX": "no-such-compiler"}
    subprocess.run(command, check=True, capture_output=True, env=environ)
    assert list((folder / "dist").glob("*.whl"))


# Without a compiler -------------------------------------------------------------------------


def run(unpacked: Path, cache: Path, *command: str, **environment: str) -> str:
    """Run Python with the wheel's package, and without any program to be found on the path."""
    environ = {key: value for key, value in os.environ.items() if key not in ("CXX", "LD_PRELOAD")}
    environ |= {"PATH": "", "PYTHONPATH": str(unpacked), "OSTINATO_CACHE": str(cache)}
    environ |= {"OSTINATO_MARCH": "", **environment}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environ, cwd=cache.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@builds_kernels
@pytest.mark.parametrize("march", ["", *(variant.march for variant in VARIANTS)])
def test_a_model_runs_compiled_where_there_is_no_compiler(
    unpacked: Path, tmp_path: Path, march: str
) -> None:
    best = best_variant(instruction_sets(), [v.march for v in VARIANTS])
    variant = next((v for v in VARIANTS if v.march == march), best)
    if variant is None or not variant.runs_on(instruction_sets()):
        pytest.skip("this processor cannot run it")
    model = save_tiny(tmp_path / "tiny")
    code = f"""
import ostinato
from ostinato.inference import find_kernel, open_backend
from ostinato.models import load_model
backend = open_backend(load_model({str(model)!r}), 1)
print(ostinato.__file__, backend.feed([(0, 5, 0)]).shape, sep="\\n")
print(backend.compute_mode, find_kernel(), sep="\\n")
"""
    cache = tmp_path / "cache"
    told = run(unpacked, cache, "-c", code, OSTINATO_MARCH=march).splitlines()
    assert told[0].startswith(str(unpacked)) and told[1].startswith("torch.Size([1, ")
    assert told[2].startswith("compiled")
    assert told[3].startswith(f"carried, {variant.title} ({variant.march}), built by ")
    assert not (cache / "native").exists()  # nothing was compiled here
    generate = ["generate", "Hello", "--plain", "--max-new-tokens", "4", "--compile"]
    command = ["-m", "ostinato", *generate, "--model", str(model)]
    text = run(unpacked, cache, *command, OSTINATO_MARCH=march)
    assert text.strip()


@builds_kernels
def test_the_doctor_of_a_wheel_tells_which_kernel_it_carries(
    unpacked: Path, tmp_path: Path
) -> None:
    best = best_variant(instruction_sets(), [v.march for v in VARIANTS])
    if best is None:
        pytest.skip("this processor has no AVX2")
    told = json.loads(run(unpacked, tmp_path / "cache", "-m", "ostinato", "doctor", "--json"))
    kernel = told["kernel"]
    assert (kernel["carried"], kernel["march"]) == (True, best.march)
    assert kernel["reason"] == "the best of 4 that this processor supports"


def test_an_editable_installation_compiles_nothing(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.KernelHook(str(ROOT), {}, None, None, str(tmp_path), "wheel")
    data: dict[str, object] = {"force_include": {}, "pure_python": True}
    hook.initialize("editable", data)
    hook.finalize("editable", data, "")
    assert data == {"force_include": {}, "pure_python": True}
