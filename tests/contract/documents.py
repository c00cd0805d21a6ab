"""Examples as they stand in documents: what a reader copies is what is tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ASKED = Path(__file__).with_name("what-was-asked.md")
README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").glob("*.md")))
DECISIONS = tuple(sorted((ROOT / "docs" / "adr").glob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """What is typed after a ``$`` in a console, and what is printed then."""

    text: str
    printed: str


def blocks(document: Path, language: str) -> list[str]:
    """All fenced blocks of a language, in their order."""
    return [text for name, text in _BLOCK.findall(document.read_text()) if name == language]


def languages(document: Path) -> set[str]:
    """The languages of all fenced blocks."""
    return {name for name, _ in _BLOCK.findall(document.read_text())}


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return _BLOCK.sub("", document.read_text())


def commands(document: Path) -> list[Command]:
    """All commands of the consoles, in their order."""
    return [
        _first_command(typed)
        for block in blocks(document, "console")
        for typed in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]


def _first_command(text: str) -> Command:
    """A command may go on over lines, within quotes or after a backslash."""
    lines = text.splitlines(keepends=True)
    for end in range(1, len(lines) + 1):
        typed = "".join(lines[:end])
        if typed.endswith("\\\n"):
            continue
        try:
            shlex.split(typed)
        except ValueError:  # a quote is open
            continue
        return Command(typed, "".join(lines[end:]))
    raise AssertionError(f"no command: {text}")
