"""The decoded picture that later steps work on."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from imgsvc.imaging.colour import eight_bit
from imgsvc.imaging.containers.structure import Survey


@dataclass(frozen=True, slots=True)
class Picture:
    """Decoded frames: upright, in sRGB, without metadata."""

    kind: str
    survey: Survey
    frames: list[Image.Image]
    durations_ms: list[int]
    plays: int  # of the animation; 0 is for ever
    changed: bool  # from the original's pixels: turned upright or converted in colour
    jpeg_tables: dict[int, list[int]]  # quantisation tables; empty unless a JPEG
    jpeg_sampling: int  # as Pillow numbers it: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0

    @property
    def animated(self) -> bool:
        """Whether frames follow each other in time; the pages of a TIFF do not."""
        return len(self.frames) > 1 and self.kind != "tiff"

    @property
    def transparent(self) -> bool:
        """Whether any pixel is transparent: an alpha channel may be opaque everywhere."""
        return any(
            frame.has_transparency_data
            and eight_bit(frame).convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]  # noqa: PLR2004
            for frame in self.frames
        )
