"""The public surface: exports agree, layers import downwards only, imports are light."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import ostinato
from ostinato.cli.main import COMMANDS

ROOT = Path(ostinato.__file__).parent

# Modules at the top, which every package may import.
TOP = (
    "errors",
    "arguments",
    "text_files",
    "python_files",
    "parquet_files",
    "row_files",
    "output_files",
    "waiting",
    "synonyms",
)

# What each package may import beside them, as docs/architecture.md shows it.
ENGINE = {"journal", "loop"}
FAMILY = ENGINE | {"models", "inference", "checks", "train", "decode", "remote", "media", "runs"}
FAMILIES = ("text", "image", "music")
MAY_IMPORT = {
    "journal": set(),
    "loop": {"journal"},
    "models": set(),
    "inference": {"models"},
    "remote": ENGINE,
    "schemas": set(),
    "checks": ENGINE | {"models", "inference", "remote", "schemas"},
    "train": ENGINE | {"models"},
    "decode": ENGINE | {"models", "inference", "schemas"},
    "media": set(),
    "refine": ENGINE | {"models", "inference", "checks", "decode", "remote", "runs"},
    **{family: FAMILY | {"refine"} for family in FAMILIES},
    "adversarial": ENGINE | {"models", "train", "media", "image"},
    "reward": FAMILY | {"refine"},
    "flow": ENGINE | {"models", "inference", "checks", "decode", "remote", "refine", "runs"},
    "server": ENGINE | {"models", "checks", "decode", "refine", "flow"},
    "runs": ENGINE,
    "testing": ENGINE,
    "cli": FAMILY | {*FAMILIES, "adversarial", "refine", "reward", "flow", "server"},
}
SUBPACKAGES = [
    "image.pipelines",
    "image.tokens",
    "image.vae",
    "reward.games",
    "reward.minigame",
]  # with public names of their own
PUBLIC = [
    "ostinato",
    *(f"ostinato.{name}" for name in [*MAY_IMPORT, *SUBPACKAGES] if name != "cli"),
]


def module_of(path: Path) -> str:
    """Return the name under which a file of the package is imported."""
    parts = ("ostinato", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import of Ostinato in a file, also in its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ostinato"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.startswith("ostinato"))


def home_of(module: str, name: str) -> str:
    """Return the module that an import reads: a public name's own, as its package's stub tells."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    stub = MODULES[module].with_suffix(".pyi")
    source = stub if stub.exists() else MODULES[module]
    if source.stem != "__init__":
        return module
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            return str(node.module) if node.level == 0 else f"{module}.{node.module}"
    return module


def package_of(module: str) -> str:
    """Return the package to which a module belongs, such as `image.tokens`; empty for the top."""
    inner = module.removeprefix("ostinato").removeprefix(".")
    for name in SUBPACKAGES:
        if inner == name or inner.startswith(f"{name}."):
            return name
    return inner.partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_down_only(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package, *TOP}
    for path in (ROOT / package).rglob("*.py"):
        for module, _ in imports(path):
            assert module.split(".")[1:2] != [], f"{path} imports the top of the package"
            assert module.split(".")[1] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_every_package_is_in_the_table() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


def test_other_packages_are_imported_by_their_public_names_only() -> None:
    for module, path in MODULES.items():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        for imported, name in imports(path):
            package = package_of(imported)
            if package in ("", *TOP, package_of(module)):
                continue
            where = f"{path.relative_to(ROOT)} imports {name} from {imported}"
            assert imported == f"ostinato.{package}", f"{where}, past its public names"
            known = importlib.import_module(imported).__all__
            assert name in known or f"{imported}.{name}" in MODULES, f"{where}, which is not public"


def test_no_imports_form_a_circle() -> None:
    """Imports inside functions count; those of `__init__`, which hand names on, do not."""
    arrows = {
        module: {home_of(*each) for each in imports(path)} - {module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    left = dict(arrows)
    while free := {m for m, to in left.items() if not to & left.keys()}:
        left = {m: to for m, to in left.items() if m not in free}
    assert not left, f"These import each other: {sorted(left)}"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_shown_is_exported_and_there(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__
    assert len(names) == len(set(names))
    # Sorted as the linter's RUF022 does, constants first; `lazy_loader` sorts plainly.
    constants_first = sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert names in (sorted(names), constants_first)
    for public in names:
        assert hasattr(module, public)
    loaded = {n for n, value in vars(module).items() if not n.startswith("_")}
    own = {n for n in loaded if getattr(vars(module)[n], "__module__", "").startswith("ostinato")}
    assert own <= set(names), f"{name} shows {own - set(names)} without exporting it"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_carry_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in module.__all__:
        value = getattr(module, public)
        if isinstance(value, type | FunctionType):
            assert value.__doc__, f"{name}.{public} has no docstring"


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "module", ["ostinato", *(f"ostinato.{name}" for name in MAY_IMPORT), "ostinato.cli.main"]
)
def test_a_light_import_pulls_in_nothing_heavy(module: str) -> None:
    heavy = ("torch", "numpy", "transformers", "jinja2", "tokenizers", "rich")
    found = f"[m for m in {heavy} if m in sys.modules]"
    code = f"import sys, json, {module}; print(json.dumps({found}))"
    assert json.loads(run(code)) == []


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_command_s_help_needs_no_torch(command: str) -> None:
    code = (
        "import sys; from ostinato.cli.main import cli\n"
        f"cli(['{command}', '--help'], standalone_mode=False); print('torch' in sys.modules)"
    )
    assert run(code).splitlines()[-1] == "False"


def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "ostinato", "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ostinato.__version__ in output


def test_the_architecture_page_holds_the_same_table() -> None:
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \| ([^|]+) \|$", page, re.M))
    for package, allowed in MAY_IMPORT.items():
        names, imported = next(row for row in rows.items() if f"`{package}`" in row[0])
        if "all" not in imported and "nothing" not in imported:
            assert set(re.findall(r"`(\w+)`", imported)) == allowed, names
