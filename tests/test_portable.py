"""Nothing at import or in the engine needs Linux: other systems lack some modules and functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_public import MODULES, ROOT

# What Windows and macOS lack, taken away before anything of ours is imported.
ELSEWHERE = """
import os, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None
for name in ("fork", "getuid", "register_at_fork", "sched_getaffinity", "pread", "pwrite"):
    if hasattr(os, name):
        delattr(os, name)

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/proc"):
        raise PermissionError(13, "no such file system here", arguments[0])

sys.addaudithook(refuse)
"""
RUNNING = """
from ostinato import Loop, Steps

total = 0
def add():
    global total
    total += 1
    return {"total": total}

print(Loop(add, until=Steps(3)).run().sentence)
"""


def python(code: str, *, before: str = "") -> str:
    command = [sys.executable, "-c", f"{before}\n{ELSEWHERE}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_module_can_be_imported_without_what_other_systems_lack() -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    # The Linux builds of PyTorch and psutil themselves need some of it.
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    assert python(code, before="import psutil, torch") == ""


def test_a_loop_runs_without_what_other_systems_lack() -> None:
    assert "3 steps" in python(RUNNING)


def test_a_model_is_computed_without_what_other_systems_lack(tmp_path: Path) -> None:
    code = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny import tiny_model
from ostinato.inference import open_backend
from ostinato.models import compute_dtype
print(compute_dtype(), open_backend(tiny_model(), 1).feed([(0, 5, 0)]).shape)
"""
    assert "torch.Size([1, " in python(code, before="import psutil, torch")


@pytest.mark.parametrize("needed", ["/proc", "import fcntl", "import resource", "import pwd"])
def test_no_source_names_what_only_some_systems_have(needed: str) -> None:
    sources = [path for path in ROOT.rglob("*") if path.suffix in (".py", ".cpp", ".h")]
    assert sources and [path for path in sources if needed in path.read_text("utf-8")] == []
