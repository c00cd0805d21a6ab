"""Hostile files, made here: bombs, floods, lies, cut-off and double-faced files of each format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import cache
from io import BytesIO

from PIL import Image

from tests.photos import photo

WIDTH, HEIGHT = 120, 80


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    """The file that Pillow writes."""
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def small() -> Image.Image:
    """A photograph of 120 x 80 pixels."""
    image = Image.open(BytesIO(photo("coffee.png"))).resize((WIDTH, HEIGHT))
    image.info = {}
    return image


def whole() -> dict[str, bytes]:
    """The photograph in each format: nothing is wrong with these."""
    image, turned = small(), small().rotate(180)
    moving = {"save_all": True, "append_images": [turned], "duration": 100}
    return {
        "jpeg": saved(image, "JPEG"),
        "progressive jpeg": saved(image, "JPEG", progressive=True),
        "png": saved(image, "PNG"),
        "apng": saved(image, "PNG", **moving),
        "gif": saved(image, "GIF"),
        "animated gif": saved(image, "GIF", **moving),
        "webp": saved(image, "WEBP"),
        "lossless webp": saved(image, "WEBP", lossless=True),
        "animated webp": saved(image, "WEBP", **moving),
        "tiff": saved(image, "TIFF"),
        "deflated tiff": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "bmp": saved(image, "BMP"),
        "avif": saved(image, "AVIF"),
        "animated avif": saved(image, "AVIF", **moving),
    }


WHOLE = whole()

NOT_IMAGES = {
    "nothing": b"",
    "a line": b"\n",
    "a text": b"This is a text that somebody called photo.jpg.",
    "a text that begins like a BMP": b"BMW sells cars, and this is no bitmap",
    "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
    "JSON": b'{"error": "not found"}',
    "PDF": b"%PDF-1.7",
    "ZIP": b"PK\3\4",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "ELF": b"\x7fELF\2\1\1",
    "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt ",
    "zeros": bytes(1000),
    "a PDF before a JPEG": b"%PDF-1.7\n" + WHOLE["jpeg"],
}

UNSUPPORTED = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "SVG with a head": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by hand -->\n<svg/>',
    "SVG of entities": b'<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>',
    "PSD": b"8BPS\0\1" + bytes(100),
    "ICO": b"\0\0\1\0\1\0\x10\x10" + bytes(100),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "HEIF": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "JPEG 2000 codestream": b"\xff\x4f\xff\x51" + bytes(100),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "JPEG XL codestream": b"\xff\x0a" + bytes(100),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0",
    "PNM": b"P6\n2 2\n255\n" + bytes(12),
}


def truncated(names: Iterable[str] = WHOLE) -> dict[str, bytes]:
    """Each whole file cut off at each tenth, and two bytes before its end."""
    files = {}
    for name in names:
        data = WHOLE[name]
        files |= {f"{name}, {t}0 %": data[: len(data) * t // 10] for t in range(1, 10)}
        files[f"{name}, all but two bytes"] = data[:-2]
    return files


# --- Each format by its bytes -----------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """An RGB PNG of these chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")]
    )


def with_chunk(kind: bytes, body: bytes, times: int = 1) -> bytes:
    """The PNG with more chunks after its header."""
    return WHOLE["png"][:33] + png_chunk(kind, body) * times + WHOLE["png"][33:]


def with_segments(segments: bytes) -> bytes:
    """The JPEG with more bytes after its start marker."""
    return WHOLE["jpeg"][:2] + segments + WHOLE["jpeg"][2:]


def jpeg_of(width: int, height: int) -> bytes:
    """The JPEG that says it is larger."""
    return _overwritten("jpeg", WHOLE["jpeg"].index(b"\xff\xc0") + 5, ">HH", height, width)


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def moving_webp(*chunks: bytes) -> bytes:
    """An animated WebP of these chunks."""
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    head = riff_chunk(b"VP8X", bytes([2, 0, 0, 0]) + size) + riff_chunk(b"ANIM", bytes(6))
    body = b"WEBP" + head + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frame(inner: bytes) -> bytes:
    """A frame of an animated WebP that holds these chunks."""
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    return riff_chunk(b"ANMF", bytes(6) + size + bytes([10, 0, 0, 0]) + inner)


STILL_WEBP = WHOLE["lossless webp"][12:]


def tiff(
    *more: tuple[int, int, int, int], side: int = 10, pages: int = 1, compressed: bytes = b""
) -> bytes:
    """A grey TIFF of these further tags (number, type, count, value)."""
    offset = 8
    out = [b"II*\0" + struct.pack("<I", offset)]
    for page in range(pages):
        tags = {
            256: (4, 1, side),
            257: (4, 1, side),
            258: (3, 1, 8),
            259: (3, 1, 8 if compressed else 1),
            262: (3, 1, 1),
            273: (4, 1, 8),
            277: (3, 1, 1),
            278: (4, 1, side),
            279: (4, 1, len(compressed) or side * side),
        }
        tags |= {number: rest for number, *rest in more}  # type: ignore[misc]
        size = 6 + 12 * len(tags)
        if compressed:
            tags[273] = (4, 1, offset + size)
        offset += size
        entries = (struct.pack("<HHII", number, *tags[number]) for number in sorted(tags))
        last = page == pages - 1
        out.append(
            struct.pack("<H", len(tags))
            + b"".join(entries)
            + struct.pack("<I", offset * (not last))
        )
    return b"".join(out) + (compressed or bytes(side * side))


def _overwritten(name: str, at: int, layout: str, *values: int) -> bytes:
    data = bytearray(WHOLE[name])
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


# --- Too many pixels --------------------------------------------------------------------------


@cache
def huge() -> dict[str, bytes]:
    """A few hundred bytes or kilobytes each, which ask for gigabytes; two of them truthfully."""
    gif = WHOLE["animated gif"]
    second = gif.rindex(struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    return {
        "png": png(40_000, 40_000, png_chunk(b"IDAT", zlib.compress(bytes(2_000_000)))),
        "real png": saved(Image.new("1", (13_000, 13_000)), "PNG"),
        "largest png": png(0x7FFF_FFFF, 0x7FFF_FFFF, png_chunk(b"IDAT", b"")),
        "gif": _overwritten("gif", 6, "<HH", 60_000, 60_000),
        "gif frame": gif[: second + 4] + struct.pack("<HH", 60_000, 60_000) + gif[second + 8 :],
        "webp": _overwritten("animated webp", 24, "<HBHB", 16_382, 0, 16_382, 0),
        "jpeg": jpeg_of(60_000, 60_000),
        "bmp": _overwritten("bmp", 18, "<II", 60_000, 60_000),
        "bmp of least height": _overwritten("bmp", 18, "<ii", WIDTH, -(2**31)),
        "real tiff": saved(Image.new("1", (9_000, 9_000)), "TIFF", compression="group4"),
        "tiff": tiff((256, 4, 1, 0xFFFF_FFFF), (257, 4, 1, 0xFFFF_FFFF)),
        "avif": WHOLE["avif"].replace(
            struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", 16_000, 16_000), 1
        ),
    }


@cache
def frame_flood() -> dict[str, bytes]:
    """Thousands of frames or pages."""
    gif = saved(Image.new("L", (4, 4)), "GIF")
    start = gif.index(b"," + struct.pack("<HHHH", 0, 0, 4, 4))
    dots = [Image.new("L", (1, 1), shade % 256) for shade in range(2_000)]
    webp = saved(dots[0].convert("RGB"), "WEBP", save_all=True, append_images=dots[1:], duration=9)
    tiny = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in range(201)]
    return {
        "gif": gif[:start] + gif[start:-1] * 5_000 + b";",
        "tiff": tiff(pages=50_000),
        "webp": webp,
        "apng": saved(dots[0], "PNG", save_all=True, append_images=dots[1:], duration=9),
        "avif": saved(tiny[0], "AVIF", save_all=True, append_images=tiny[1:], duration=9, speed=10),
    }


@cache
def flood_of_large_frames() -> bytes:
    """A GIF of 150 frames with 4 megapixels each."""
    gif = saved(Image.new("P", (2_000, 2_000)), "GIF")
    start = gif.index(b"," + struct.pack("<HHHH", 0, 0, 2_000, 2_000))
    return gif[:start] + gif[start:-1] * 150 + b";"


@cache
def scan_flood() -> bytes:
    """A progressive JPEG whose last scan comes 2,000 times."""
    data = saved(small(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 2_000 + data[-2:]


# --- Too many of anything else ----------------------------------------------------------------


@cache
def part_flood() -> dict[str, bytes]:
    """Millions of chunks, segments or blocks that hold nothing, or of bytes between them."""
    gif = WHOLE["gif"][:-1]
    return {
        "png chunks": with_chunk(b"teSt", b"", 500_000),
        "empty png data": png(
            100,
            100,
            png_chunk(b"IDAT", b"") * 500_000,
            png_chunk(b"IDAT", zlib.compress(bytes(30_100))),
        ),
        "jpeg comments": with_segments(b"\xff\xfe\0\2" * 1_000_000),
        "jpeg exif": with_segments(b"\xff\xe1\0\x08Exif\0\0" * 200_000),
        "jpeg fill": with_segments(b"\xff" * 5_000_000),
        "jpeg start markers": with_segments(b"\xff\xd8" * 2_000_000),
        "gif comments": gif + b"!\xfe\1a\0" * 1_000_000 + b";",
        "gif terminators": gif + bytes(5_000_000) + b";",
        "webp chunks": moving_webp(webp_frame(STILL_WEBP) * 2, riff_chunk(b"junk", b"") * 500_000),
        "avif boxes": WHOLE["avif"] + b"\0\0\0\x08free" * 500_000,
    }


def nested_webp(levels: int = 1_500) -> bytes:
    """Frames within frames: copied at each level, they would take gigabytes."""
    nested = STILL_WEBP + riff_chunk(b"junk", bytes(1_000_000))
    for _ in range(levels):
        nested = webp_frame(nested)
    return moving_webp(webp_frame(STILL_WEBP), nested)


@cache
def inflating() -> dict[str, bytes]:
    """Metadata of less than 1 MB that inflates to 100 MB, and tags that claim the whole file many times."""
    zeros = zlib.compress(bytes(100_000_000), 1)
    return {
        "png text": with_chunk(b"zTXt", b"k\0\0" + zeros),
        "png international text": with_chunk(b"iTXt", b"k\0\1\0\0\0" + zeros),
        "png profile": with_chunk(b"iCCP", b"k\0\0" + zeros),
        "png texts": with_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)), 100),
        "tiff tags": tiff(*((40_000 + n, 7, 4_000_000, 8) for n in range(20_000)), side=2_000),
    }


# --- Lies -------------------------------------------------------------------------------------


@cache
def lies() -> dict[str, bytes]:
    """Sizes of nothing, of less than nothing, and of much more than there is."""
    magics = {
        "jpeg": b"\xff\xd8\xff",
        "png": b"\x89PNG\r\n\x1a\n",
        "gif": b"GIF89a",
        "tiff": b"II*\0",
    }
    return {
        **{f"{name} magic alone": magic for name, magic in magics.items()},
        **{f"{name} magic and noise": magic + b"\xff" * 500 for name, magic in magics.items()},
        "png of no width": png(0, 10, png_chunk(b"IDAT", zlib.compress(bytes(10)))),
        "png of 49 megapixels in 74 bytes": png(7_000, 7_000, png_chunk(b"IDAT", b"\x78\x9c")),
        "png chunk of 4 GB": WHOLE["png"][:33] + b"\xff\xff\xff\xffIDAT" + WHOLE["png"][41:],
        "jpeg of no height": jpeg_of(7_000, 0),
        "jpeg segment of no length": with_segments(b"\xff\xe1\0\0"),
        "webp of 4 GB": _overwritten("webp", 4, "<I", 0xFFFF_FFFE),
        "bmp of no size": _overwritten("bmp", 18, "<ii", 0, 0),
        "bmp of 49 megapixels in 29 kB": _overwritten("bmp", 18, "<ii", 7_000, 7_000),
        "bmp whose pixels lie outside": _overwritten("bmp", 10, "<I", 0xFFFF_FFFF),
        "tiff whose directory lies outside": b"II*\0\xff\xff\xff\x7f" + bytes(100),
        "tiff of 65,535 tags that are not there": b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
        "tiff whose strips lie outside": tiff((273, 4, 1, 0x7FFF_FFFF)),
        "tiff of three million strips": tiff((273, 4, 3_000_000, 8), (279, 4, 3_000_000, 8)),
        "avif whose pixels lie outside": WHOLE["avif"].replace(b"mdat", b"mdau"),
        "avif box of 4 GB": b"\xff\xff\xff\xff" + WHOLE["avif"][4:],
    }


# --- Two faces --------------------------------------------------------------------------------

SECRET_FACE = b"<script>alert(document.domain)</script>"
_ZIP = b"PK\3\4" + SECRET_FACE + b"PK\5\6" + bytes(18)


@cache
def polyglots() -> dict[str, bytes]:
    """Pictures that are something else too: whole, so accepted, but that face must go."""
    webp = WHOLE["webp"]
    return {
        "jpeg and zip": WHOLE["jpeg"] + _ZIP,
        "jpeg with a script as comment": with_segments(
            b"\xff\xfe" + struct.pack(">H", 2 + len(SECRET_FACE)) + SECRET_FACE
        ),
        "png and zip": WHOLE["png"] + _ZIP,
        "png with a script as text": with_chunk(b"tEXt", b"k\0" + SECRET_FACE),
        "gif and jar": WHOLE["gif"] + _ZIP,
        "gif with a script as comment": WHOLE["gif"][:-1]
        + b"!\xfe"
        + bytes([len(SECRET_FACE)])
        + SECRET_FACE
        + b"\0;",
        "webp and zip": webp + _ZIP,
        "webp with a script as EXIF": _with_riff_chunk(webp, riff_chunk(b"EXIF", SECRET_FACE)),
        "tiff and zip": WHOLE["tiff"] + _ZIP,
        "bmp and zip": WHOLE["bmp"] + _ZIP,
        "avif and zip": WHOLE["avif"] + _ZIP,
    }


def _with_riff_chunk(webp: bytes, chunk: bytes) -> bytes:
    body = webp[8:] + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body
