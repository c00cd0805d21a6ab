"""Places and lines: one host's crowd is nobody else's, and each comes back about when it can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.host_lines import FIRST_GUESS_S, LONGEST_S, HostLines


def test_so_many_go_at_once_and_the_others_wait() -> None:
    lines = HostLines()
    assert [lines.enter("a", 2, 0.0) for _ in range(2)] == [0, 0]
    assert lines.enter("a", 2, 0.0) > 0
    assert lines.enter("b", 2, 0.0) == 0, "another host has places of its own"
    lines.leave("a", 1.0)
    assert lines.enter("a", 2, 1.0) == 0


def test_those_who_wait_are_spread_by_how_long_the_host_takes() -> None:
    lines = HostLines()
    for _ in range(2):
        lines.enter("a", 2, 0.0)
    first_guess = [lines.enter("a", 2, 0.0) for _ in range(3)]
    assert first_guess == pytest.approx([n * FIRST_GUESS_S / 2 for n in (1, 2, 3)])
    lines.leave("a", 15.0)  # it hangs
    lines.enter("a", 2, 15.0)
    assert [lines.enter("a", 2, 15.0) for _ in range(3)] == pytest.approx([7.5, 15.0, 22.5])


def test_a_host_that_has_never_answered_is_not_taken_for_quick() -> None:
    lines = HostLines()
    lines.enter("a", 1, 0.0)
    assert lines.enter("a", 1, 10.0) == 10.0


def test_nobody_waits_so_long_that_a_recovery_goes_unnoticed() -> None:
    lines = HostLines()
    lines.enter("a", 1, 0.0)
    assert max(lines.enter("a", 1, 0.0) for _ in range(10_000)) == LONGEST_S


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=60))
def test_places_are_never_exceeded_and_a_host_nobody_is_with_is_forgotten(
    visits: list[tuple[str, float]],
) -> None:
    lines, inside, now = HostLines(), {"a": 0, "b": 0, "c": 0}, 0.0
    for host, seconds in visits:
        now += seconds
        wait_s = lines.enter(host, 2, now)
        assert 0 <= wait_s <= LONGEST_S
        assert (wait_s == 0) == (inside[host] < 2)
        if wait_s:
            lines.leave(host, seconds)
            inside[host] -= 1
        else:
            inside[host] += 1
    for host, count in inside.items():
        for _ in range(count):
            lines.leave(host, 1.0)
    assert not lines._lines
