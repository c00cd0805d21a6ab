"""A bounded memory: what is known of the requests that were seen last."""

from __future__ import annotations

from typing import Generic, TypeVar

_MOST = 10_000

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by request; of too many, the oldest is forgotten."""

    def __init__(self) -> None:
        self._values: dict[str, T] = {}

    def get(self, request_id: str) -> T | None:
        """What is known of a request, if anything."""
        return self._values.get(request_id)

    def put(self, request_id: str, value: T) -> None:
        """Remember this of a request, instead of what was known before."""
        self._values.pop(request_id, None)
        self._values[request_id] = value
        if len(self._values) > _MOST:
            self._values.pop(next(iter(self._values)))

    def forget(self, request_id: str) -> None:
        """Know nothing of a request any more."""
        self._values.pop(request_id, None)
