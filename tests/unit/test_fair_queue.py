"""Whose turn it is in the dealer's fair queue."""

from __future__ import annotations

from collections import Counter

from imgsvc.actors.fair_queue import FairQueue, RequestQueue
from imgsvc.domain.messages import ImageJob


def request(request_id: str, quota_tenant: str, images: int) -> RequestQueue:
    queue = RequestQueue(request_id, "call", quota_tenant)
    queue.jobs.extend(ImageJob(request_id=request_id, product=n, index=0) for n in range(images))
    return queue


def fair_queue(*requests: RequestQueue) -> FairQueue:
    queue = FairQueue()
    for each in requests:
        queue.add(each)
    return queue


def deal(queue: FairQueue, most: int, room: int | None = None) -> str:
    """One deal; the requests that were served, in order."""
    taken = queue.take({each for each in queue if each.jobs}, most)
    count = len(taken) if room is None else min(room, len(taken))
    queue.commit(taken, count)
    return "".join(each.request_id for each, _ in taken[:count])


def test_tenants_have_turns_and_their_requests_share_them() -> None:
    queue = fair_queue(
        request("a", "A", 9), request("b", "A", 9), request("c", "B", 3), request("d", "C", 1)
    )
    assert deal(queue, 12) == "acdbcacbabab"


def test_turns_go_on_where_the_room_ended() -> None:
    queue = fair_queue(request("a", "A", 9), request("b", "A", 9), request("c", "B", 9))
    assert [deal(queue, 4, room=1) for _ in range(6)] == ["a", "c", "b", "c", "a", "c"]


def test_what_found_no_room_is_dealt_next_and_nothing_twice() -> None:
    queue = fair_queue(request("a", "A", 5), request("c", "B", 2))
    seen: list[tuple[str, int]] = []
    while any(each.jobs for each in queue):
        taken = queue.take({each for each in queue if each.jobs}, 4)
        seen += [(job.request_id, job.product) for _, job in taken[:3]]
        queue.commit(taken, 3)
    assert sorted(seen) == [("a", n) for n in range(5)] + [("c", n) for n in range(2)]
    assert [n for request_id, n in seen if request_id == "a"] == list(range(5))


def test_who_comes_again_and_again_is_not_before_those_who_wait() -> None:
    queue = fair_queue(request("w", "W", 20))
    got: Counter[str] = Counter()
    for _ in range(20):
        quick = request("q", "Q", 1)
        queue.add(quick)
        got.update(deal(queue, 2, room=1))
        queue.remove(quick)
    assert got["w"] >= 10


def test_requests_that_are_not_ready_are_passed_over() -> None:
    waits = request("a", "A", 3)
    queue = fair_queue(waits, request("b", "A", 2), request("c", "B", 0))
    taken = queue.take({each for each in queue if each.jobs and each is not waits}, 9)
    assert [each.request_id for each, _ in taken] == ["b", "b"]
