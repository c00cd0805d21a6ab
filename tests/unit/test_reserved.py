"""Promises of room are seen by whoever counts meanwhile."""

from __future__ import annotations

from imgsvc.http.limits.reserved import Reserved


def test_a_promise_that_comes_and_goes_while_somebody_counts_is_seen() -> None:
    reserved = Reserved()
    with reserved.watched() as promises:
        with reserved.hold("upload", "tenant", 2):
            pass
        with reserved.hold("other", "somebody", 3):
            pass
    assert promises.besides("mine", "tenant") == (5, 2)
    with reserved.watched() as later:
        pass
    assert later.besides("mine", "tenant") == (0, 0), "those calls are answered, and counted"


def test_what_was_promised_before_is_seen_and_what_is_posted_twice_needs_no_room() -> None:
    reserved = Reserved()
    with reserved.hold("upload", "tenant", 2), reserved.watched() as promises:
        pass
    with reserved.hold("upload", "tenant", 2):
        pass
    assert promises.besides("mine", "tenant") == (2, 2)
    assert promises.besides("upload", "tenant") == (0, 0)
