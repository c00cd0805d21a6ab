"""Files that are damaged, enormous or something else altogether: refused, soon, and in words."""

import struct
import time
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.admit import Limits
from imgsvc.imaging.codec import encode
from imgsvc.imaging.tuning import prepare_process
from tests import hostile
from tests.hostile import WHOLE, saved, small
from tests.photos import photo

SOON_S = 1.0  # of CPU; the bombs below take from 4 s to minutes where they go off


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


CUT_OFF = hostile.truncated()


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_truncated_file_is_corrupt(name: str) -> None:
    assert refusal(CUT_OFF[name]) is ErrorCode.IMAGE_CORRUPT


@pytest.mark.parametrize("name", ["imagenet_00_243.jpg", "chelsea.png"])
def test_half_a_photograph_is_corrupt_under_every_recipe(name: str) -> None:
    for wanted in ("keep", "auto", "jpeg", "png", "webp", "avif"):
        half = photo(name)[: len(photo(name)) // 2]
        assert refusal(half, recipe=Recipe(format=wanted)) is ErrorCode.IMAGE_CORRUPT


@pytest.mark.parametrize("name", hostile.NOT_IMAGES)
def test_what_is_no_image_is_called_so(name: str) -> None:
    assert refusal(hostile.NOT_IMAGES[name]) is ErrorCode.NOT_AN_IMAGE


@pytest.mark.parametrize("name", hostile.UNSUPPORTED)
def test_other_kinds_of_image_are_refused_by_name(name: str) -> None:
    assert refusal(hostile.UNSUPPORTED[name]) is ErrorCode.UNSUPPORTED_FORMAT


LIES = hostile.lies()


@pytest.mark.parametrize("name", LIES)
def test_lies_about_sizes_are_found_out(name: str) -> None:
    assert refusal(LIES[name]) is ErrorCode.IMAGE_CORRUPT


# --- Bombs ------------------------------------------------------------------------------------


HUGE = hostile.huge()


@pytest.mark.parametrize("name", HUGE)
def test_pixel_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    assert refusal(HUGE[name]) is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("name", WHOLE)
def test_the_pixel_limit_is_exact(name: str) -> None:
    assert encode(WHOLE[name], Recipe(), Limits(max_pixels=120 * 80)).data
    assert refusal(WHOLE[name], Limits(max_pixels=120 * 80 - 1)) is ErrorCode.TOO_MANY_PIXELS


def test_the_limit_may_lie_above_the_decoders_own() -> None:
    data = saved(Image.new("1", (9_500, 9_500)), "PNG")  # Pillow warns from 89 MP on
    assert encode(data, Recipe(), Limits(max_pixels=100_000_000)).width == 9_500


FLOODS = hostile.frame_flood()


@pytest.mark.parametrize("name", FLOODS)
def test_frame_floods_are_refused(name: str) -> None:
    assert refusal(FLOODS[name]) is ErrorCode.TOO_MANY_FRAMES


def test_a_flood_of_large_frames_is_refused_by_its_total() -> None:
    assert refusal(hostile.flood_of_large_frames()) is ErrorCode.TOO_MANY_PIXELS


def test_scan_floods_are_refused() -> None:
    assert refusal(hostile.scan_flood()) is ErrorCode.TOO_MANY_PIXELS
    data = WHOLE["progressive jpeg"]
    assert encode(data, Recipe(), Limits(max_jpeg_scans=data.count(b"\xff\xda"))).data


PARTS = hostile.part_flood()


@pytest.mark.parametrize("name", PARTS)
def test_floods_of_empty_parts_are_refused_before_they_are_decoded(name: str) -> None:
    assert refusal(PARTS[name]) is ErrorCode.IMAGE_CORRUPT


def test_frames_within_frames_are_refused() -> None:
    assert refusal(hostile.nested_webp()) is ErrorCode.IMAGE_CORRUPT


INFLATING = hostile.inflating()


@pytest.mark.parametrize("name", INFLATING)
def test_metadata_that_inflates_is_refused(name: str) -> None:
    assert refusal(INFLATING[name]) is ErrorCode.IMAGE_CORRUPT


POLYGLOTS = hostile.polyglots()


@pytest.mark.parametrize("wanted", ["keep", "auto"])
@pytest.mark.parametrize("name", POLYGLOTS)
def test_of_a_file_with_two_faces_only_the_picture_stays(name: str, wanted: str) -> None:
    made = encode(POLYGLOTS[name], Recipe(format=wanted), Limits()).data
    assert b"<script>" not in made
    assert b"PK\3\4" not in made
    Image.open(BytesIO(made)).load()


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1)])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_a_very_long_picture_stays_what_it_was(name: str, size: tuple[int, int]) -> None:
    """PNG and TIFF have no limit below four bytes; the other formats have, and say so."""
    data = saved(Image.new("L", size), name)
    made = encode(data, Recipe(), Limits())
    assert (made.format, made.width, made.height) == (name.lower(), *size)
    for other in ("jpeg", "webp", "avif"):
        assert refusal(data, recipe=Recipe(format=other)) is ErrorCode.TOO_MANY_PIXELS


def test_damage_beside_the_pixels_does_not_keep_them_back() -> None:
    """The directory of EXIF that this TIFF points to is not there."""
    assert encode(hostile.tiff((34_665, 4, 1, 0x7FFF_FFFF)), Recipe(), Limits()).format == "tiff"


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


@settings(max_examples=150)
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
