"""Whose turn it is at the dealer's table."""

from __future__ import annotations

from collections import Counter

from imgsvc.actors.table import Hand, Table
from imgsvc.domain.messages import ImageJob


def hand(request: str, quota_tenant: str, images: int) -> Hand:
    made = Hand(request, "call", quota_tenant)
    made.jobs.extend(ImageJob(request_id=request, product=n, index=0) for n in range(images))
    return made


def seated(*hands: Hand) -> Table:
    table = Table()
    for each in hands:
        table.seat(each)
    return table


def deal(table: Table, most: int, room: int | None = None) -> str:
    """One deal; the requests that got something, in order."""
    drawn = table.draw({each for each in table if each.jobs}, most)
    count = len(drawn) if room is None else min(room, len(drawn))
    table.served(drawn, count)
    return "".join(each.request_id for each, _ in drawn[:count])


def test_tenants_have_turns_and_their_requests_share_them() -> None:
    table = seated(hand("a", "A", 9), hand("b", "A", 9), hand("c", "B", 3), hand("d", "C", 1))
    assert deal(table, 12) == "acdbcacbabab"


def test_turns_go_on_where_the_room_ended() -> None:
    table = seated(hand("a", "A", 9), hand("b", "A", 9), hand("c", "B", 9))
    assert [deal(table, 4, room=1) for _ in range(6)] == ["a", "c", "b", "c", "a", "c"]


def test_what_found_no_room_is_dealt_next_and_nothing_twice() -> None:
    table = seated(hand("a", "A", 5), hand("c", "B", 2))
    seen: list[tuple[str, int]] = []
    while any(each.jobs for each in table):
        drawn = table.draw({each for each in table if each.jobs}, 4)
        seen += [(job.request_id, job.product) for _, job in drawn[:3]]
        table.served(drawn, 3)
    assert sorted(seen) == [("a", n) for n in range(5)] + [("c", n) for n in range(2)]
    assert [n for request, n in seen if request == "a"] == list(range(5))


def test_who_comes_again_and_again_is_not_before_those_who_wait() -> None:
    table = seated(hand("w", "W", 20))
    got: Counter[str] = Counter()
    for _ in range(20):
        quick = hand("q", "Q", 1)
        table.seat(quick)
        got.update(deal(table, 2, room=1))
        table.leave(quick)
    assert got["w"] >= 10


def test_hands_that_are_not_ready_are_passed_over() -> None:
    waits = hand("a", "A", 3)
    table = seated(waits, hand("b", "A", 2), hand("c", "B", 0))
    drawn = table.draw({each for each in table if each.jobs and each is not waits}, 9)
    assert [each.request_id for each, _ in drawn] == ["b", "b"]
