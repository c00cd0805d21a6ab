"""The contact sheet: every picture before and after, for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from imgsvc.demo.outcome import Outcome, Picture
from imgsvc.demo.show import saved

_BOX = (250, 210)  # one picture
_GAP, _MARGIN, _CAPTION, _HEADING = 6, 24, 56, 70
_COLUMNS = 4
_CLOSE_UPS = 8
_CELL = (2 * _BOX[0] + _GAP + _MARGIN, _BOX[1] + _CAPTION + _MARGIN // 2)

_PAGE, _PANEL, _INK, _PALE, _GOOD, _BAD = (
    "#f2f3f5", "#e2e5e9", "#16191d", "#59616b", "#0b7a3b", "#b3261e"
)  # fmt: skip
_CHECKER = 10

View = Callable[[Image.Image], Image.Image]


def draw(outcome: Outcome, path: Path) -> None:
    """Writes the sheet as a PNG.

    Args:
        outcome: what to show.
        path: the file to write.
    """
    most = sorted(outcome.made, key=lambda picture: picture.bytes_after / picture.bytes_before)
    sections: list[tuple[str, Sequence[Picture], View]] = [
        ("Before (left) and after (right)", outcome.pictures, _whole),
        ("Those that lost most bytes, 2:1 from their middle", most[:_CLOSE_UPS], _middle),
    ]
    rows = [-(-len(pictures) // _COLUMNS) for _, pictures, _ in sections]
    height = sum(_HEADING + count * _CELL[1] for count in rows) + _MARGIN
    page = Image.new("RGB", (_COLUMNS * _CELL[0] + _MARGIN, height), _PAGE)
    top = 0
    for (title, pictures, view), count in zip(sections, rows, strict=True):
        ImageDraw.Draw(page).text((_MARGIN, top + 20), title, _INK, _font(30))
        for place, picture in enumerate(pictures):
            row, column = divmod(place, _COLUMNS)
            corner = (_MARGIN + column * _CELL[0], top + _HEADING + row * _CELL[1])
            _pair(page, corner, picture, view)
        top += _HEADING + count * _CELL[1]
    page.save(path, "PNG")


def _pair(page: Image.Image, corner: tuple[int, int], picture: Picture, view: View) -> None:
    left, top = corner
    right = left + _BOX[0] + _GAP
    pen = ImageDraw.Draw(page)
    for x in (left, right):
        pen.rectangle((x, top, x + _BOX[0] - 1, top + _BOX[1] - 1), _PANEL)
    below = top + _BOX[1] + 6
    name, note = picture.sample.name, picture.sample.note
    pen.text((left, below), name, _INK, _font(19))
    after_name = left + pen.textlength(name, _font(19)) + 10
    pen.text((after_name, below + 2), note, _PALE, _font(16))
    if picture.error:
        _centred(pen, (left, top), note, _PALE)
        _centred(pen, (right, top), picture.error, _BAD)
        return
    _place(page, (left, top), view(picture.before.shown))
    if picture.result is None:
        return
    try:
        _place(page, (right, top), view(picture.after.shown))
    except OSError:
        _centred(pen, (right, top), "cannot be read", _BAD)
        return
    image, before, after = picture.image, picture.bytes_before, picture.bytes_after
    frames = len(picture.after.durations_ms)
    facts = f"{image['format'].upper()}  {image['width']} x {image['height']}"
    facts += f"  {frames} frames" if frames > 1 else ""
    pen.text((left, below + 25), f"{facts}   {before:,} to {after:,} bytes", _PALE, _font(16))
    edge = right + _BOX[0]
    colour = _GOOD if after < before else _PALE
    pen.text((edge, below), f"{saved(before, after)} saved", colour, _font(19), anchor="ra")


def _whole(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail(_BOX, Image.Resampling.LANCZOS)
    return small


def _middle(image: Image.Image) -> Image.Image:
    """The centre, each pixel as two by two, so that what compression did can be seen."""
    width, height = min(_BOX[0] // 2, image.width), min(_BOX[1] // 2, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    part = image.crop((left, top, left + width, top + height))
    return part.resize((width * 2, height * 2), Image.Resampling.NEAREST)


def _place(page: Image.Image, corner: tuple[int, int], image: Image.Image) -> None:
    """Puts a picture into the middle of its box, over a checkerboard that transparency shows."""
    ground = _checkerboard(image.size)
    ground.alpha_composite(image)
    x = corner[0] + (_BOX[0] - image.width) // 2
    y = corner[1] + (_BOX[1] - image.height) // 2
    page.paste(ground.convert("RGB"), (x, y))


def _checkerboard(size: tuple[int, int]) -> Image.Image:
    board = Image.new("RGBA", size, "white")
    pen = ImageDraw.Draw(board)
    for x in range(0, size[0], _CHECKER):
        for y in range(x // _CHECKER % 2 * _CHECKER, size[1], 2 * _CHECKER):
            pen.rectangle((x, y, x + _CHECKER - 1, y + _CHECKER - 1), "#c8ccd2")
    return board


def _centred(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str) -> None:
    middle = (corner[0] + _BOX[0] // 2, corner[1] + _BOX[1] // 2)
    pen.text(middle, text, colour, _font(20), anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
