"""Identify the image format of a file by its first bytes, never by its name.

Formats are named as the service names them: ``jpeg png gif webp tiff bmp avif``.

Sources: the signatures in each format's specification; ISO/IEC 14496-12 §4.3 for brands.
"""

from __future__ import annotations

import re

from imgsvc.domain.errors import ErrorCode, ServiceError

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

_ACCEPTED: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("jpeg", re.compile(rb"\xff\xd8\xff")),
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("gif", re.compile(rb"GIF8[79]a")),
    ("webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("tiff", re.compile(rb"II[*+]\0|MM\0[*+]")),
)
_REFUSED: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("SVG", re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:svg\b|[?!].{0,2000}?<svg\b)", re.DOTALL)),
    ("PSD", re.compile(rb"8BPS")),
    ("ICO", re.compile(rb"\0\0[\x01\x02]\0[^\0]")),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("JPEG XR", re.compile(rb"II\xbc\x01")),
    ("ICNS", re.compile(rb"icns")),
    ("DDS", re.compile(rb"DDS ")),
    ("QOI", re.compile(rb"qoif")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("Radiance HDR", re.compile(rb"#\?RADIANCE")),
    ("PNM", re.compile(rb"P[1-7]\s+[#\d]")),
    ("EPS", re.compile(rb"%!PS|\xc5\xd0\xd3\xc6")),
)


def identify(data: bytes) -> str:
    """The format of a file that is accepted.

    Raises:
        ServiceError: UNSUPPORTED_FORMAT for an image of another format; NOT_AN_IMAGE.
    """
    if kind := sniff(data):
        return kind
    if name := _refused(data):
        raise ServiceError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name} is not accepted; send JPEG, PNG, GIF, WebP, TIFF, BMP or AVIF.",
        )
    raise ServiceError(ErrorCode.NOT_AN_IMAGE)


def sniff(data: bytes) -> str | None:
    """The accepted format that the first bytes announce, or None."""
    for name, magic in _ACCEPTED:
        if magic.match(data):
            return name
    # Plain text may begin with "BM" too: the size of the next header must be one that exists.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    return "avif" if _brands(data) & _AVIF_BRANDS else None


def _refused(data: bytes) -> str | None:
    """The name of a format that is known but not accepted, or None."""
    for name, magic in _REFUSED:
        if magic.match(data):
            return name
    return "HEIC" if _brands(data) & _HEIF_BRANDS else None


def _brands(data: bytes) -> frozenset[bytes]:
    """Major and compatible brands of an ISO base media file; empty for any other."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), 512)
    compatible = (data[at : at + 4] for at in range(16, end - 3, 4))
    return frozenset({data[8:12], *compatible})
