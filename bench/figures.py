"""What cases find out: figures with their rounds and the mark they are held against."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    Args:
        case: the case that measured it.
        name: what was measured.
        unit: of the values; empty for ratios.
        rounds: one value for each round.
        reach: the mark, if there is one.
        at_least: the mark is to be reached from above; otherwise it is a limit.
    """

    case: str
    name: str
    unit: str
    rounds: tuple[float, ...]
    reach: float | None = None
    at_least: bool = False

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool | None:
        """Whether the mark is reached; None without one."""
        if self.reach is None:
            return None
        return self.value >= self.reach if self.at_least else self.value <= self.reach


def table(figures: list[Figure]) -> str:
    """All figures as a Markdown table."""
    lines = [
        "| case | figure | median | min … max | rounds | mark | reached |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for figure in figures:
        low, high = (_text(pick(figure.rounds), "") for pick in (min, max))
        sign = "≥" if figure.at_least else "≤"
        mark = "" if figure.reach is None else f"{sign} {_text(figure.reach, figure.unit)}"
        reached = {None: "", True: "yes", False: "**no**"}[figure.reached]
        lines.append(
            f"| {figure.case} | {figure.name} | {_text(figure.value, figure.unit)} "
            f"| {low} … {high} | {len(figure.rounds)} | {mark} | {reached} |"
        )
    return "\n".join(lines) + "\n"


def _text(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f} {unit}".strip()
