"""What ``/healthz`` and ``/readyz`` answer."""

from __future__ import annotations

from typing import Literal

from imgsvc.domain.model import Shape


class Health(Shape):
    """The process runs."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether this replica can do its work, and what it lacks if not."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
