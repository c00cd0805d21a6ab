"""Photographs in the sizes that shops send, made of real ones that packages ship.

Each is a mosaic of photographs at about their own resolution: an enlarged photograph is smoother
than a camera's and would flatter the decoder. The JPEG quality is searched so that the file has
the wanted size.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from imgsvc.demo.samples import photo, photo_names

_QUALITIES = range(60, 98)


@dataclass(frozen=True, slots=True)
class Size:
    """One kind of photograph.

    Args:
        name: as in tables.
        columns: tiles side by side.
        rows: tiles on top of each other.
        tile: pixels of a tile's side.
        file_bytes: how large the JPEG is to be.
        files: different photographs.
        batch: images of one measured request.
    """

    name: str
    columns: int
    rows: int
    tile: int
    file_bytes: int
    files: int
    batch: int


TINY = Size("tiny", 1, 1, 96, 4_000, 20, 0)
SIZES = {
    size.name: size
    for size in (
        Size("150 kB", 2, 2, 400, 150_000, 24, 600),
        Size("1 MB", 4, 4, 500, 1_000_000, 12, 200),
        Size("12 MP", 8, 6, 500, 4_500_000, 6, 48),
    )
}


def make(size: Size, parent: Path) -> list[Path]:
    """The files of one size, made if they are not there yet.

    Args:
        size: which.
        parent: where its folder is.
    """
    folder = parent / size.name.replace(" ", "-")
    files = [folder / f"{number}.jpg" for number in range(size.files)]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        tiles = _tiles(size.tile)
        for number, file in enumerate(files):
            file.write_bytes(_jpeg(_mosaic(size, tiles, number), size.file_bytes))
    return files


def _tiles(side: int) -> list[Image.Image]:
    opened = [Image.open(BytesIO(photo(name))) for name in photo_names()]
    coloured = [image for image in opened if image.mode == "RGB"]
    return [ImageOps.fit(image, (side, side)) for image in coloured]


def _mosaic(size: Size, tiles: list[Image.Image], number: int) -> Image.Image:
    mosaic = Image.new("RGB", (size.columns * size.tile, size.rows * size.tile))
    for place in range(size.columns * size.rows):
        row, column = divmod(place, size.columns)
        tile = tiles[(place * 7 + number) % len(tiles)]
        mosaic.paste(tile, (column * size.tile, row * size.tile))
    return mosaic


def _jpeg(image: Image.Image, file_bytes: int) -> bytes:
    """The image at the first quality that makes it so large, or the best one."""
    low, high = 0, len(_QUALITIES) - 1
    while low < high:
        middle = (low + high) // 2
        if len(_saved(image, _QUALITIES[middle])) < file_bytes:
            low = middle + 1
        else:
            high = middle
    return _saved(image, _QUALITIES[low])


def _saved(image: Image.Image, quality: int) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()
