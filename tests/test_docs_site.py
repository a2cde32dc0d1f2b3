"""The documentation builds as a site without a warning, loads nothing, and misses nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ostinato.checks import KINDS, parameters
from ostinato.cli.main import cli
from ostinato.journal import StopKind
from ostinato.refine import STRATEGIES
from recipes.site.docstrings import listed
from recipes.site.python_pages import public_names, public_packages
from recipes.site.tables import conditions

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly: a broken link or anchor, or a page without a place, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_pages_load_nothing_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        html = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\"> ]+)", html)
        loaded += re.findall(
            r"<link[^>]* rel=\"?stylesheet\"?[^>]* href=\"?(https?:[^\"> ]+)", html
        )
        assert not loaded, page.name


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists(), page.name


def test_every_public_name_is_on_its_page(site: Path) -> None:
    packages = public_packages()
    assert len(packages) > 20
    for package in packages:
        page = site / "reference" / "python" / f"{package.removeprefix('ostinato.')}.html"
        html = page.read_text("utf-8")
        for name in public_names(package):
            is_there = f'id="{package}.{name}"' in html or f"<code>{name}</code>" in html
            assert is_there, f"{package}.{name}"


def test_every_name_of_the_top_leads_to_its_page(site: Path) -> None:
    html = (site / "reference" / "python" / "index.html").read_text("utf-8")
    for name in public_names("ostinato"):
        assert re.search(rf'href="[^"]*#ostinato\.[\w.]*\b{name}"', html), name


def test_every_command_and_option_is_on_the_site(site: Path) -> None:
    context = click.Context(cli, info_name="ostinato")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        page = (site / "reference" / "commands" / f"{name}.html").read_text("utf-8")
        for path, found in walk(command, f"ostinato {name}"):
            assert f">{path}<" in page, path
            for option in found.params:
                hidden = isinstance(option, click.Option) and option.hidden
                names = [] if isinstance(option, click.Argument) or hidden else option.opts
                assert all(one in page for one in names), f"{path} {names}"


def walk(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """Return a command and all below it, with the words that call each."""
    below = command.commands if isinstance(command, click.Group) else {}
    shown = [(f"{path} {name}", one) for name, one in below.items() if not one.hidden]
    return [(path, command), *(pair for name, one in shown for pair in walk(one, name))]


def test_every_stop_kind_condition_check_and_strategy_has_its_place(site: Path) -> None:
    def page(name: str) -> str:
        return (site / name).read_text("utf-8")

    for kind in StopKind:
        assert f"<code>{kind.value}</code>" in page("stop-kinds.html")
    assert {"Steps", "ModeCollapse", "PosteriorCollapse"} <= {one.__name__ for one in conditions()}
    for condition in conditions():
        assert f'id="{condition.__name__.lower()}"' in page("reference/conditions.html")
    for name in STRATEGIES:
        assert f'id="{name}"' in page("reference/strategies.html")
    checks = page("reference/checks.html")
    for name in KINDS:
        section = checks.partition(f'id="{name}"')[2].partition("<h2")[0]
        for key in parameters(name):
            assert key == "name" or f"<code>{key}</code>" in section, f"{name}: {key}"


def test_fields_in_a_docstring_become_a_list() -> None:
    lines = ["A server.", "", "url: Where it is,", "    and how.", "price_in, price_out: Prices."]
    expected = ["- `url`: Where it is,", "    and how.", "- `price_in`, `price_out`: Prices."]
    assert list(listed(lines)) == ["A server.", "", "", *expected]
    assert list(listed(["It says one: two."])) == ["It says one: two."]
