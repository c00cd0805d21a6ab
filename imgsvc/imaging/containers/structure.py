"""What a container says about itself, and bounds on reading it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

# Decoders take seconds for millions of empty parts, or of meaningless bytes between parts.
_MAX_PARTS = 100_000
MAX_FILL_BYTES = 65_536

P = ParamSpec("P")
T = TypeVar("T")
Piece = bytes | memoryview


class DamagedError(ValueError):
    """The container breaks the rules of its format, most often by ending too early."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a container says about itself.

    Args:
        frames: pictures it holds; 1 where only seeking in the decoder can tell (TIFF, AVIF).
        scans: passes over the picture (progressive JPEG), otherwise 1.
        lossless: decoding gives back exactly the pixels that were encoded.
        pinned: encoding again would do harm, because our decoder reads 8-bit sRGB only and the
            file holds more (16 bits per channel, a transfer curve, wide gamut or HDR).
        fine_chroma: an AVIF that stores colour at more than a quarter of its resolution.
        stripped: of a JPEG, the pieces of what ``strip`` returns: searching for its markers
            takes milliseconds, so it is done once.
    """

    frames: int = 1
    scans: int = 1
    lossless: bool = False
    pinned: bool = False
    fine_chroma: bool = False
    stripped: Sequence[Piece] = ()


def bounded(parts: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Make a reader of parts give up on a flood of them."""

    @wraps(parts)
    def read(*args: P.args, **options: P.kwargs) -> Iterator[T]:
        for count, part in enumerate(parts(*args, **options)):
            if count == _MAX_PARTS:
                raise DamagedError("there are more parts than any picture needs")
            yield part

    return read
