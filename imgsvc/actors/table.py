"""The dealer's table: one tenant is served after another, and of each one request after another.

So neither a large request nor many of them keep somebody else's waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from imgsvc.domain.messages import ImageJob


class Hand:
    """How far one open request has been dealt."""

    def __init__(self, request_id: str, call_id: str, quota_tenant: str, products: int = 0) -> None:
        self.request_id = request_id
        self.call_id = call_id
        self.quota_tenant = quota_tenant
        self.products = products  # how many it has
        self.jobs: deque[ImageJob] = deque()
        self.product = -1  # the last one read
        self.rest_until = 0.0  # all dealt: when to go through it again

    @property
    def is_read_on(self) -> bool:
        """Whether there may be more jobs on its next page."""
        return not self.jobs and not self.rest_until

    def restart(self) -> None:
        """Begin with its first product again."""
        self.jobs.clear()
        self.product, self.rest_until = -1, 0.0


class Table:
    """All hands, in the order in which they are served; who comes sits down at the end."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, Hand]] = {}  # tenant -> request -> hand

    def __iter__(self) -> Iterator[Hand]:
        return iter([hand for hands in self._tenants.values() for hand in hands.values()])

    def seat(self, hand: Hand) -> None:
        """Have a request served from now on."""
        self._tenants.setdefault(hand.quota_tenant, {})[hand.request_id] = hand

    def leave(self, hand: Hand) -> None:
        """Have a request served no more."""
        hands = self._tenants[hand.quota_tenant]
        del hands[hand.request_id]
        if not hands:
            del self._tenants[hand.quota_tenant]

    def clear(self) -> None:
        """Have no request served any more."""
        self._tenants.clear()

    def draw(self, ready: Collection[Hand], most: int) -> list[tuple[Hand, ImageJob]]:
        """Take the next jobs out of the hands that are ready, in turn.

        Args:
            ready: hands with jobs.
            most: how many jobs.
        """
        lines = (deque(h for h in hands.values() if h in ready) for hands in self._tenants.values())
        tenants = deque(line for line in lines if line)
        drawn: list[tuple[Hand, ImageJob]] = []
        while tenants and len(drawn) < most:
            line = tenants.popleft()
            hand = line.popleft()
            drawn.append((hand, hand.jobs.popleft()))
            if hand.jobs:
                line.append(hand)
            if line:
                tenants.append(line)
        return drawn

    def served(self, drawn: Sequence[tuple[Hand, ImageJob]], count: int) -> None:
        """So many of what was drawn were dealt, the rest goes back; who was served is last now."""
        for hand, _ in drawn[:count]:
            hands = self._tenants.pop(hand.quota_tenant)
            hands[hand.request_id] = hands.pop(hand.request_id)
            self._tenants[hand.quota_tenant] = hands
        for hand, job in reversed(drawn[count:]):
            hand.jobs.appendleft(job)
