"""The dealer's fair queue: tenants take turns, and within a tenant its requests take turns.

So neither a large request nor many of them keep those of other tenants waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from imgsvc.domain.messages import ImageJob


class RequestQueue:
    """The jobs of one open request that wait to be dealt, and how far the request was read."""

    def __init__(self, request_id: str, call_id: str, quota_tenant: str, products: int = 0) -> None:
        self.request_id = request_id
        self.call_id = call_id
        self.quota_tenant = quota_tenant
        self.products = products  # how many it has
        self.jobs: deque[ImageJob] = deque()
        self.product = -1  # the last one read
        self.rest_until = 0.0  # all were dealt: when to go through the request again

    @property
    def has_more_pages(self) -> bool:
        """Whether its next page may hold more jobs."""
        return not self.jobs and not self.rest_until

    def restart(self) -> None:
        """Begin with its first product again."""
        self.jobs.clear()
        self.product, self.rest_until = -1, 0.0


class FairQueue:
    """The queues of all open requests, in the order in which they are served.

    What is new is added at the end; what was served moves there.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, RequestQueue]] = {}  # tenant -> request -> queue

    def __iter__(self) -> Iterator[RequestQueue]:
        return iter([queue for queues in self._tenants.values() for queue in queues.values()])

    def add(self, queue: RequestQueue) -> None:
        """Serve a request from now on."""
        self._tenants.setdefault(queue.quota_tenant, {})[queue.request_id] = queue

    def remove(self, queue: RequestQueue) -> None:
        """Serve a request no more."""
        queues = self._tenants[queue.quota_tenant]
        del queues[queue.request_id]
        if not queues:
            del self._tenants[queue.quota_tenant]

    def clear(self) -> None:
        """Serve no request any more."""
        self._tenants.clear()

    def take(
        self, ready: Collection[RequestQueue], most: int
    ) -> list[tuple[RequestQueue, ImageJob]]:
        """Take the next jobs in turn; ``commit`` has to follow.

        Args:
            ready: queues to take from; none of them is empty.
            most: how many jobs to take at most.
        """
        by_tenant = (
            deque(queue for queue in queues.values() if queue in ready)
            for queues in self._tenants.values()
        )
        tenants = deque(queues for queues in by_tenant if queues)
        taken: list[tuple[RequestQueue, ImageJob]] = []
        while tenants and len(taken) < most:
            queues = tenants.popleft()
            queue = queues.popleft()
            taken.append((queue, queue.jobs.popleft()))
            if queue.jobs:
                queues.append(queue)
            if queues:
                tenants.append(queues)
        return taken

    def commit(self, taken: Sequence[tuple[RequestQueue, ImageJob]], count: int) -> None:
        """Note that the first ``count`` of the jobs taken were dealt, and put the others back."""
        for queue, _ in taken[:count]:
            queues = self._tenants.pop(queue.quota_tenant)
            queues[queue.request_id] = queues.pop(queue.request_id)
            self._tenants[queue.quota_tenant] = queues
        for queue, job in reversed(taken[count:]):
            queue.jobs.appendleft(job)
