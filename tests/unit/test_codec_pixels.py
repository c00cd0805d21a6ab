"""Pixels: upright, in sRGB, on white and never on black, scaled and never clipped."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat, PngImagePlugin

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.admit import Limits
from imgsvc.imaging.codec import encode
from imgsvc.imaging.containers import strip
from imgsvc.imaging.encode import Encoded
from tests.photos import photo


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def opened(result: Encoded | bytes) -> Image.Image:
    image = Image.open(BytesIO(result if isinstance(result, bytes) else result.data))
    image.load()
    return image


def run(data: bytes, **recipe: object) -> Encoded:
    return encode(data, Recipe(**recipe), Limits())


def picture() -> Image.Image:
    """A photograph with four different corners."""
    image = opened(photo("coffee.png")).resize((96, 64))
    image.info = {}
    return image


def distance(a: Image.Image, b: Image.Image) -> float:
    assert (a.mode, a.size) == (b.mode, b.size)
    return max(ImageStat.Stat(ImageChops.difference(a, b)).mean)


def worst(a: Image.Image, b: Image.Image) -> int:
    assert (a.mode, a.size) == (b.mode, b.size)
    extrema = ImageChops.difference(a, b).getextrema()
    return max(e if isinstance(e, int) else e[1] for e in extrema)


# --- Orientation ------------------------------------------------------------------------------

UPRIGHT: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda im: im.copy(),
    2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda im: im.rotate(180),
    4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda im: im.rotate(90, expand=True).transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    6: lambda im: im.rotate(-90, expand=True),
    7: lambda im: im.rotate(-90, expand=True).transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    8: lambda im: im.rotate(90, expand=True),
}


def sideways(name: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if name == "WEBP" else {}
    return saved(picture(), name, exif=exif, **lossless)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_exactly(name: str, orientation: int) -> None:
    result = run(sideways(name, orientation))
    after = opened(result)
    assert worst(after.convert("RGB"), UPRIGHT[orientation](picture())) == 0
    assert (result.width, result.height) == after.size
    assert 0x0112 not in after.getexif() or after.getexif()[0x0112] == 1


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["JPEG", "AVIF"])
def test_orientation_is_applied_to_lossy_formats(name: str, orientation: int) -> None:
    # libavif turns EXIF orientation into the boxes irot and imir, which Pillow reads back.
    after = opened(run(sideways(name, orientation)))
    wanted = UPRIGHT[orientation](picture())
    others = [
        distance(after, other(picture()))
        for other in UPRIGHT.values()
        if other(picture()).size == after.size
    ]
    assert distance(after, wanted) < 9
    assert distance(after, wanted) == min(others)
    assert not after.getexif()


def test_an_upright_small_jpeg_that_must_be_turned_says_that_it_grew() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture(), "JPEG", quality=30, optimize=True, progressive=True, exif=exif)
    result = run(data)
    assert (result.width, result.height) == (64, 96)
    assert result.note == ("larger" if len(result.data) > len(data) else "encoded")


def test_damaged_exif_is_no_reason_to_refuse_pixels() -> None:
    for broken in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        result = run(saved(picture(), "JPEG", quality=95, exif=broken))
        assert (result.width, result.height) == (96, 64)


# --- Colour -----------------------------------------------------------------------------------


def matrix_profile(kind: bytes, primaries: list[tuple[float, float, float]], gamma: float) -> bytes:
    """An ICC v2 display profile (ICC.1:2001-04 §6.3.1): D50 columns and one gamma."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    tags = [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0\0\0\0")]
    tags.append((b"wtpt", xyz((0.9642, 1.0, 0.8249))))
    if kind == b"GRAY":
        tags.append((b"kTRC", curve))
    for channel, column in zip(b"rgb", primaries, strict=False):
        tags += [(bytes([channel]) + b"XYZ", xyz(column)), (bytes([channel]) + b"TRC", curve)]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"test", 0x02400000, b"mntr", kind, b"XYZ "
    )
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


# Columns of Adobe RGB (1998) adapted to D50, annex C of its specification.
WIDE = matrix_profile(
    b"RGB ",
    [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
    2.2,
)
DARK_GREY = matrix_profile(b"GRAY", [], 1.0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def converted(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.getOpenProfile(BytesIO(profile))
    return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))


def test_the_wide_profile_of_these_tests_moves_colours() -> None:
    assert distance(converted(picture(), WIDE), picture()) > 5


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_a_wide_gamut_is_converted_exactly(name: str) -> None:
    lossless = {"lossless": True} if name == "WEBP" else {}
    result = run(saved(picture(), name, icc_profile=WIDE, **lossless))
    after = opened(result)
    assert worst(after.convert("RGB"), converted(picture(), WIDE)) == 0
    assert "icc_profile" not in after.info


@pytest.mark.parametrize("name", ["JPEG", "AVIF", "WEBP"])
def test_a_wide_gamut_is_converted_in_lossy_formats(name: str) -> None:
    data = saved(picture(), name, quality=90, icc_profile=WIDE)
    after = opened(run(data, quality=95)).convert("RGB")
    assert distance(after, converted(opened(data).convert("RGB"), WIDE)) < 3
    assert distance(after, opened(data).convert("RGB")) > 4


def test_alpha_and_palettes_survive_a_conversion() -> None:
    rgba = picture().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    after = opened(run(saved(rgba, "PNG", icc_profile=WIDE)))
    assert worst(after.getchannel("A"), rgba.getchannel("A")) == 0
    assert worst(after.convert("RGB"), converted(picture(), WIDE)) == 0
    palette = picture().quantize(32)
    after = opened(run(saved(palette, "PNG", icc_profile=WIDE)))
    assert after.mode == "P"
    assert worst(after.convert("RGB"), converted(palette.convert("RGB"), WIDE)) == 0


def test_a_colour_named_transparent_stays_so_when_colours_move() -> None:
    image = Image.new("RGB", (16, 16), (10, 200, 30))
    image.paste((200, 60, 20), (0, 0, 8, 16))
    after = opened(run(saved(image, "PNG", transparency=(10, 200, 30), icc_profile=WIDE)))
    alpha = after.convert("RGBA").getchannel("A")
    assert (alpha.getpixel((2, 2)), alpha.getpixel((12, 2))) == (255, 0)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_with_a_grey_profile_stays_grey(mode: str) -> None:
    grey = Image.linear_gradient("L")
    image = grey if mode == "L" else Image.merge("LA", (grey, grey.rotate(90)))
    after = opened(run(saved(image, "PNG", icc_profile=DARK_GREY)))
    assert after.mode == mode
    # Linear light 55/255 is sRGB 128/255 (IEC 61966-2-1: 12.92 u, 1.055 u^(1/2.4) - 0.055).
    assert after.getchannel(0).getpixel((0, 55)) == pytest.approx(128, abs=2)
    assert after.getchannel(0).getpixel((0, 255)) == 255


def test_an_srgb_profile_is_dropped_without_touching_a_pixel() -> None:
    data = saved(picture(), "JPEG", quality=60, icc_profile=SRGB)
    result = run(data)
    assert result.note == "stripped"
    assert "icc_profile" not in opened(result).info
    assert opened(result).tobytes() == opened(data).tobytes()


def test_a_stripped_png_has_no_srgb_profile_either() -> None:
    stripped = strip("png", saved(picture(), "PNG", icc_profile=SRGB))
    assert stripped is not None
    assert b"iCCP" not in stripped
    assert worst(opened(stripped), picture()) == 0


@pytest.mark.parametrize("profile", [b"not a profile", WIDE[:300], DARK_GREY])
def test_a_useless_profile_is_dropped_and_the_picture_goes_on(profile: bytes) -> None:
    after = opened(run(saved(picture(), "PNG", icc_profile=profile)))
    assert worst(after, picture()) == 0
    assert "icc_profile" not in after.info


def cmyk() -> Image.Image:
    return picture().convert("CMYK")


def test_cmyk_without_a_profile() -> None:
    data = saved(cmyk(), "JPEG", quality=95, subsampling=0)  # Adobe's way: stored inverted
    result = run(data, quality=95)
    assert b"Adobe" in data
    assert opened(result).mode == "RGB"
    assert distance(opened(result), picture()) < 5


def test_ycck_is_cmyk_too() -> None:
    # Pillow cannot write YCCK, but it can write four channels as they are and call them CMYK.
    # T.81 with Adobe's TN 5116: YCCK holds RGB made of 255-C, 255-M, 255-Y, turned to YCbCr,
    # and like all of Adobe's CMYK it is stored inverted, as Pillow does while writing.
    ycc = ImageChops.invert(picture()).convert("YCbCr").split()
    key = Image.new("L", picture().size, 0)
    plain = Image.merge("CMYK", [*(ImageChops.invert(channel) for channel in ycc), key])
    data = saved(plain, "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe") + 11
    result = run(data[:at] + b"\2" + data[at + 1 :], quality=95)
    assert distance(opened(result), picture()) < 6


def test_cmyk_with_a_profile_follows_the_profile() -> None:
    # No CMYK profile comes with Pillow: a three-channel one must be refused and the plain
    # conversion be used, never a failure.
    result = run(saved(cmyk(), "JPEG", quality=95, icc_profile=WIDE), quality=95)
    assert distance(opened(result), picture()) < 5
    tiff = opened(run(saved(cmyk(), "TIFF", compression="tiff_lzw")))
    assert worst(tiff, cmyk().convert("RGB")) == 0


# --- Transparency -----------------------------------------------------------------------------


def grey16(rows: list[list[int]]) -> Image.Image:
    """Rows of levels; `Image.paste` writes wrong ones in this mode (Pillow 13.0)."""
    flat = [level for row in rows for level in row]
    return Image.frombytes("I;16", (len(rows[0]), len(rows)), struct.pack(f"<{len(flat)}H", *flat))


def transparent(mode: str) -> bytes:
    """A PNG whose left half is dark blue (or black) and cannot be seen."""
    rgba = Image.new("RGBA", (64, 32), (200, 120, 40, 255))
    rgba.paste((0, 0, 90, 0), (0, 0, 32, 32))
    if mode == "RGBA":
        return saved(rgba, "PNG")
    if mode == "LA":
        return saved(rgba.convert("LA"), "PNG")
    if mode in {"P", "P bytes"}:
        image = rgba.convert("RGB").quantize(8)
        hidden = image.getpixel((0, 0))
        alphas = bytes(0 if i == hidden else 128 if i == 7 else 255 for i in range(8))
        return saved(image, "PNG", transparency=hidden if mode == "P" else alphas)
    if mode == "I;16":
        image = grey16([[300] * 32 + [40_000] * 32] * 32)
        return saved(image, "PNG", transparency=300)
    image = rgba.convert(mode)
    return saved(image, "PNG", transparency=image.getpixel((0, 0)))


MODES = ["RGBA", "LA", "P", "P bytes", "L", "RGB", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_flattened_on_white(mode: str) -> None:
    after = opened(run(transparent(mode), format="jpeg", quality=95)).convert("RGB")
    assert min(after.getpixel((4, 16))) >= 250
    seen = after.getpixel((60, 16))
    assert max(abs(a - b) for a, b in zip(seen, shown(mode), strict=True)) <= 4


def shown(mode: str) -> tuple[int, int, int]:
    grey = Image.new("RGB", (1, 1), (200, 120, 40)).convert("L").getpixel((0, 0))
    if mode == "I;16":
        return (156, 156, 156)  # 40,000 / 257
    return (grey, grey, grey) if mode in {"L", "LA"} else (200, 120, 40)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["keep", "png", "webp", "avif", "auto"])
def test_alpha_is_kept(mode: str, target: str) -> None:
    after = opened(run(transparent(mode), format=target)).convert("RGBA")
    if mode == "I;16" and target in {"keep", "png"}:
        after = opened(run(transparent(mode), format=target))
        assert (after.mode, after.info["transparency"]) == ("I;16", 300)
        return
    alpha = after.getchannel("A")
    assert (alpha.getpixel((4, 16)), alpha.getpixel((60, 16))) == (0, 255)
    seen = after.getpixel((60, 16))[:3]
    assert max(abs(a - b) for a, b in zip(seen, shown(mode), strict=True)) <= 4


@pytest.mark.parametrize("target", ["keep", "png"])
def test_alpha_of_png_is_exact(target: str) -> None:
    rgba = picture().convert("RGBA")
    rgba.putalpha(Image.radial_gradient("L").resize(rgba.size))
    after = opened(run(saved(rgba, "PNG", compress_level=1), format=target))
    assert after.tobytes() == rgba.tobytes()


# --- Sixteen bits -----------------------------------------------------------------------------


def png16(colour: int, channels: int, pixels: list[int], *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row with 16 bits a channel, which Pillow cannot write in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = b"\0" + struct.pack(f">{len(pixels)}H", *pixels)
    header = struct.pack(">IIBBBBB", len(pixels) // channels, 1, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


LEVELS = [0, 257, 25_700, 32_768, 51_400, 65_535]


def test_sixteen_bit_grey_stays_sixteen_bit_in_png() -> None:
    data = png16(0, 1, LEVELS, (b"tEXt", b"Comment\0secret" * 20))
    after = opened(run(data))
    assert [after.getpixel((x, 0)) for x in range(6)] == LEVELS


@pytest.mark.parametrize("target", ["jpeg", "webp", "avif"])
def test_sixteen_bits_are_scaled_and_not_clipped(target: str) -> None:
    wide = grey16([[level for level in LEVELS for _ in range(16)]] * 16)
    for name in ("PNG", "TIFF"):
        after = opened(run(saved(wide, name), format=target, quality=95)).convert("L")
        seen = [after.getpixel((x, 8)) for x in range(8, 96, 16)]
        assert seen == pytest.approx([0, 1, 100, 128, 200, 255], abs=4)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bit_colour_is_stripped_and_never_reduced(colour: int, channels: int) -> None:
    pixels = [(i * 977 + 13) % 65_536 for i in range(64 * channels)]
    profile = b"wide\0\0" + zlib.compress(WIDE)
    data = png16(colour, channels, pixels, (b"tEXt", b"Comment\0secret"), (b"iCCP", profile))
    result = run(data)
    assert result.note == "stripped"
    assert result.data == png16(colour, channels, pixels, (b"iCCP", profile))


def test_sixteen_bit_colour_is_converted_where_asked() -> None:
    pixels = [level for level in LEVELS for _ in range(3)]
    after = opened(run(png16(2, 3, pixels), format="webp"))
    assert [after.getpixel((x, 0))[0] for x in range(6)] == pytest.approx(
        [0, 1, 100, 128, 200, 255], abs=1
    )


def test_a_transfer_curve_that_pillow_would_lose_is_kept() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    info.add_text("Comment", "secret")
    result = run(saved(picture(), "PNG", pnginfo=info, compress_level=0))
    assert result.note == "stripped"
    assert b"gAMA" in result.data
    assert b"secret" not in result.data


def test_pixels_without_an_agreed_white_are_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        run(saved(Image.new("F", (8, 8), 0.5), "TIFF"))
    assert caught.value.code is ErrorCode.UNSUPPORTED_FORMAT
