"""What the demo promises, each promise checked on what really came out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PIL import ImageChops

from imgsvc.demo.outcome import Outcome, Picture

_SAID_ALIKE = (
    "requestId status processedImages failedImages totalImages bytesIn bytesOut".split()
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One promise.

    Args:
        text: the promise.
        broken: what speaks against it; nothing if it was kept.
    """

    text: str
    broken: list[str]

    @property
    def held(self) -> bool:
        """Whether it was kept."""
        return not self.broken


def judged(outcome: Outcome) -> list[Expectation]:
    """All expectations, in the order in which a reader would ask."""
    good = [picture for picture in outcome.pictures if picture.good]
    bad = [picture for picture in outcome.pictures if not picture.good]
    made = outcome.made
    clear = [picture for picture in made if picture.before.transparent]
    moving = [picture for picture in made if len(picture.before.durations_ms) > 1]

    def each(text: str, pictures: Iterable[Picture], holds: Callable[[Picture], bool]) -> None:
        found.append(Expectation(text, [p.sample.name for p in pictures if not holds(p)]))

    found: list[Expectation] = []
    each(f"all {len(good)} good images are COMPLETED", good, _is_completed)
    each("each outputUrl gives the bytes that the report counts", good, _is_downloadable)
    each("no result is larger than its source", made, lambda p: p.bytes_after <= p.bytes_before)
    each("every result has its source's pixels, no more and no fewer", made, _has_its_size)
    each("every result looks like its source, the same way up", made, lambda p: p.after.resembles(p.before))
    each("no result tells where or with what it was taken (EXIF, GPS, XMP)", made, lambda p: not p.after.metadata)
    each("what is transparent stays so, to the last pixel", clear, _keeps_alpha)
    each("what moves keeps its frames and their time", moving, lambda p: p.after.durations_ms == p.before.durations_ms)
    each("each bad one has its own error and harms no other", bad, _has_its_error)
