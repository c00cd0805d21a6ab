"""Draws docs/architecture.svg from the code: its layers, its imports, and the actors of PIPELINE.

``python -m tests.contract.picture`` writes it anew.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from html import escape
from pathlib import Path

import imgsvc
from imgsvc.actors import PIPELINE, Actor, Parts

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "architecture.svg"
CODE = Path(imgsvc.__file__).parent

_CELL, _ROW, _LABEL, _HEAD, _GAP = 29, 25, 206, 122, 34
_BANDS = ("#eef3fb", "#f7f9fd")
_INK, _FAINT, _USES, _IMPORTS = "#1f2937", "#cbd5e1", "#2563eb", "#64748b"


# --- What the code says -----------------------------------------------------------------------


def layers() -> list[list[str]]:
    """The rooms in each layer, the highest first, as import-linter checks them."""
    contract = _contracts()[0]
    found = []
    for layer in contract["layers"]:
        rooms = [room.strip().removeprefix("imgsvc.") for room in re.split(r"[:|]", layer)]
        found.append([room for room in rooms if not room.startswith("__")])
    return [rooms for rooms in found if rooms]


def foreign() -> dict[str, list[str]]:
    """The libraries that only one room may import, by room; the demo makes its own pictures."""
    found: dict[str, list[str]] = {}
    for contract in _contracts()[1:]:
        for line in contract["ignore_imports"]:
            room, library = re.findall(r"imgsvc\.(\w+)\.\*\* -> (\w+)", line)[0]
            if room != "demo":
                found.setdefault(room, []).append(library)
    return found


def imported(room: str) -> set[str]:
    """The other rooms that the files of a room import."""
    folder = CODE / room
    files = folder.rglob("*.py") if folder.is_dir() else [CODE / f"{room}.py"]
    return {other for file in files for other in _imports(file)} - {room}


def used(actor: type[Actor]) -> set[str]:
    """The rooms that an actor turns to: its file's imports, and those of the parts that it takes."""
    rooms = {
        name: kind.__module__.split(".")[1] for name, kind in typing.get_type_hints(Parts).items()
    }
    found = {"mailboxes"}  # which all of them live by; the rest of their base is not of each
    for kind in actor.__mro__:
        if kind in PIPELINE:
            source = inspect.getsource(kind)
            found |= {room for name, room in rooms.items() if f"parts.{name}" in source}
            found |= set(_imports(Path(inspect.getfile(kind))))
    return found - {"actors"}


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if match := re.match(r"imgsvc\.(\w+)", name):
                room = match[1]
                if (CODE / room).is_dir() or (CODE / f"{room}.py").is_file():
                    yield room


def _contracts() -> list[dict[str, typing.Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, typing.Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


# --- How it is drawn --------------------------------------------------------------------------


def svg() -> str:
    """The picture: rooms from top to bottom, what uses them from left to right."""
    stack = layers()
    rooms = [room for layer in stack for room in layer]
    y = {room: _HEAD + (i + 0.5) * _ROW for i, room in enumerate(rooms)}
    ways = ["http", *(actor.__name__ for actor in PIPELINE)]
    left = {name: _LABEL + (i + 0.5) * _CELL for i, name in enumerate(ways)}
    start = _LABEL + len(ways) * _CELL + _GAP
    right = {room: start + (i + 0.5) * _CELL for i, room in enumerate(rooms)}
    bottom = _HEAD + len(rooms) * _ROW
    width = start + len(rooms) * _CELL + 46
    size = f'width="{width:g}" height="{bottom + 42:g}" viewBox="0 0 {width:g} {bottom + 42:g}"'
    font = f'font-family="sans-serif" font-size="12" fill="{_INK}"'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        "<title>The rooms of imgsvc, and what uses them</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_LABEL, 16, "The way of an image: http, then the actors", bold=True),
        _text(start, 16, "What each room imports", bold=True),
    ]
    top = float(_HEAD)
    for number, layer in enumerate(stack):
        height = len(layer) * _ROW
        drawn.append(
            f'<rect x="8" y="{top:g}" width="{width - 54:g}" height="{height}" '
            f'fill="{_BANDS[number % 2]}"/>'
        )
        top += height
    libraries = foreign()
    for room in rooms:
        drawn.append(_text(18, y[room] + 4, room, bold=True))
        if room in libraries:
            drawn.append(_text(100, y[room] + 4, ", ".join(libraries[room]), faint=True))
    for name, x in (*left.items(), *right.items()):
        drawn.append(_head(x, name))
        drawn.append(_line(x, _HEAD, x, bottom))
    for actor in PIPELINE:
        x = left[actor.__name__]
        drawn += [_dot(x, y[room], _USES) for room in sorted(used(actor)) if room in y]
    for room, x in right.items():
        drawn.append(_square(x, y[room]))
        drawn += [_dot(x, y[other], _IMPORTS) for other in sorted(imported(room)) if other in y]
    drawn += [_dot(left["http"], y[room], _USES) for room in sorted(imported("http")) if room in y]
    drawn += [
        _dot(22, bottom + 22, _USES),
        _text(34, bottom + 26, "uses while it works"),
        _dot(182, bottom + 22, _IMPORTS),
        _text(194, bottom + 26, "imports"),
        _square(262, bottom + 22),
        _text(274, bottom + 26, "the room itself: imports are below it, for they go down only"),
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


def _text(x: float, y: float, text: str, *, bold: bool = False, faint: bool = False) -> str:
    style = ' font-weight="bold"' if bold else f' fill="{_IMPORTS}"' if faint else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(text)}</text>'


def _head(x: float, name: str) -> str:
    return f'<text transform="translate({x + 3:g} {_HEAD - 8}) rotate(-50)">{escape(name)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{_FAINT}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="5" fill="{colour}"/>'


def _square(x: float, y: float) -> str:
    return f'<rect x="{x - 5:g}" y="{y - 5:g}" width="10" height="10" fill="{_FAINT}"/>'


if __name__ == "__main__":
    PICTURE.write_text(svg())
