"""The per-host limit: one host's crowd is nobody else's, and asking again costs little."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.outbound.host_limits import APART_S, LONGEST_S, HostLimits


def test_so_many_go_at_once_and_the_others_do_not() -> None:
    limits = HostLimits()
    assert [limits.enter("a", 2) for _ in range(3)] == [True, True, False]
    assert limits.enter("b", 2), "another host has a limit of its own"
    limits.leave("a")
    assert limits.enter("a", 2)


def test_those_who_wait_ask_again_one_after_the_other() -> None:
    limits = HostLimits()
    limits.enter("a", 1)
    waits = [limits.ask_again_s("a", 7.0) for _ in range(3)]
    assert waits == pytest.approx([APART_S, 2 * APART_S, 3 * APART_S])


@pytest.mark.parametrize("held_s", [1.0, 12.0, 600.0])
@pytest.mark.parametrize("waiting", [5, 100])
def test_a_host_that_hung_is_asked_at_once_when_it_is_free(held_s: float, waiting: int) -> None:
    """However long it held us and however often it was asked meanwhile."""
    limits = HostLimits()
    for _ in range(8):
        limits.enter("a", 8)
    due = [limits.ask_again_s("a", 0.0) for _ in range(waiting)]
    heapq.heapify(due)
    asked = 0
    while due[0] < held_s:
        now = heapq.heappop(due)
        asked += 1
        heapq.heappush(due, now + limits.ask_again_s("a", now))
    assert asked <= held_s / APART_S + 1, "asking costs the same, however many do"
    longest_s = waiting * APART_S
    assert due[0] - held_s <= longest_s / waiting + 1e-6, "the first asks at once"
    assert max(due) - held_s <= longest_s + 1e-6, "all of them have asked soon"


def test_nobody_waits_so_long_that_a_recovery_goes_unnoticed() -> None:
    limits = HostLimits()
    limits.enter("a", 1)
    assert max(limits.ask_again_s("a", 0.0) for _ in range(10_000)) == LONGEST_S


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_limit_is_never_exceeded_and_a_host_nobody_is_with_is_forgotten(
    visits: list[tuple[str, bool]],
) -> None:
    limits, inside = HostLimits(), {"a": 0, "b": 0, "c": 0}
    for host, leaves in visits:
        if leaves and inside[host]:
            limits.leave(host)
            inside[host] -= 1
        else:
            entered = limits.enter(host, 2)
            assert entered == (inside[host] < 2)
            inside[host] += entered
        assert limits.inside(host) == inside[host]
    for host, count in inside.items():
        for _ in range(count):
            limits.leave(host)
    assert not limits._hosts
