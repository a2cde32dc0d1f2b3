"""The pages of the Python API: every public name of every package, from its docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import ostinato
from recipes.site.markdown import cell, table

FOLDER = "reference/python/"

PLAIN = (int, float, str, tuple, frozenset)
"""Types of public constants, which are listed with their values."""

LONGEST = 300
"""Characters of the longest value that is shown."""

ERRORS = """::: ostinato.errors
    options:
      show_root_heading: false
      show_root_toc_entry: false
      heading_level: 3"""


def public_packages() -> list[str]:
    """Return the packages that list public names, but for the command line and the top."""
    walked = pkgutil.walk_packages(ostinato.__path__, "ostinato.")
    names = [module.name for module in walked if module.ispkg]
    return [name for name in names if ".cli" not in name and public_names(name)]


def public_names(package: str) -> list[str]:
    """Return the names in `__all__` of a package, sorted."""
    return sorted(getattr(importlib.import_module(package), "__all__", []))


def python_pages() -> dict[str, str]:
    """Return a page for each package with public names, by path."""
    pages = {f"{FOLDER}index.md": _top()}
    for package in public_packages():
        pages[f"{FOLDER}{package.removeprefix('ostinato.')}.md"] = _page(package)
    return pages


def _top() -> str:
    """Return the page of the package itself: its names are documented where they are defined."""
    homes = {name: package for package in public_packages() for name in public_names(package)}
    homes["OstinatoError"] = "ostinato.errors"
    names = [
        (f"[`{name}`][{homes[name]}.{name}]", _first_line(getattr(ostinato, name)))
        for name in public_names("ostinato")
    ]
    packages = [
        (
            f"[`{package}`]({package.removeprefix('ostinato.')}.md)",
            _first_line(importlib.import_module(package)),
        )
        for package in public_packages()
    ]
    parts = [
        "# Python",
        "`from ostinato import …` gives the names of the engine:",
        table(("name", "what it is"), names),
        "The packages:",
        table(("package", "what it holds"), packages),
        "## Exceptions",
        "Every exception that Ostinato raises on purpose is an `OstinatoError`.",
        ERRORS,
    ]
    return "\n\n".join(parts)


def _first_line(named: object) -> str:
    return cell((inspect.getdoc(named) or "").split("\n\n")[0])


def _page(package: str) -> str:
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in public_names(package)}
    constants = {name: value for name, value in values.items() if isinstance(value, PLAIN)}
    parts = [f"# {package}", inspect.getdoc(module) or ""]
    parts += [f"::: {package}.{name}" for name in values if name not in constants]
    if constants:
        rows = [(f"`{name}`", _shown(value)) for name, value in constants.items()]
        parts += ["## Constants", table(("name", "value"), rows)]
    return "\n\n".join(parts)


def _shown(value: object) -> str:
    text = repr(sorted(value, key=repr) if isinstance(value, frozenset) else value)
    return f"`{text}`" if len(text) <= LONGEST else "a long list"
