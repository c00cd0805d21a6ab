"""``imgsvc demo``: real photographs through the whole service, and a look at what comes out.

Everything is real but its size: ``imgsvc serve`` in a process of its own, the embedded servers, an
origin to fetch from and a receiver for the webhook, all on this machine and gone afterwards.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console

from imgsvc.demo import expectations, sheet, show
from imgsvc.demo.origin import origin
from imgsvc.demo.outcome import Outcome, Picture
from imgsvc.demo.receiver import Receiver
from imgsvc.demo.samples import PhotographsMissingError, Product, catalogue
from imgsvc.demo.service import Service
from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.webhooks.signature import new_secret

_LOG, _REPORT, _WEBHOOK, _SHEET = "service.log", "report.csv", "webhook.json", "before-after.png"
_STOPPED = 130  # as shells report Ctrl-C


def main(folder: Path) -> int:
    """Runs the demo.

    Args:
        folder: where its files go.

    Returns:
        The exit code: 0 only if every expectation held.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no ✓
    console = Console(highlight=False)
    try:
        return 0 if uvloop.run(_until_stopped(folder.resolve(), console)) else 1
    except asyncio.CancelledError:
        console.print("Stopped; nothing is left running.")
        return _STOPPED
    except (EmbeddedError, PhotographsMissingError, aiohttp.ClientError) as error:
        console.print(f"The demo cannot go on: {error}", style="red", markup=False, soft_wrap=True)
        return 1


async def _until_stopped(folder: Path, console: Console) -> bool:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run(folder, console)


async def run(folder: Path, console: Console) -> bool:
    """Runs the demo and shows it.

    Args:
        folder: where its files go.
        console: where it is shown.

    Returns:
        Whether every expectation held.

    Raises:
        PhotographsMissingError: the packages with the photographs are not installed.
        EmbeddedError: a server or the service does not start or does not come to an end.
        aiohttp.ClientError: the service does not answer.
    """
    started = time.monotonic()
    await asyncio.to_thread(_clear, folder)
    console.print(
        "Real photographs through the whole service, on this machine alone.", style="bold"
    )
    products = await asyncio.to_thread(catalogue)
    with tempfile.TemporaryDirectory(prefix="imgsvc-demo-", ignore_cleanup_errors=True) as data:
        outcome = await _work(products, Path(data), folder / _LOG, console)
    _write(outcome, folder)
    judged, _ = await asyncio.gather(
        asyncio.to_thread(expectations.judged, outcome),
        asyncio.to_thread(sheet.draw, outcome, folder / _SHEET),
    )
    show.results(console, outcome)
    show.messages(console, outcome)
    show.totals(console, outcome, time.monotonic() - started)
    show.verdict(console, judged)
    console.print(f"Look at {folder / _SHEET}", markup=False, soft_wrap=True)
    console.print(f"Beside it: {_REPORT}, {_WEBHOOK}, {_LOG}")
    return all(expectation.held for expectation in judged)


async def _work(products: list[Product], data: Path, log: Path, console: Console) -> Outcome:
    """Everything from starting the servers to stopping them."""
    secret = new_secret()
    receiver = Receiver(secret)
    samples = [sample for product in products for sample in product.samples]
    async with (
        EmbeddedServers(data) as servers,
        origin(samples) as origin_url,
        receiver.listening() as webhook_url,
    ):
        service = Service(servers.endpoints, data / "spool", secret, log)
        async with service.running() as client:
            console.print(f"  imgsvc serve is ready at {service.url}")
            started = time.monotonic()
            request_id = await client.upload(products, origin_url, webhook_url)
            console.print(
                f"  posted {len(products)} products with {len(samples)} images: {request_id}"
            )
            with show.progress(console) as shown:
                async for status in client.follow(request_id):
                    shown(status)
            work_s = time.monotonic() - started
            images = await client.images(request_id)
            results = await asyncio.gather(*(client.result(i["outputUrl"]) for i in images))
            report = await client.report(request_id)
    pictures = iter([Picture(*each) for each in zip(samples, images, results, strict=True)])
    return Outcome(
        products=[(product, [next(pictures) for _ in product.samples]) for product in products],
        status=status,
        report=report,
        # The service is gone by now: if there was a second one, it is here.
        deliveries=receiver.deliveries,
        service_log=await asyncio.to_thread(log.read_text),
        exit_code=service.exit_code,
        work_s=work_s,
        cpu_s=service.meter.cpu_s,
        peak_rss_bytes=service.meter.peak_rss_bytes,
    )


def _clear(folder: Path) -> None:
    """Makes the folder and removes what an earlier run left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_LOG, _REPORT, _WEBHOOK, _SHEET):
        (folder / name).unlink(missing_ok=True)


def _write(outcome: Outcome, folder: Path) -> None:
    (folder / _REPORT).write_bytes(outcome.report.encode())
    came = [
        {"verified": delivery.verified, "headers": delivery.headers, "body": delivery.content}
        for delivery in outcome.deliveries
    ]
    (folder / _WEBHOOK).write_text(json.dumps(came, indent=2) + "\n")
