"""Reservations are seen by whoever counts meanwhile."""

from __future__ import annotations

from imgsvc.http.limits.reservations import Reservations


def test_a_reservation_that_comes_and_goes_while_somebody_counts_is_seen() -> None:
    reservations = Reservations()
    with reservations.observe() as seen:
        with reservations.hold("upload", "tenant", 2):
            pass
        with reservations.hold("other", "somebody", 3):
            pass
    assert seen.besides("mine", "tenant") == (5, 2)
    with reservations.observe() as later:
        pass
    assert later.besides("mine", "tenant") == (0, 0), "those calls are answered, and counted"


def test_what_was_reserved_before_is_seen_and_what_is_posted_twice_needs_no_room() -> None:
    reservations = Reservations()
    with reservations.hold("upload", "tenant", 2), reservations.observe() as seen:
        pass
    with reservations.hold("upload", "tenant", 2):
        pass
    assert seen.besides("mine", "tenant") == (2, 2)
    assert seen.besides("upload", "tenant") == (0, 0)
