"""What the demo promises, each promise checked on what really came out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from imgsvc.demo.outcome import Outcome, Picture

_TOLD = ("requestId", "status", "totalImages", "failedImages", "bytesIn", "bytesOut")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One promise.

    Args:
        text: the promise.
        against: what speaks against it; nothing if it was kept.
    """

    text: str
    against: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether it was kept."""
        return not self.against


def judged(outcome: Outcome) -> list[Expectation]:
    """All expectations, in the order in which a reader would ask."""
    return [Expectation(text, tuple(against(outcome))) for text, against in _CHECKS.items()]


def _not_completed(outcome: Outcome) -> Iterator[str]:
    good = (picture for picture in outcome.pictures if picture.sample.error is None)
    return _all_but(good, lambda p: p.image["status"] == "COMPLETED")


def _wrong_errors(outcome: Outcome) -> Iterator[str]:
    for picture in outcome.pictures:
        expected = picture.sample.error.name if picture.sample.error else None
        if picture.error != expected:
            yield f"{picture.sample.name}: {picture.error}"


def _wrong_sizes(outcome: Outcome) -> Iterator[str]:
    stored = (picture for picture in outcome.pictures if picture.image["outputUrl"])
    return _all_but(
        stored,
        lambda p: (p.image["bytesIn"], p.image["bytesOut"]) == (p.bytes_before, p.bytes_after),
    )


def _larger(outcome: Outcome) -> Iterator[str]:
    return _all_but(outcome.made, lambda p: p.bytes_after <= p.bytes_before)


def _of_other_size(outcome: Outcome) -> Iterator[str]:
    return _all_but(
        outcome.made,
        lambda p: (
            p.before.shown.size == p.after.shown.size == (p.image["width"], p.image["height"])
        ),
    )


def _looking_different(outcome: Outcome) -> Iterator[str]:
    return _all_but(outcome.made, lambda p: p.after.resembles(p.before))


def _less_transparent(outcome: Outcome) -> Iterator[str]:
    return _all_but(outcome.made, lambda p: p.after.as_transparent_as(p.before))


def _moving_otherwise(outcome: Outcome) -> Iterator[str]:
    return _all_but(outcome.made, lambda p: p.after.durations_ms == p.before.durations_ms)


def _telling_more(outcome: Outcome) -> Iterator[str]:
    return _all_but(outcome.made, lambda p: not p.after.metadata)


def _wrong_status(outcome: Outcome) -> Iterator[str]:
    if outcome.status["status"] != "PARTIAL":
        yield outcome.status["status"]


def _wrong_deliveries(outcome: Outcome) -> Iterator[str]:
    if len(outcome.deliveries) != 1:
        yield f"it came {len(outcome.deliveries)} times"
    if not all(delivery.verified for delivery in outcome.deliveries):
        yield "the signature is wrong"


def _wrong_news(outcome: Outcome) -> Iterator[str]:
    for delivery in outcome.deliveries:
        announced = delivery.content["data"] if delivery.verified else {}
        for name in _TOLD:
            if announced.get(name) != outcome.status[name]:
                yield f"{name} is {announced.get(name)}"


def _misplaced(outcome: Outcome) -> Iterator[str]:
    rows = list(csv.DictReader(io.StringIO(outcome.report, newline="")))
    if len(rows) != len(outcome.products):
        yield f"{len(rows)} lines for {len(outcome.products)} products"
    for (product, pictures), row in zip(outcome.products, rows, strict=False):
        images = [picture.image for picture in pictures]
        sources = ", ".join(image["inputUrl"] for image in images)
        results = ", ".join(image["outputUrl"] or "" for image in images)
        serial, _, *urls = row.values()
        if [serial, *urls] != [str(product.serial_number), sources, results]:
            yield str(product.serial_number)


def _formulas(outcome: Outcome) -> Iterator[str]:
    for row in csv.reader(io.StringIO(outcome.report, newline="")):
        yield from (cell for cell in row if cell.startswith(_FORMULA))


def _wrong_log(outcome: Outcome) -> Iterator[str]:
    if outcome.exit_code != 0:
        yield f"exit code {outcome.exit_code}"
    for line in outcome.service_log.splitlines():
        try:
            level = json.loads(line)["level"]
        except (ValueError, TypeError, KeyError):
            level = None
        if level not in {"debug", "info", "warning"}:
            yield line


def _all_but(pictures: Iterable[Picture], holds: Callable[[Picture], bool]) -> Iterator[str]:
    """The names of the pictures for which something does not hold."""
    for picture in pictures:
        try:
            held = holds(picture)
        except OSError:  # Pillow's way to say that a file cannot be read
            held = False
        if not held:
            yield picture.sample.name


_CHECKS: dict[str, Callable[[Outcome], Iterator[str]]] = {
    "every good image is COMPLETED": _not_completed,
    "every bad one has its own error, and nobody else has one": _wrong_errors,
    "every result can be downloaded, with the size that was told": _wrong_sizes,
    "no result is larger than its source": _larger,
    "no result has more pixels than its source, or fewer": _of_other_size,
    "every result looks like its source: upright, in its colours": _looking_different,
    "what is transparent stays exactly as transparent": _less_transparent,
    "what moves keeps its frames and their times": _moving_otherwise,
    "no result holds EXIF, a GPS position, XMP or comments": _telling_more,
    "the request ends as PARTIAL": _wrong_status,
    "the webhook came exactly once, with the right signature": _wrong_deliveries,
    "the webhook tells what /status tells": _wrong_news,
    "the CSV has every result in the place of its source": _misplaced,
    "no cell of the CSV would run as a formula": _formulas,
    "the service logged JSON and no error, and stopped when told": _wrong_log,
}
