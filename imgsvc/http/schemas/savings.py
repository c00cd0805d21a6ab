"""The savings report of a request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imgsvc.domain.model import RequestStatus, Shape


class ImageCounts(Shape):
    """Images by status."""

    total: int
    pending: int
    completed: int
    failed: int
    cancelled: int


class FormatSavings(Shape):
    """What was saved on the results of one format."""

    format: str
    images: int
    bytes_in: int
    bytes_out: int
    saved_share: float | None


class Percentiles(Shape):
    """So many percent of the images are at or below."""

    p50: float
    p90: float
    p99: float


class PerImage(Shape):
    """How the images that worked out are spread; null if there are none."""

    bytes_in: Percentiles | None
    bytes_out: Percentiles | None
    saved_share: Percentiles | None


class ErrorCount(Shape):
    """How many images failed with one code."""

    code: str
    images: int


class Origin(Shape):
    """How long a host took to send its images, the failed ones included."""

    origin: str
    images: int
    failed: int
    median_ms: int
    max_ms: int


class StageTimes(Shape):
    """Milliseconds that a stage worked on an image."""

    p50: int
    p95: int


class Stages(Shape):
    """The stages of the pipeline; null for one that no image has passed."""

    fetch: StageTimes | None
    compress: StageTimes | None
    upload: StageTimes | None


class SavingsReport(Shape):
    """What a request saved, where it came from, how long it took."""

    request_id: str
    status: RequestStatus
    partial: Annotated[bool, Field(description="Whether the request is not finished.")]
    images: ImageCounts
    bytes_in: int
    bytes_out: int
    saved_share: Annotated[float | None, Field(description="1 - bytesOut / bytesIn")]
    formats: list[FormatSavings]
    per_image: PerImage
    errors: list[ErrorCount]
    slowest_origins: Annotated[list[Origin], Field(description="Ten at most, by their median.")]
    stages_ms: Stages
