"""Places and lines: one host's crowd is nobody else's, and waiting in line adds nothing."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.outbound.host_limits import APART_S, LONGEST_S, HostLines


def test_so_many_go_at_once_and_the_others_do_not() -> None:
    lines = HostLines()
    assert [lines.enter("a", 2) for _ in range(3)] == [True, True, False]
    assert lines.enter("b", 2), "another host has places of its own"
    lines.leave("a")
    assert lines.enter("a", 2)


def test_those_who_wait_ask_again_one_after_the_other() -> None:
    lines = HostLines()
    lines.enter("a", 1)
    waits = [lines.ask_again_s("a", 7.0) for _ in range(3)]
    assert waits == pytest.approx([APART_S, 2 * APART_S, 3 * APART_S])


@pytest.mark.parametrize("held_s", [1.0, 12.0, 600.0])
@pytest.mark.parametrize("waiting", [5, 100])
def test_a_host_that_hung_is_asked_at_once_when_it_is_free(held_s: float, waiting: int) -> None:
    """However long it held its places and however often it was asked meanwhile."""
    lines = HostLines()
    for _ in range(8):
        lines.enter("a", 8)
    due = [lines.ask_again_s("a", 0.0) for _ in range(waiting)]
    heapq.heapify(due)
    asked = 0
    while due[0] < held_s:
        now = heapq.heappop(due)
        asked += 1
        heapq.heappush(due, now + lines.ask_again_s("a", now))
    assert asked <= held_s / APART_S + 1, "asking costs the same, however many do"
    longest_s = waiting * APART_S
    assert due[0] - held_s <= longest_s / waiting + 1e-6, "the first asks at once"
    assert max(due) - held_s <= longest_s + 1e-6, "all of them have asked soon"


def test_nobody_waits_so_long_that_a_recovery_goes_unnoticed() -> None:
    lines = HostLines()
    lines.enter("a", 1)
    assert max(lines.ask_again_s("a", 0.0) for _ in range(10_000)) == LONGEST_S


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_places_are_never_exceeded_and_a_host_nobody_is_with_is_forgotten(
    visits: list[tuple[str, bool]],
) -> None:
    lines, inside = HostLines(), {"a": 0, "b": 0, "c": 0}
    for host, leaves in visits:
        if leaves and inside[host]:
            lines.leave(host)
            inside[host] -= 1
        else:
            entered = lines.enter(host, 2)
            assert entered == (inside[host] < 2)
            inside[host] += entered
        assert lines.inside(host) == inside[host]
    for host, count in inside.items():
        for _ in range(count):
            lines.leave(host)
    assert not lines._lines
