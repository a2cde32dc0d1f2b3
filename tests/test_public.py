"""The public surface: exports agree, layers import downwards only, imports are light."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import ostinato
from ostinato.cli.main import COMMANDS

ROOT = Path(ostinato.__file__).parent

# What each package may import of Ostinato; docs/architecture.md holds the same table.
MAY_IMPORT = {
    "errors": set(),
    "loop": {"errors"},
    "settings": {"errors", "loop"},
    "models": {"errors"},
    "checks": {"errors", "loop", "models", "servers"},
    "train": {"errors", "loop", "models", "settings"},
    "decode": {"errors", "loop", "models"},
    "servers": {"errors", "loop"},
    "text": {"errors", "loop", "models", "train", "decode", "checks", "servers"},
    "image": {"errors", "loop", "models", "train", "decode", "checks"},
    "music": {"errors", "loop", "models", "train", "decode", "checks"},
    "refine": {"errors", "loop", "models", "checks", "decode", "servers"},
    "serve": {"errors", "loop", "models", "checks", "decode", "refine"},
    "testing": {"errors", "loop"},
    "cli": {"errors", "loop", "settings", "models", "checks", "train", "decode", "text", "image"}
    | {"music", "refine", "servers", "serve"},
}
PUBLIC = [
    "ostinato",
    *(f"ostinato.{name}" for name in MAY_IMPORT if name not in ("errors", "settings", "cli")),
]


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of Ostinato that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", [name for name in MAY_IMPORT if name != "errors"])
def test_arrows_point_down_only(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    for path in [*(ROOT / package).rglob("*.py"), *ROOT.glob(f"{package}.py")]:
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "ostinato" and len(parts) > 1:
                assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_every_package_is_in_the_table() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(MAY_IMPORT)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_shown_is_exported_and_there(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__  # in the order that the linter's RUF022 asks for
    assert len(names) == len(set(names))
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


@pytest.mark.parametrize("module", ["ostinato", "ostinato.cli.main", "ostinato.refine"])
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
