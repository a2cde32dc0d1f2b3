"""Puts compiled kernels into the wheel, where the machine that builds it can compile them."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = Path("src", "ostinato", "inference", "compiled")
INSTALLED = "ostinato/inference/compiled/carried"


def read_variants(root: Path) -> ModuleType:
    """Import the table of variants without the package, whose dependencies are not installed."""
    spec = importlib.util.spec_from_file_location("variants", root / COMPILED / "variants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def is_supported() -> bool:
    """Return whether wheels with kernels are built here: on x86-64 Linux with glibc."""
    known = sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32
    return known and platform.libc_ver()[0] == "glibc"


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the kernels; without a compiler the wheel is pure, and compiles when it is used."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a folder of its own, and name the wheel by the glibc that it needs."""
        self._folder: Path | None = None
        variants = read_variants(Path(self.root))
        compiler = variants.compiler_path()
        if version == "editable" or not is_supported() or compiler is None:
            return
        self._folder = folder = Path(tempfile.mkdtemp(prefix="kernels-"))
        for march, failure in variants.build_variants(compiler, folder).items():
            self.app.display_warning(f"No kernel for {march} in the wheel: {failure.strip()[:300]}")
        libraries = sorted(folder.glob("*.so"))
        if not libraries:
            return
        for path in sorted(folder.iterdir()):
            path.chmod(0o644)
            build_data["force_include"][str(path)] = f"{INSTALLED}/{path.name}"
        major, minor = variants.glibc_needed(libraries)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{major}_{minor}_x86_64"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
