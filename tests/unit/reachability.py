"""What the models of the protocol and of commands share: from where no end can be reached."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import TypeVar

S = TypeVar("S")


def dead_ends(came_from: Mapping[S, Collection[S]], final: Collection[S]) -> set[S]:
    """States that lead to none of the final ones.

    Args:
        came_from: all states, each with those that lead to it in one step.
        final: the ends.
    """
    reaching = set(final)
    waiting = deque(final)
    while waiting:
        for before in came_from[waiting.popleft()]:
            if before not in reaching:
                reaching.add(before)
                waiting.append(before)
    return came_from.keys() - reaching
