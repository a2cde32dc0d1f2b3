"""What recipes are given on the command line: told in one sentence where it is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import click

from ostinato.errors import OstinatoError


def positive(text: str) -> int:
    """Read a whole number from 1 on, as a type of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def run(main: Callable[[], None]) -> None:
    """Run a recipe; what it cannot work with is a message and exit code 2, never a traceback."""
    try:
        main()
    except click.ClickException as error:
        print(f"Error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (OstinatoError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
