"""Examples as they stand in documents: what a reader copies is what is tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ASKED = Path(__file__).with_name("what-was-asked.md")
README = Path(__file__).parents[2] / "README.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """All fenced blocks of a language, in their order."""
    return [text for name, text in _BLOCK.findall(document.read_text()) if name == language]


def commands(document: Path) -> list[tuple[list[str], str]]:
    """What is typed after each ``$`` in the consoles, as words, with what is printed then."""
    found = []
    for block in blocks(document, "console"):
        for typed in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            words, printed = _first_command(typed)
            found.append((words, printed))
    return found


def _first_command(text: str) -> tuple[list[str], str]:
    """A command may go on over lines, within quotes or after a backslash."""
    lines = text.splitlines(keepends=True)
    for end in range(1, len(lines) + 1):
        typed = "".join(lines[:end])
        if typed.endswith("\\\n"):
            continue
        try:
            return shlex.split(typed), "".join(lines[end:])
        except ValueError:  # a quote is open
            continue
    raise AssertionError(f"no command: {text}")


def option(words: list[str], name: str) -> str:
    """What follows an option of a command."""
    return words[words.index(name) + 1]
