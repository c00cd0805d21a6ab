"""The quality of lossy formats: the defaults, and the quality at which a JPEG was saved."""

from __future__ import annotations

DEFAULT_QUALITY = {"jpeg": 75, "webp": 75, "avif": 60}
_STANDARD_LUMINANCE_SUM = 3_688  # of table K.1 in ITU-T T.81


def jpeg_quality(tables: dict[int, list[int]]) -> int:
    """The quality at which libjpeg makes such quantisation tables; 100 if there are none.

    Source: jpeg_quality_scaling in libjpeg's jcparam.c.
    """
    if not tables:
        return 100
    scale = 100 * sum(tables[min(tables)]) / _STANDARD_LUMINANCE_SUM
    return round(5000 / scale if scale > 100 else (200 - scale) / 2)  # noqa: PLR2004
