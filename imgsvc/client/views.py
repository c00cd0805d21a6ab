"""What the commands print: a request, its images, what it saved."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imgsvc.client import text
from imgsvc.client.server import CallError, Json

_SIZES = "{:>9} {:>9} {:>6}"  # of an image before and after, and what was saved
_MOST = 20  # problems of an upload that are shown


def status(console: Console, found: Json) -> None:
    """One request."""
    webhook = found["webhook"]
    share = text.saved(found["bytesIn"], found["bytesOut"])
    began, changed = _time(found["createdAt"]), _time(found["updatedAt"])
    failed = found["failedImages"]
    rows = {
        "Request": found["requestId"],
        "Status": found["status"],
        "Products": f"{found['processedProducts']:,} of {found['totalProducts']:,}",
        "Images": f"{found['processedImages']:,} of {found['totalImages']:,}"
        + (f", {failed:,} failed" if failed else ""),
        "Bytes": f"{text.size(found['bytesIn'])} before, {text.size(found['bytesOut'])} after"
        + (f": {text.percent(share)} saved" if share is not None else ""),
        "Created": f"{began:%Y-%m-%d %H:%M:%S} UTC",
        "Changed": f"{text.duration((changed - began).total_seconds() * 1000)} later",
        "Webhook": f"{webhook['status']}, {text.count(webhook['attempts'], 'attempt')}"
        if webhook
        else "none",
    }
    for name, value in rows.items():
        console.print(f"{name:<10}{text.plain(value)}", markup=False, soft_wrap=True)


def request_line(console: Console, found: Json | None) -> None:
    """One request of a list; None for the line above all."""
    if found is None:
        cells = ["Request", "Status", "Images", "Failed", "Before", "Saved", "Created"]
    else:
        cells = [
            found["requestId"],
            found["status"],
            f"{found['totalImages']:,}",
            f"{found['failedImages']:,}",
            text.size(found["bytesIn"]),
            text.percent(text.saved(found["bytesIn"], found["bytesOut"])),
            f"{_time(found['createdAt']):%Y-%m-%d %H:%M}",
        ]
    line = "{:<36}  {:<10}{:>7} {:>7} {:>9} {:>6}  {}".format(*map(text.plain, cells))
    _line(console, line, found is None)


def image_line(console: Console, image: Json | None) -> None:
    """One image of a list; None for the line above all."""
    if image is None:
        serial, number, status, where = "Serial Number", "#", "Status", "Image"
        middle = _SIZES.format("Before", "After", "Saved")
    else:
        serial, number, status = str(image["serialNumber"]), image["index"], image["status"]
        before, after, result = image["bytesIn"], image["bytesOut"], image["outputUrl"]
        share = text.saved(before, after) if before and after else None
        middle = _SIZES.format(text.size(before), text.size(after), text.percent(share))
        if image["error"]:
            middle = image["error"]["code"]
        where = image["inputUrl"] + (f" -> {result}" if result else "")
    line = f"{text.cell(serial, 16)} {number:>2} {status:<9} {text.cell(middle, 26)}  {where}"
    _line(console, text.plain(line), image is None)


def report(console: Console, found: Json) -> None:
    """What a request saved, where its images came from, how long they took."""
    images = found["images"]
    counts = [f"{images[status]:,} {status}" for status in _STATUSES if images[status]]
    head = f"{found['status']}: {text.count(images['total'], 'image')}, {', '.join(counts)}"
    console.print(Text(head, "bold"))
    if found["bytesIn"]:
        before, after = text.size(found["bytesIn"]), text.size(found["bytesOut"])
        share = text.percent(found["savedShare"])
        console.print(Text(f"{before} before, {after} after: {share} saved", "bold"))
    if found["partial"]:
        console.print("It is not finished; these are the numbers so far.")
    _table(
        console,
        ("Format", "Images", "Before", "After", "Saved"),
        (
            (
                each["format"],
                f"{each['images']:,}",
                text.size(each["bytesIn"]),
                text.size(each["bytesOut"]),
                text.percent(each["savedShare"]),
            )
            for each in found["formats"]
        ),
    )
    shown = {"Before": "bytesIn", "After": "bytesOut", "Saved": "savedShare"}
    _table(
        console,
        ("Per image", "median", "p90", "p99"),
        (
            (
                title,
                *(
                    (text.percent if name == "savedShare" else text.size)(v)
                    for v in spread.values()
                ),
            )
            for title, name in shown.items()
            if (spread := found["perImage"][name])
        ),
    )
    _table(
        console,
        ("Stage", "median", "p95"),
        (
            (stage, *map(text.duration, spread.values()))
            for stage, spread in found["stagesMs"].items()
            if spread
        ),
    )
    _table(
        console,
        ("Slowest origins", "Images", "Failed", "Median", "Longest"),
        (
            (
                each["origin"],
                f"{each['images']:,}",
                f"{each['failed']:,}",
                text.duration(each["medianMs"]),
                text.duration(each["maxMs"]),
            )
            for each in found["slowestOrigins"]
        ),
    )
    _table(
        console,
        ("Errors", "Images"),
        ((each["code"], f"{each['images']:,}") for each in found["errors"]),
    )


_STATUSES = ("completed", "failed", "cancelled", "pending")


def problem(console: Console, error: CallError) -> None:
    """A call that did not work out, with each place that was wrong."""
    console.print(f"imgsvc: {text.plain(str(error))}", style="red", markup=False, soft_wrap=True)
    for each in error.errors[:_MOST] if len(error.errors) > 1 else ():
        place = " ".join(map(str, each["loc"]))
        console.print(
            f"  {text.plain(place)}: {text.plain(each['msg'])}", markup=False, soft_wrap=True
        )
    if len(error.errors) > _MOST:
        console.print(f"  and {len(error.errors) - _MOST} more", markup=False)


def _line(console: Console, line: str, head: bool) -> None:
    """A line of a list: cut at the edge of a terminal, in full elsewhere."""
    shown = text.cell(line, console.width) if console.is_terminal else line
    console.print(shown.rstrip(), style="dim" if head else None, markup=False, soft_wrap=True)


def _table(console: Console, titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    first, *others = titles
    table.add_column(first, min_width=14)
    for title in others:
        table.add_column(title, justify="right", min_width=8)
    for row in rows:
        table.add_row(*(Text(text.plain(each)) for each in row))
    if table.row_count:
        console.print()
        console.print(table)


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso)
