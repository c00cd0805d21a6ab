"""What the codec makes of real photographs: smaller, of the same kind, and without metadata."""

from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import FILE_TYPES, Recipe
from imgsvc.imaging.admit import Limits
from imgsvc.imaging.codec import encode
from imgsvc.imaging.containers import strip, survey
from imgsvc.imaging.encode import Encoded
from tests.photos import photo, photo_names

KEEP = Recipe()
MARK = b"WHERE-I-LIVE"


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


def chelsea(size: tuple[int, int] = (120, 80)) -> Image.Image:
    image = opened(photo("chelsea.png")).resize(size)
    image.info = {}
    return image


def in_srgb(image: Image.Image) -> Image.Image:
    """An independent reference: what a colour-managed viewer shows."""
    if profile := image.info.get("icc_profile"):
        source = ImageCms.getOpenProfile(BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    return image


def distance(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two images, in units of 1/255."""
    assert (a.mode, a.size) == (b.mode, b.size)
    return max(ImageStat.Stat(ImageChops.difference(a, b)).mean)


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", photo_names())
@pytest.mark.parametrize("recipe", [KEEP, Recipe(format="auto"), Recipe(quality=90)], ids=repr)
def test_no_photograph_grows_or_changes_its_look(name: str, recipe: Recipe) -> None:
    data = photo(name)
    result = encode(data, recipe, Limits())
    assert len(result.data) <= len(data)
    assert result.note in {"encoded", "stripped", "original"}
    before, after = in_srgb(opened(data)), opened(result)
    assert (result.width, result.height) == after.size == before.size
    assert distance(before.convert("RGB"), after.convert("RGB")) < 8
    if recipe.format == "keep":
        assert after.format == opened(data).format
        assert after.format != "PNG" or distance(before, after) < 0.2  # 0 without a profile
        assert "icc_profile" in opened(data).info or after.format != "PNG" or same(before, after)
        if result.note != "encoded":
            assert same(before, after)


def test_photographs_get_clearly_smaller() -> None:
    names = [name for name in photo_names() if name.endswith(".jpg")]
    before = sum(len(photo(name)) for name in names)
    after = sum(len(encode(photo(name), KEEP, Limits()).data) for name in names)
    assert after < 0.7 * before


@pytest.mark.parametrize("name", photo_names()[::4])
def test_encoding_twice_gives_what_encoding_once_gave(name: str) -> None:
    once = run(photo(name))
    twice = run(once.data)
    assert same(opened(once), opened(twice))
    assert len(twice.data) <= len(once.data)


def formats() -> dict[str, bytes]:
    rgb = chelsea()
    return {
        "jpeg": saved(rgb, "JPEG", quality=95),
        "png": saved(rgb, "PNG"),
        "webp": saved(rgb, "WEBP", quality=95),
        "avif": saved(rgb, "AVIF", quality=95),
        "gif": saved(rgb, "GIF"),
        "tiff": saved(rgb, "TIFF"),
        "bmp": saved(rgb, "BMP"),
    }


@pytest.mark.parametrize("name", formats())
def test_each_format_keeps_its_family(name: str) -> None:
    result = run(formats()[name])
    expected = "png" if name == "bmp" else name
    assert result.format == expected
    assert opened(result).format == expected.upper()
    assert FILE_TYPES[result.format][0] == f"image/{expected}"
    if name in {"bmp", "png", "gif", "tiff"}:
        before = opened(formats()[name])
        assert same(opened(result).convert("RGB"), before.convert("RGB"))


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("name", formats())
def test_each_format_converts_to_each_other(name: str, target: str) -> None:
    data = formats()[name]
    result = run(data, format=target)
    assert (result.format, result.note == "larger") == (target, len(result.data) > len(data))
    assert distance(opened(result).convert("RGB"), opened(data).convert("RGB")) < 6


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_quality_rules_lossy_encoders(name: str) -> None:
    sizes = [len(run(formats()[name], quality=q).data) for q in (10, 40, 70)]
    assert sizes == sorted(set(sizes))


def test_jpeg_quality_is_75_unless_asked_otherwise() -> None:
    data = photo("rocket.jpg")
    reference = opened(saved(opened(data), "JPEG", quality=75, subsampling=2))
    assert opened(run(data)).quantization == reference.quantization


@pytest.mark.parametrize("quality", [20, 50, 74, 75])
def test_a_poor_jpeg_is_not_encoded_again(quality: int) -> None:
    data = saved(chelsea(), "JPEG", quality=quality, comment=MARK)
    result = run(data)
    assert result.note == "stripped"
    assert same(opened(result), opened(data))


@pytest.mark.parametrize("quality", range(5, 100, 5))
def test_a_turned_jpeg_gets_no_finer_tables_than_it_had(quality: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = saved(chelsea(), "JPEG", quality=quality, exif=exif)
    before, after = opened(data).quantization[0], opened(run(data)).quantization[0]
    at_75 = opened(saved(chelsea(), "JPEG", quality=75)).quantization[0]
    assert after == (before if quality <= 75 else at_75)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_chroma_keeps_its_resolution(sampling: str) -> None:
    data = saved(chelsea(), "JPEG", quality=95, subsampling=sampling)
    assert opened(run(data)).layer == opened(data).layer


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_chroma_of_avif_keeps_its_resolution(sampling: str) -> None:
    result = run(saved(chelsea(), "AVIF", quality=100, subsampling=sampling))
    assert result.note == "encoded"
    assert survey("avif", result.data).fine_chroma == (sampling == "4:4:4")


def test_adobes_note_on_colour_is_no_metadata() -> None:
    data = saved(chelsea(), "JPEG", quality=50, keep_rgb=True, comment=MARK)
    data = b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" + data[2:]  # 0: RGB, not YCbCr
    result = run(data)
    assert (result.note, MARK in result.data) == ("stripped", False)
    assert same(opened(result), opened(data))
    assert b"Adobe" in result.data


def test_lossless_webp_stays_lossless_even_where_nothing_is_seen() -> None:
    rgba = chelsea().convert("RGBA")
    alpha = Image.linear_gradient("L").resize(rgba.size)
    alpha.paste(0, (0, 0, 60, 80))
    rgba.putalpha(alpha)
    data = saved(rgba, "WEBP", lossless=True, exact=True, quality=0, method=0)
    result = run(data)
    assert result.note == "encoded"
    assert len(result.data) < len(data)
    assert same(opened(result), rgba)
    assert b"VP8L" in result.data


def test_palettes_stay_palettes() -> None:
    palette = chelsea().quantize(40)
    data = saved(palette, "PNG", compress_level=0)
    after = opened(run(data))
    assert after.mode == "P"
    assert same(after.convert("RGB"), palette.convert("RGB"))


def test_auto_takes_the_smallest() -> None:
    data = photo("rocket.jpg")
    sizes = {name: len(run(data, format=name).data) for name in ("jpeg", "webp")}
    assert len(run(data, format="auto").data) == min(sizes.values())


def test_auto_leaves_drawings_exact() -> None:
    drawing = Image.new("RGB", (200, 200), "white")
    drawing.paste("navy", (20, 20, 90, 180))
    result = run(saved(drawing, "PNG"), format="auto")
    assert result.format in {"png", "webp"}
    assert same(opened(result).convert("RGB"), drawing)


def test_a_size_that_webp_cannot_hold_is_refused_in_words() -> None:
    data = saved(Image.new("L", (17_000, 2)), "PNG")
    with pytest.raises(ServiceError, match="16,383") as caught:
        run(data, format="webp")
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS
    assert run(data, format="auto").format in {"png", "jpeg"}


def with_metadata() -> dict[str, bytes]:
    """Every place that a stranger may have written something into, marked."""
    exif = Image.Exif()
    exif[0x010E] = MARK.decode()
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    exif.get_ifd(0x8825)[29] = MARK.decode()
    exif.get_ifd(0x8769)[0x9286] = MARK
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + MARK + b"</x:xmpmeta>"
    text = PngInfo()
    text.add_text("Comment", MARK.decode())
    text.add_text("Packed", MARK.decode() * 9, zip=True)
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    rgb, tail = chelsea(), b"<script>" + MARK
    jpeg = saved(rgb, "JPEG", quality=70, exif=exif, xmp=xmp, comment=MARK)
    iptc = b"\xff\xed\x00\x2aPhotoshop 3.0\x008BIM\x04\x04" + MARK.ljust(20)
    jfif = b"JFIF\0\1\1\0\0\1\0\1\2\2" + MARK  # a thumbnail of 2 by 2 pixels, 12 bytes
    jpeg = jpeg[:2] + b"\xff\xe0" + (2 + len(jfif)).to_bytes(2, "big") + jfif + iptc + jpeg[20:]
    tags = {270: MARK.decode(), 700: xmp, 33723: MARK, 34377: MARK}
    return {
        "jpeg": jpeg + tail,
        "png": saved(rgb, "PNG", optimize=True, exif=exif, pnginfo=text) + tail,
        "webp": saved(rgb, "WEBP", quality=30, exif=exif, xmp=xmp) + tail,
        "lossless webp": saved(rgb, "WEBP", lossless=True, exif=exif, xmp=xmp) + tail,
        "avif": saved(rgb, "AVIF", quality=30, exif=exif, xmp=xmp) + tail,
        "gif": saved(rgb, "GIF", comment=MARK) + tail,
        "tiff": saved(rgb, "TIFF", compression="jpeg", tiffinfo=tags, exif=exif) + tail,
        "bmp": saved(rgb, "BMP") + tail,
    }


@pytest.mark.parametrize("recipe", [KEEP, Recipe(quality=5), Recipe(format="auto")], ids=repr)
@pytest.mark.parametrize("name", with_metadata())
def test_no_metadata_leaves_the_house(name: str, recipe: Recipe) -> None:
    data = with_metadata()[name]
    assert MARK in data
    if name == "tiff":
        data = data[
            : data.rindex(b"<script>")
        ]  # see imgsvc.imaging.containers.tiff: unreferenced bytes are not seen
    result = encode(data, recipe, Limits())
    for trace in (MARK, b"xmpmeta", b"<script", b"8BIM", b"Exif", b"Packed"):
        assert trace not in result.data
    after = opened(result)
    if name.startswith("tiff"):
        assert not {270, 305, 700, 33723, 34377, 34665, 34853} & after.getexif().keys()
    else:
        assert not after.getexif()
    assert not {"exif", "xmp", "comment", "icc_profile", "photoshop", "Comment"} & after.info.keys()


@pytest.mark.parametrize("name", [n for n in with_metadata() if n not in {"bmp", "avif"}])
def test_kept_bytes_decode_to_the_same_pixels(name: str) -> None:
    data = with_metadata()[name]
    result = run(data)
    assert same(opened(result), opened(data))
    if result.data[12:16] == b"VP8X":
        assert not result.data[20] & (0x20 | 0x08 | 0x04)  # nor may the header promise metadata
    if name not in {"png", "lossless webp"}:  # those may well be encoded smaller
        assert result.note == "stripped"
        assert len(result.data) <= len(data)


def test_the_nested_directories_of_a_tiff_are_emptied() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = MARK.decode()
    tags[34665] = {0x9286: MARK}
    tags[34853] = {29: MARK.decode()}
    data = saved(chelsea(), "TIFF", tiffinfo=tags)
    stripped = strip("tiff", data)
    assert stripped is not None
    assert (data.count(MARK), stripped.count(MARK)) == (3, 0)  # description, GPS, user comment
    assert same(opened(stripped), opened(data))


def test_what_has_nothing_to_strip_is_left_alone() -> None:
    data = run(photo("rocket.jpg")).data
    result = run(data)
    assert (result.note, result.data) == ("original", data)


def test_an_avif_that_cannot_be_stripped_is_encoded_and_says_when_it_grew() -> None:
    data = saved(chelsea(), "AVIF", quality=5, exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    result = run(data)
    assert (result.note, len(result.data) > len(data)) == ("larger", True)
    clean = saved(chelsea(), "AVIF", quality=5)
    assert run(clean).note == "original"
    assert run(clean + b"<script>").data == clean
