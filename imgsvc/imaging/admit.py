"""What one image may cost. An image that would cost more is refused before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.containers.structure import Survey

# Peak memory of a whole process for an image of noise, as measured with Pillow 13.
_PEAK_BYTES_PER_PIXEL = {
    "jpeg": 9,
    "png": 8,
    "gif": 8,
    "bmp": 8,
    "tiff": 8,
    "webp": 44,
    "avif": 30,
}
_FURTHER_FRAME_BYTES_PER_PIXEL = 4  # for each frame after the first: all are kept decoded


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost.

    Args:
        max_pixels: width times height of one frame.
        max_frames: frames of an animation, pages of a TIFF.
        max_total_pixels: width times height times frames; decoding holds 4 bytes for each.
        max_jpeg_scans: passes of a progressive JPEG (a camera makes about 10).
        memory_bytes: estimated memory of decoding and encoding; None for no bound.
    """

    max_pixels: int = 50_000_000
    max_frames: int = 200
    max_total_pixels: int = 200_000_000
    max_jpeg_scans: int = 100
    memory_bytes: int | None = None


class NeedsMemoryError(Exception):
    """The image would take more memory than it was given; nothing was decoded."""

    def __init__(self, needed_bytes: int) -> None:
        self.needed_bytes = needed_bytes
        super().__init__(f"needs {needed_bytes} bytes")


def admit_survey(survey: Survey, limits: Limits) -> None:
    """Refuse a container that declares too many frames or scans."""
    if survey.frames > limits.max_frames:
        raise too_many_frames(limits)
    if survey.scans > limits.max_jpeg_scans:
        raise ServiceError(
            ErrorCode.TOO_MANY_PIXELS,
            f"The JPEG repeats its picture in more than {limits.max_jpeg_scans} scans.",
        )


def admit_size(size: tuple[int, int], frames: int, limits: Limits) -> None:
    """Refuse a size before anything is allocated for it."""
    pixels = size[0] * size[1]
    if pixels > limits.max_pixels:
        raise too_many_pixels(limits)
    if pixels * frames > limits.max_total_pixels:
        raise ServiceError(
            ErrorCode.TOO_MANY_PIXELS,
            f"All frames together have more than {limits.max_total_pixels:,} pixels.",
        )


def admit_memory(kind: str, size: tuple[int, int], frames: int, limits: Limits) -> None:
    """Refuse an image whose estimate is above the memory it was given."""
    further = _FURTHER_FRAME_BYTES_PER_PIXEL * (frames - 1)
    needed = size[0] * size[1] * (_PEAK_BYTES_PER_PIXEL[kind] + further)
    if limits.memory_bytes is not None and needed > limits.memory_bytes:
        raise NeedsMemoryError(needed)


def too_many_pixels(limits: Limits) -> ServiceError:
    """The error for one frame above ``max_pixels``."""
    return ServiceError(
        ErrorCode.TOO_MANY_PIXELS, f"The image has more than {limits.max_pixels:,} pixels."
    )


def too_many_frames(limits: Limits) -> ServiceError:
    """The error for more than ``max_frames`` frames."""
    return ServiceError(
        ErrorCode.TOO_MANY_FRAMES, f"The image has more than {limits.max_frames:,} frames."
    )
