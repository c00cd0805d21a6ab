"""Files that are damaged, enormous or something else altogether: refused, soon, and in words."""

import struct
import time
import zlib
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from imgsvc.codec import Limits, encode, prepare_process
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.model import Recipe
from tests.photos import photo

SOON_S = 1.0  # of CPU; the bombs below take from 4 s to minutes where they go off


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def small() -> Image.Image:
    image = Image.open(BytesIO(photo("coffee.png"))).resize((120, 80))
    image.info = {}
    return image


def whole() -> dict[str, bytes]:
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


def refusal(data: bytes, limits: Limits | None = None, recipe: Recipe | None = None) -> ErrorCode:
    """The code that a file is refused with; the refusal must come soon and read well."""
    started = time.process_time()
    with pytest.raises(ServiceError) as caught:
        encode(data, recipe or Recipe(), limits or Limits())
    assert time.process_time() - started < SOON_S
    detail = caught.value.detail
    assert detail.endswith(".")
    assert not any(trace in detail for trace in ("Traceback", "0x", "Error", "object at", "<"))
    return caught.value.code


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass(name: str) -> None:
    assert encode(WHOLE[name], Recipe(), Limits()).data


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_corrupt(name: str, tenth: int) -> None:
    data = WHOLE[name]
    assert refusal(data[: len(data) * tenth // 10]) is ErrorCode.IMAGE_CORRUPT


@pytest.mark.parametrize("name", WHOLE)
def test_the_last_bytes_count_too(name: str) -> None:
    assert refusal(WHOLE[name][:-2]) is ErrorCode.IMAGE_CORRUPT


@pytest.mark.parametrize("name", ["imagenet_00_243.jpg", "chelsea.png"])
def test_half_a_photograph_is_corrupt_under_every_recipe(name: str) -> None:
    for wanted in ("keep", "auto", "jpeg", "png", "webp", "avif"):
        half = photo(name)[: len(photo(name)) // 2]
        assert refusal(half, recipe=Recipe(format=wanted)) is ErrorCode.IMAGE_CORRUPT


NOT_IMAGES = [
    b"",
    b"\n",
    b"This is a text that somebody called photo.jpg.",
    b"BMW sells cars, and this is no bitmap",
    b"<!DOCTYPE html><html><body>404</body></html>",
    b'{"error": "not found"}',
    b"%PDF-1.7",
    b"PK\3\4",
    b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    b"RIFF\x24\0\0\0WAVEfmt ",
    bytes(1000),
]


@pytest.mark.parametrize("data", NOT_IMAGES)
def test_what_is_no_image_is_called_so(data: bytes) -> None:
    assert refusal(data) is ErrorCode.NOT_AN_IMAGE


UNSUPPORTED = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "SVG with a head": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by hand -->\n<svg/>',
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


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_kinds_of_image_are_refused_by_name(name: str) -> None:
    assert refusal(UNSUPPORTED[name]) is ErrorCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"])
def test_magic_alone_is_no_image(magic: bytes) -> None:
    for tail in (b"", b"\0", bytes(500), b"\xff" * 500):
        assert refusal(magic + tail) is ErrorCode.IMAGE_CORRUPT


# --- Bombs ------------------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge() -> dict[str, bytes]:
    """A few hundred bytes or kilobytes each, which ask for gigabytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(2_000_000))
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows)
    gif, webp = bytearray(WHOLE["gif"]), bytearray(WHOLE["animated webp"])
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    webp[24:30] = (16_382).to_bytes(3, "little") * 2
    jpeg = bytearray(WHOLE["jpeg"])
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 60_000, 60_000)
    bmp = bytearray(WHOLE["bmp"])
    bmp[18:26] = struct.pack("<II", 60_000, 60_000)
    return {
        "png": png + png_chunk(b"IEND", b""),
        "real png": saved(Image.new("1", (13_000, 13_000)), "PNG"),
        "gif": bytes(gif),
        "gif frame": grown_gif(),
        "webp": bytes(webp),
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
        "tiff": saved(Image.new("1", (9_000, 9_000)), "TIFF", compression="group4"),
    }


def grown_gif() -> bytes:
    """A small canvas whose second frame is said to be enormous."""
    gif = bytearray(WHOLE["animated gif"])
    second = gif.rindex(struct.pack("<HHHH", 0, 0, 120, 80))
    gif[second + 4 : second + 8] = struct.pack("<HH", 60_000, 60_000)
    return bytes(gif)


@pytest.mark.parametrize("name", huge())
def test_pixel_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    assert refusal(huge()[name]) is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("name", WHOLE)
def test_the_pixel_limit_is_exact(name: str) -> None:
    assert encode(WHOLE[name], Recipe(), Limits(max_pixels=120 * 80)).data
    assert refusal(WHOLE[name], Limits(max_pixels=120 * 80 - 1)) is ErrorCode.TOO_MANY_PIXELS


def test_the_limit_may_lie_above_the_decoders_own() -> None:
    data = saved(Image.new("1", (9_500, 9_500)), "PNG")  # Pillow warns from 89 MP on
    assert encode(data, Recipe(), Limits(max_pixels=100_000_000)).width == 9_500


def frame_flood() -> dict[str, bytes]:
    gif = saved(Image.new("L", (4, 4)), "GIF")
    start = gif.index(b"," + struct.pack("<HHHH", 0, 0, 4, 4))
    dots = [Image.new("L", (1, 1), shade % 256) for shade in range(2_000)]
    pages = saved(dots[0], "TIFF", save_all=True, append_images=dots[1:])
    webp = saved(dots[0].convert("RGB"), "WEBP", save_all=True, append_images=dots[1:], duration=9)
    return {
        "gif": gif[:start] + gif[start:-1] * 5_000 + b";",
        "tiff": pages,
        "webp": webp,
        "apng": saved(dots[0], "PNG", save_all=True, append_images=dots[1:], duration=9),
    }


FLOODS = frame_flood()


@pytest.mark.parametrize("name", FLOODS)
def test_frame_floods_are_refused(name: str) -> None:
    assert refusal(FLOODS[name]) is ErrorCode.TOO_MANY_FRAMES


def test_a_flood_of_large_frames_is_refused_by_its_total() -> None:
    gif = saved(Image.new("P", (2_000, 2_000)), "GIF")
    start = gif.index(b"," + struct.pack("<HHHH", 0, 0, 2_000, 2_000))
    flood = gif[:start] + gif[start:-1] * 150 + b";"
    assert refusal(flood) is ErrorCode.TOO_MANY_PIXELS


def test_scan_floods_are_refused() -> None:
    data = saved(small(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    flood = data[:last] + data[last:-2] * 2_000 + data[-2:]
    assert refusal(flood) is ErrorCode.TOO_MANY_PIXELS
    assert encode(data, Recipe(), Limits(max_jpeg_scans=data.count(b"\xff\xda"))).data


def test_scans_inside_metadata_do_not_count() -> None:
    data = saved(small(), "JPEG", comment=b"\xff\xda" * 500)
    assert encode(data, Recipe(), Limits()).note in {"encoded", "stripped"}


def test_a_tiff_that_chains_to_itself_ends() -> None:
    data = bytearray(saved(small(), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    started = time.process_time()
    encode(bytes(data), Recipe(), Limits())
    assert time.process_time() - started < SOON_S


def test_running_out_of_memory_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    assert refusal(WHOLE["bmp"]) is ErrorCode.TOO_MANY_PIXELS
    monkeypatch.undo()
    monkeypatch.setattr(Image.Image, "save", exhausted)
    assert refusal(WHOLE["bmp"]) is ErrorCode.TOO_MANY_PIXELS


def test_an_avif_whose_pixels_lie_outside_its_boxes_is_corrupt() -> None:
    data = WHOLE["avif"]
    assert refusal(data.replace(b"mdat", b"mdau")) is ErrorCode.IMAGE_CORRUPT


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    wanted=st.sampled_from(["keep", "auto", "webp"]),
)
def test_whatever_bytes_come_only_a_service_error_is_raised(
    name: str, edits: list[tuple[int, int]], wanted: str
) -> None:
    data = bytearray(WHOLE[name])
    for place, value in edits:
        data[place % len(data)] = value
    try:
        result = encode(bytes(data), Recipe(format=wanted), Limits(max_pixels=1_000_000))
    except ServiceError:
        return
    Image.open(BytesIO(result.data)).load()


def test_pillow_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    refusal(b"II*\0" + bytes(50))
    encode(WHOLE["png"], Recipe(), Limits())
    assert before == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_worker_keeps_blocks_of_memory() -> None:
    prepare_process()
    assert Image.core.get_blocks_max() > 0
