"""Which service is called, and what a call that fails says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

Json = dict[str, Any]

PASSING = frozenset({429, 502, 503, 504})
"""Answers that may be others soon; of them the middle two come from proxies."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class CallError(Exception):
    """A call that did not work out; its text is for the user.

    Args:
        text: what happened.
        status: that was answered, 0 if nothing was.
        code: of the refusal, empty if it has none.
        errors: each place that was wrong.
    """

    def __init__(
        self, text: str, *, status: int = 0, code: str = "", errors: Sequence[Json] = ()
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.errors = errors

    @property
    def passing(self) -> bool:
        """Whether the same call may work out later."""
        return not self.status or self.status in PASSING


@dataclass(frozen=True, slots=True)
class Server:
    """Which service, and who calls.

    Attributes:
        url: where its ``/api`` and ``/status`` are.
        key: API key, if it wants one.
        implied: whether commands take it if no other is named.
    """

    url: URL
    key: str | None = field(default=None, repr=False)
    implied: bool = False

    def at(self, *path: str) -> URL:
        """The address of a call.

        Raises:
            CallError: a part cannot be part of an address, as only a wrong id could.
        """
        for part in path:
            if not _ID.fullmatch(part):
                raise CallError(f"{part!r} is not the id of a request.")
        return self.url.joinpath(*path)
