"""What the demo prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from imgsvc.demo.expectations import Expectation
from imgsvc.demo.outcome import Outcome, Picture

# Fits a terminal of 80 columns.
_LINE = "    {:<21} {:<5} {:>14} {:>13} {:>10} {:>6}"
_CUT = 340  # characters of a CSV or log line; the file has them all
_REASONS = 5
_LINE_EVERY = 10  # images, where there is no terminal


@contextmanager
def progress(console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that shows a status object: as a bar, or as lines without a terminal."""
    if not console.is_terminal:
        last = -1

        def say(status: dict[str, Any]) -> None:
            nonlocal last
            done, total = status["processedImages"], status["totalImages"]
            if done // _LINE_EVERY > last // _LINE_EVERY or done == total > last:
                last = done
                console.print(f"  {done} of {total} images, {status['status']}")

        yield say
        return
    columns = (TextColumn("  {task.description:10}"), BarColumn(40), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("PENDING", total=None)
        yield lambda status: bar.update(
            task,
            description=status["status"],
            completed=status["processedImages"],
            total=status["totalImages"],
        )


def results(console: Console, outcome: Outcome) -> None:
    """Every image with its bytes before and after, and why some have none."""
    _heading(console, "Images")
    console.print(_LINE.format("", "", "Pixels", "Bytes before", "After", "Saved"), style="dim")
    for product, pictures in outcome.products:
        console.print(f"  {product.serial_number}  {product.name}", style="bold", markup=False)
        for picture in pictures:
            style = "red" if picture.error else None
            console.print(_row(picture), style=style, markup=False, soft_wrap=True)
    _heading(console, "Errors")
    for picture in outcome.refused:
        error = picture.image["error"]
        console.print(f"  {picture.sample.name}: {error['code']}. {error['detail']}", markup=False)


def messages(console: Console, outcome: Outcome) -> None:
    """The webhooks and the report, as a client gets them."""
    for delivery in outcome.deliveries:
        verdict = "signature verified" if delivery.verified else "WRONG SIGNATURE"
        _heading(console, f"Webhook, as received ({verdict})")
        for name, value in delivery.headers.items():
            console.print(f"  {name}: {value}", markup=False, soft_wrap=True)
        body = json.dumps(delivery.content, indent=2)
        console.print(_indented(body), markup=False, soft_wrap=True)
    _heading(console, "Report, as downloaded (long lines are cut here)")
    for line in outcome.report.splitlines():
        more = len(line) - _CUT
        shown = f"{line[:_CUT]} … {more:,} more characters" if more > 0 else line
        console.print(f"  {shown}", markup=False, soft_wrap=True)


def totals(console: Console, outcome: Outcome, whole_s: float) -> None:
    """What was done, in how much time, at what cost."""
    before = sum(picture.bytes_before for picture in outcome.made)
    after = sum(picture.bytes_after for picture in outcome.made)
    made, refused = len(outcome.made), len(outcome.refused)
    lines = [
        f"{made} images stored, {refused} refused: {outcome.status['status']}",
        f"{before:,} bytes before, {after:,} after: {saved(before, after)} saved",
        f"{outcome.work_s:.1f} s from upload to webhook, {whole_s:.1f} s for the whole demo",
    ]
    if outcome.cpu_s is None or outcome.peak_rss_bytes is None:
        lines.append("CPU and memory not measured: that takes Linux' /proc")
    else:
        memory = outcome.peak_rss_bytes / 1e6
        lines.append(f"{outcome.cpu_s:.1f} s of CPU and at most {memory:.0f} MB of memory (RSS)")
        lines.append("in all processes of the service, its start included, its servers not")
    _heading(console, "Totals")
    for line in lines:
        console.print(f"  {line}")


def verdict(console: Console, expectations: Sequence[Expectation]) -> None:
    """Each expectation, kept or not."""
    _heading(console, "Expectations")
    for expectation in expectations:
        mark, style = ("✓", "green") if expectation.held else ("✗", "bold red")
        console.print(Text.assemble("  ", (mark, style), f" {expectation.text}"))
        reasons = [reason[:_CUT] for reason in expectation.against]
        if len(reasons) > _REASONS:
            reasons[_REASONS:] = [f"and {len(reasons) - _REASONS} more"]
        for reason in reasons:
            console.print(f"      {reason}", markup=False, style="red", soft_wrap=True)
    held = sum(expectation.held for expectation in expectations)
    style = "bold green" if held == len(expectations) else "bold red"
    console.print(f"\n{held} of {len(expectations)} expectations held.", style=style)


def saved(before: int, after: int) -> str:
    """How much smaller, in percent."""
    return f"{100 * (before - after) / max(before, 1):.0f} %"


def _row(picture: Picture) -> str:
    name, before, after = picture.sample.name, picture.bytes_before, picture.bytes_after
    image = picture.image
    if picture.error:
        return _LINE.format(name, "", picture.error, "", "", "").rstrip()
    return _LINE.format(
        name,
        str(image["format"]),
        f"{image['width']} x {image['height']}",
        f"{before:,}",
        f"{after:,}",
        saved(before, after),
    )


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, "bold underline"))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
