"""What came of a run: all that is shown, and all that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from imgsvc.demo.look import Look
from imgsvc.demo.receiver import Delivery
from imgsvc.demo.samples import Product, Sample


class Picture:
    """One sample, and what the service made of it.

    Args:
        sample: as the origin has it.
        image: what the service says of it, as in ``/api/requests/{id}/images``.
        result: the bytes at its ``outputUrl``; None if there are none.
    """

    def __init__(self, sample: Sample, image: dict[str, Any], result: bytes | None) -> None:
        self.sample = sample
        self.image = image
        self.result = result

    @property
    def bytes_before(self) -> int:
        """Size of the source, as the origin knows it."""
        return len(self.sample.data or b"")

    @property
    def bytes_after(self) -> int:
        """Size of the result, as it was downloaded."""
        return len(self.result or b"")

    @property
    def error(self) -> str | None:
        """The error code that the service gave."""
        return self.image["error"]["code"] if self.image["error"] else None

    @cached_property
    def before(self) -> Look:
        """The source, looked at."""
        return Look(self.sample.data or b"")

    @cached_property
    def after(self) -> Look:
        """The result, looked at."""
        return Look(self.result or b"")


@dataclass(frozen=True)
class Outcome:
    """One run of the demo.

    Args:
        products: what was posted, each product with its pictures in the order posted.
        status: the last status object.
        report: the CSV.
        deliveries: the webhooks that came until the service had stopped.
        service_log: the service's output.
        exit_code: the service's.
        work_s: from posting to the webhook.
        cpu_s: CPU that the service used in all its processes; None where it cannot be measured.
        peak_rss_bytes: likewise its memory.
    """

    products: list[tuple[Product, list[Picture]]]
    status: dict[str, Any]
    report: str
    deliveries: list[Delivery]
    service_log: str
    exit_code: int | None
    work_s: float
    cpu_s: float | None
    peak_rss_bytes: int | None

    @property
    def pictures(self) -> list[Picture]:
        """All of them, in the order posted."""
        return [picture for _, pictures in self.products for picture in pictures]

    @property
    def made(self) -> list[Picture]:
        """Those of which there is a result."""
        return [picture for picture in self.pictures if picture.result is not None]

    @property
    def refused(self) -> list[Picture]:
        """Those that have an error."""
        return [picture for picture in self.pictures if picture.error]
