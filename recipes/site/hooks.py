"""What MkDocs calls while it builds the site: generated pages, and links out of `docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path, as no part of a package

from recipes.site.commands import command_pages  # noqa: E402
from recipes.site.python_pages import python_pages  # noqa: E402
from recipes.site.tables import table_pages  # noqa: E402

WORKER = Path(__file__).with_name("iframe_worker.js")
"""Lets the search work on pages that were opened from the disk."""

REMOTE_WORKER = re.compile(r"https://unpkg\.com/iframe-worker/shim")
"""What the theme would load from the network instead."""

OUTWARD = re.compile(r"\]\(\.\./((?:examples|src)/[^)#\s]+)")
"""A link from `docs` to a file of the repository, which becomes a file of the site."""

FROM_EXAMPLE = "](../../docs/"
"""How the page of an example links to a page of `docs`."""


def example_pages() -> dict[str, str]:
    """Return the pages of the examples, by path."""
    pages = sorted((ROOT / "examples").glob("*/README.md"))
    return {
        page.relative_to(ROOT).as_posix(): page.read_text("utf-8").replace(FROM_EXAMPLE, "](../../")
        for page in pages
    }


def generated_pages() -> dict[str, str]:
    """Return all pages that are made at build time, by path."""
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")
    return {
        "changelog.md": changes,
        **example_pages(),
        **command_pages(),
        **table_pages(),
        **python_pages(),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages of a folder where the navigation names the folder."""
    config.extra["pages"] = pages = generated_pages()
    config.nav = _filled(config.nav, list(pages))
    return config


def _filled(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_filled(entry, pages) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, pages) for title, entry in nav.items()}
    if isinstance(nav, str) and nav.endswith("/"):
        return [page for page in pages if page.startswith(nav)]
    return nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the source files that pages link to."""
    for path, text in config.extra["pages"].items():
        files.append(File.generated(config, path, content=text))
    worker = WORKER.read_text("utf-8")
    files.append(File.generated(config, WORKER.name, content=worker))
    for page in files.documentation_pages():
        for path in OUTWARD.findall(page.content_string):
            if files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links out of `docs` lead to the files of the site."""
    return OUTWARD.sub(r"](\1", markdown)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Let pages load nothing from the network."""
    return REMOTE_WORKER.sub(get_relative_url(WORKER.name, page.url), output)


def on_post_template(output_content: str, template_name: str, **_: object) -> str:
    """The same for the page of addresses that do not exist."""
    return REMOTE_WORKER.sub(WORKER.name, output_content)
