"""Backoff: waits that grow, end, and let others ask for more, within bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.domain.backoff import RETRY_AFTER_STRETCH, exponential, next_wait_s, parse_retry_after

NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)

schedules = st.lists(st.floats(0, 1e6), min_size=1, max_size=10)
parts = st.floats(0, 1, exclude_max=True)


def test_the_webhook_schedule() -> None:
    assert exponential(5, 1.0) == (1.0, 2.0, 4.0, 8.0)
    assert exponential(1, 1.0) == ()


def test_a_cap_bounds_every_wait() -> None:
    assert exponential(6, 1.0, factor=3.0, cap_s=10.0) == (1.0, 3.0, 9.0, 10.0, 10.0)


@given(st.integers(1, 2000), st.floats(0.001, 100), st.floats(1, 10), st.floats(100, 1e6))
def test_a_schedule_only_grows_up_to_its_cap(
    attempts: int, base_s: float, factor: float, cap_s: float
) -> None:
    waits = exponential(attempts, base_s, factor=factor, cap_s=cap_s)
    assert len(waits) == attempts - 1
    assert list(waits) == sorted(waits)
    assert all(base_s <= wait <= cap_s for wait in waits)


def test_each_failure_has_its_wait_and_the_last_has_none() -> None:
    schedule = (1.0, 2.0)
    assert [next_wait_s(schedule, attempt) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, None, None]


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        next_wait_s((1.0,), 0)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0, 2), (2, 2), (7, 7), (20, 20), (1e9, 20)])
def test_retry_after_is_heard_within_bounds(asked_s: float, wait_s: float) -> None:
    assert next_wait_s((2.0,), 1, retry_after_s=asked_s) == wait_s


def test_giving_up_is_not_put_off_by_retry_after() -> None:
    assert next_wait_s((2.0,), 2, retry_after_s=5) is None


@pytest.mark.parametrize(("rand", "wait_s"), [(0.0, 1.6), (0.5, 2.0), (0.75, 2.2)])
def test_jitter_moves_a_planned_wait_both_ways(rand: float, wait_s: float) -> None:
    assert next_wait_s((2.0,), 1, jitter=0.2, rand=rand) == pytest.approx(wait_s)


def test_jitter_only_lengthens_a_wait_that_was_asked_for_and_stays_in_its_bounds() -> None:
    assert next_wait_s((2.0,), 1, jitter=0.5, rand=0.5, retry_after_s=8) == 10.0
    assert next_wait_s((2.0,), 1, jitter=0.5, rand=0.0, retry_after_s=0) == 2.0
    assert next_wait_s((2.0,), 1, jitter=0.5, rand=0.9, retry_after_s=19) == 20.0


@given(schedules, st.integers(1, 12), parts, parts, st.none() | st.floats(0, 1e9))
def test_a_wait_is_never_shorter_than_asked_for_nor_endless(
    schedule: list[float], attempt: int, jitter: float, rand: float, asked_s: float | None
) -> None:
    wait_s = next_wait_s(schedule, attempt, jitter=jitter, rand=rand, retry_after_s=asked_s)
    if attempt > len(schedule):
        assert wait_s is None
    else:
        planned_s = schedule[attempt - 1]
        assert wait_s is not None
        if asked_s is None:
            assert planned_s * (1 - jitter) <= wait_s <= planned_s * (1 + jitter)
        else:
            most_s = RETRY_AFTER_STRETCH * planned_s
            assert max(planned_s, min(asked_s, most_s)) <= wait_s <= most_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 400, None),
        ("9" * 5000, None),
        ("Sun, 06 Nov 1994 08:50:37 +99999999", None),
        ("Sun, 99 Nov 1994 08:50:37 GMT", None),
    ],
)
def test_retry_after_in_all_its_forms(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.integers(-(10**8), 10**9))
def test_a_date_gives_the_time_until_then(seconds: int) -> None:
    value = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(value, NOW) == max(0, seconds)


@given(
    st.text()
    | st.builds("{}, {} Nov {} {}:{}:{} {}".format, *[st.integers(-1, 10**12)] * 6, st.text())
)
def test_a_strangers_header_never_raises_and_never_asks_for_less_than_nothing(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds < float("inf")
