"""What is found wrong with something posted: counted, and the first of it listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 100
"""How many are listed, so that a hostile file cannot make a huge answer."""

_ENOUGH = 10_000
_LONGEST = 200  # characters of a name

ValidationProblem = dict[str, Any]


class ValidationProblems:
    """Collects problems; each is ``{"loc", "msg"}``, a place and what is wrong there."""

    def __init__(self) -> None:
        self._listed: list[ValidationProblem] = []
        self.count = 0

    def add(self, loc: Sequence[str | int], msg: str) -> None:
        """One more; ``msg`` reads on from its place and names the remedy."""
        self.count += 1
        if len(self._listed) < MOST:
            self._listed.append({"loc": [_shown(part) for part in loc], "msg": msg})

    def extend(self, others: ValidationProblems) -> None:
        """All that others found, after what was found before."""
        self.count += others.count
        self._listed += others._listed[: MOST - len(self._listed)]

    @property
    def enough(self) -> bool:
        """Whether there are so many that looking on would only cost time."""
        return self.count >= _ENOUGH

    @property
    def listed(self) -> list[ValidationProblem]:
        """The first ``MOST`` that were found, in the order of lines or products."""
        return sorted(self._listed, key=_position)

    @property
    def more(self) -> int:
        """How many more were found."""
        return self.count - len(self._listed)


def _shown(part: str | int) -> str | int:
    """A part of a place: a name may be one that a client made up, of any length."""
    return part if isinstance(part, int) or len(part) <= _LONGEST else f"{part[:_LONGEST]}..."


def _position(problem: ValidationProblem) -> int:
    """The line or product that a problem is about; what is about the whole comes first."""
    match problem["loc"]:
        case [_, int(number), *_]:
            return number
    return -1
