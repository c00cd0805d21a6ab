"""What a request saved, where its images came from and how long they took.

The numbers of each image are kept in arrays, so that percentiles are exact. That takes a few dozen
bytes an image: 100,000 images of as many origins take about 30 MB while they are summed up.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, get_args

from yarl import URL

from imgsvc.domain.messages import Stage
from imgsvc.domain.model import ImageStatus

_ORIGINS = 10  # the slowest that are shown


class Savings:
    """Sums images up, any number at a time."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._formats: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._bytes_in = array("Q")
        self._bytes_out = array("Q")
        self._shares = array("d")
        self._stages: dict[str, array[int]] = {stage: array("Q") for stage in get_args(Stage)}
        self._origins: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._failed_at: Counter[str] = Counter()

    def add(self, images: Iterable[Mapping[str, Any]]) -> None:
        """Add images, as the ledger has them."""
        for image in images:
            status = image["status"]
            self._statuses[status] += 1
            if status == ImageStatus.COMPLETED:
                self._add_completed(image["format"], image["bytesIn"], image["bytesOut"])
            elif status == ImageStatus.FAILED:
                self._errors[image["error"]["code"]] += 1
            else:
                continue
            times = image.get("ms", {})
            for stage, ms in times.items():
                self._stages[stage].append(ms)
            if "fetch" in times:
                origin = URL(image["url"]).host_port_subcomponent or ""
                self._origins[origin].append(times["fetch"])
                self._failed_at[origin] += status == ImageStatus.FAILED

    def _add_completed(self, format_: str, bytes_in: int, bytes_out: int) -> None:
        self._formats[format_].update(images=1, bytesIn=bytes_in, bytesOut=bytes_out)
        self._bytes_in.append(bytes_in)
        self._bytes_out.append(bytes_out)
        self._shares.append(_share(bytes_in, bytes_out) or 0)

    def summary(self) -> dict[str, Any]:
        """The sums, as ``GET /api/requests/{id}/report`` shows them."""
        before, after = sum(self._bytes_in), sum(self._bytes_out)
        return {
            "images": {"total": self._statuses.total()}
            | {status.lower(): self._statuses[status] for status in ImageStatus},
            "bytesIn": before,
            "bytesOut": after,
            "savedShare": _share(before, after),
            "formats": sorted(
                (
                    {"format": kind, **found}
                    | {"savedShare": _share(found["bytesIn"], found["bytesOut"])}
                    for kind, found in self._formats.items()
                ),
                key=itemgetter("bytesIn"),
                reverse=True,
            ),
            "perImage": {
                "bytesIn": _percentiles(self._bytes_in, 50, 90, 99),
                "bytesOut": _percentiles(self._bytes_out, 50, 90, 99),
                "savedShare": _percentiles(self._shares, 50, 90, 99),
            },
            "errors": [{"code": c, "images": count} for c, count in self._errors.most_common()],
            "slowestOrigins": self._slowest(),
            "stagesMs": {
                stage: _percentiles(values, 50, 95) for stage, values in self._stages.items()
            },
        }

    def _slowest(self) -> list[dict[str, Any]]:
        medians = (
            (_nearest_rank(sorted(times), 50), origin) for origin, times in self._origins.items()
        )
        return [
            {
                "origin": origin,
                "images": len(self._origins[origin]),
                "failed": self._failed_at[origin],
                "medianMs": median,
                "maxMs": max(self._origins[origin]),
            }
            for median, origin in heapq.nlargest(_ORIGINS, medians)
        ]


def _share(before: int, after: int) -> float | None:
    """How much smaller: from 0 to 1, below 0 if larger, None if there was nothing."""
    return round(1 - after / before, 4) if before else None


def _percentiles(values: Iterable[float], *percents: int) -> dict[str, float] | None:
    """The values at these percentiles; None if there are no values."""
    ordered = sorted(values)
    return {f"p{p}": _nearest_rank(ordered, p) for p in percents} if ordered else None


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
