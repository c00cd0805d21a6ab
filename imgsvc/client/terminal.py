"""Where commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

from typing import Any

import orjson
from rich.console import Console

_NO_TERMINAL = 1000  # columns; what reads a pipe wants whole lines


def out() -> Console:
    """Standard output, as wide as its terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_NO_TERMINAL)


def err() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """A line for the user, on standard error."""
    err().print(line, markup=False, soft_wrap=True)


def print_line(line: str) -> None:
    """A line of the result, as soon as it is there."""
    print(line, flush=True)  # noqa: T201


def print_json(found: Any) -> None:
    """A result as the service sends it, indented."""
    print_line(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
