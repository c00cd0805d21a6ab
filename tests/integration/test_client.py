"""The client's commands as a user types them, against a real service."""

from __future__ import annotations

import asyncio
import csv
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support import Origin, Receiver, Service, wait_until

HEADER = "Serial Number,Product Name,Input Image Urls\n"


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Shell:
    """Where commands are typed.

    Args:
        folder: the working directory.
        server: that they talk to.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server

    async def start(self, *words: str, **streams: Any) -> asyncio.subprocess.Process:
        streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE} | streams
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "imgsvc", *words),
            cwd=self.folder,
            env={**os.environ, "IMGSVC_SERVER": self.server, "TERM": "xterm", "COLUMNS": "100"},
            stdin=asyncio.subprocess.DEVNULL,
            **streams,
        )

    async def run(self, *words: str) -> Ran:
        """Run ``imgsvc`` with these words to its end."""
        process = await self.start(*words)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    def file(self, name: str, content: str) -> str:
        """A file to submit."""
        (self.folder / name).write_text(content)
        return name


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> Shell:
    """A shell whose commands talk to the service."""
    folder = tmp_path / "home"
    folder.mkdir()
    return Shell(folder, service.url)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Submitting.


async def test_a_catalogue_is_submitted_watched_told_and_saved(
    shell: Shell, service: Service, origin: Origin
) -> None:
    catalogue = shell.file(
        "products.csv",
        HEADER
        + f'SKU-1,Rocket,"{origin.url("rocket.jpg")}, {origin.url("gone.jpg")}"\n'
        + f'SKU-2,Cat,"{origin.url("chelsea.png")}"\n',
    )
    ran = await shell.run(
        *("submit", catalogue, "--option", "format=webp", "--out", "report.csv"),
        *("--download", "results"),
    )
    assert ran.code == 3, ran
    request_id, *told = ran.out.splitlines()
    assert told[0] == "PARTIAL: 3 images, 2 completed, 1 failed"
    assert "saved" in told[1]
    assert "FETCH_STATUS" in ran.out
    assert "PARTIAL: 3 of 3 images" in ran.err
    assert f"imgsvc retry {request_id}\n" in ran.err
    assert "\x1b" not in ran.out + ran.err  # nothing but plain lines

    with (shell.folder / "report.csv").open(newline="") as report:
        rows = list(csv.DictReader(report))
    assert [row["Error Codes"] for row in rows] == [", FETCH_STATUS", ""]
    images = await service.images(request_id)
    assert files(shell.folder / "results") == ["SKU-1/0.webp", "SKU-2/0.webp"]
    for name, image in (("SKU-1/0.webp", images[0]), ("SKU-2/0.webp", images[2])):
        saved = (shell.folder / "results" / name).read_bytes()
        assert saved == await service.stored(image["outputUrl"])


async def test_without_waiting_the_id_alone_goes_to_standard_output(
    shell: Shell, service: Service, origin: Origin, receiver: Receiver
) -> None:
    ran = await shell.run(
        *("submit", origin.url("rocket.jpg"), origin.url("coffee.png"), "--webhook", receiver.url)
    )
    assert ran.code == 0, ran
    request_id = ran.out.strip()
    assert f"imgsvc status {request_id}\n" in ran.err
    await service.announced(request_id)
    assert len(receiver.received) == 1
    images = await service.images(request_id)
    assert [(i["serialNumber"], i["productName"]) for i in images] == [
        ("1", "rocket.jpg"),
        ("2", "coffee.png"),
    ]


async def test_the_exit_code_says_how_it_ended(shell: Shell, origin: Origin) -> None:
    good, bad = origin.url("rocket.jpg"), origin.url("gone.jpg")
    body = {"products": [{"serialNumber": "1", "productName": "A", "inputUrls": [good]}]}
    upload = shell.file("upload.json", orjson.dumps(body).decode())
    assert (await shell.run("submit", upload, "--wait")).code == 0
    failed = await shell.run("submit", bad, "--wait")
    assert (failed.code, "FAILED: 1 image" in failed.out) == (1, True)


async def test_what_is_refused_is_told_place_by_place(shell: Shell, service: Service) -> None:
    catalogue = shell.file("bad.csv", HEADER + "1,,https://example.com/a\n,B,ftp://example.com\n")
    ran = await shell.run("submit", catalogue, "--wait")
    assert (ran.code, ran.out) == (1, "")
    assert "  line 2 Product Name: is empty; fill it in or remove the line\n" in ran.err
    assert "  line 3 inputUrls 0: The URL must start with" in ran.err
    for words, said in (
        (["nothing.csv"], "nothing.csv"),
        (["https://example.com/a", catalogue], "not both"),
        ([catalogue, "--option", "quality"], "quality=80"),
        ([catalogue, "--server", "localhost:3000"], "is no http"),
    ):
        ran = await shell.run("submit", *words)
        assert (ran.code != 0, said in ran.err.replace("\n", " ")) == (True, True), ran
        assert "Traceback" not in ran.err
    assert (await service.get("/api/requests"))[1]["requests"] == []


async def test_on_a_terminal_there_is_a_bar(shell: Shell, origin: Origin) -> None:
    ours, theirs = pty.openpty()
    process = await shell.start("submit", origin.url("rocket.jpg"), "--wait", stderr=theirs)
    os.close(theirs)
    assert process.stdout
    out = await process.stdout.read()
    assert await asyncio.wait_for(process.wait(), 30) == 0
    shown = await asyncio.to_thread(_all_of, ours)
    assert "━" in shown
    assert "1/1" in shown
    assert b"COMPLETED: 1 image" in out


def _all_of(terminal: int) -> str:
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # how a terminal says that nobody writes any more
        pass
    os.close(terminal)
    return shown.decode()


async def test_ctrl_c_leaves_the_request_running_and_tells_the_way_back(
    shell: Shell, service: Service, origin: Origin
) -> None:
    released = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=origin.photo("rocket.jpg"))

    url = origin.add("held.jpg", held)
    process = await shell.start("submit", url, "--wait", "--download", "my results")
    assert process.stdout
    assert process.stderr
    request_id = (await process.stdout.readline()).decode().strip()
    await wait_until(_asked_for(origin, "held.jpg"), "the image is being fetched")
    assert b"0 of 1 image" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 130
    said = (await process.stderr.read()).decode()
    way_back = f"imgsvc status {request_id} --wait --download 'my results'"
    assert way_back in said
    assert "Traceback" not in said
    assert (await service.get(f"/status/{request_id}"))[1]["status"] == "PROCESSING"

    released.set()
    ran = await shell.run("status", request_id, "--wait", "--download", "my results")
    assert ran.code == 0, ran
    assert files(shell.folder / "my results") == ["1/0.jpg"]


def _asked_for(origin: Origin, name: str) -> Any:
    async def asked() -> bool:
        return name in origin.asked

    return asked


# Saving results.


async def test_a_download_goes_on_where_it_was(
    shell: Shell, service: Service, origin: Origin
) -> None:
    urls = [origin.url(name) for name in ("rocket.jpg", "coffee.png", "chelsea.png")]
    request_id = await service.upload([urls[:2], urls[2:]])
    await service.finished(request_id)
    first = await shell.run("status", request_id, "--download", "results")
    assert "3 files saved in results" in first.err
    results = shell.folder / "results"
    before = {name: (results / name).read_bytes() for name in files(results)}
    kept = (results / "1" / "0.jpg").stat().st_mtime_ns
    (results / "1" / "1.png").write_bytes(b"half")
    (results / "2" / "0.png").unlink()

    again = await shell.run("status", request_id, "--download", "results")
    assert (again.code, "2 files saved in results, 1 were there" in again.err) == (0, True), again
    assert {name: (results / name).read_bytes() for name in files(results)} == before
    assert (results / "1" / "0.jpg").stat().st_mtime_ns == kept


async def test_whatever_serial_numbers_say_nothing_is_written_outside(
    shell: Shell, service: Service, origin: Origin
) -> None:
    serials = ["../../evil", "/etc/evil", "..", "a/b", "a_b", "a_b", "\x1b]0;evil"]
    body = {
        "products": [
            {"serialNumber": s, "productName": "x", "inputUrls": [origin.url("rocket.jpg")]}
            for s in serials
        ]
    }
    _, answer = await service.post("/api/upload", json=body)
    ran = await shell.run("status", answer["requestId"], "--download", "results")
    assert ran.code == 0, ran
    names = ["_.._evil", "_etc_evil", "_", "a_b", "a_b (5)", "a_b (6)", "_]0;evil"]
    assert files(shell.folder) == sorted(f"results/{name}/0.jpg" for name in names)
    listed = await shell.run("images", answer["requestId"])
    assert "\x1b" not in listed.out


async def test_results_that_cannot_be_had_are_told_and_get_no_key(
    start_service: Any, tmp_path: Path, origin: Origin
) -> None:
    keys: list[str | None] = []

    async def gone(request: web.Request) -> web.Response:
        keys.append(request.headers.get("Authorization"))
        return web.Response(status=403)

    service: Service = await start_service(gcs={"public_url": f"{origin.base}/cdn"})
    request_id = await service.upload([[origin.url("rocket.jpg")]])
    await service.finished(request_id)
    [image] = await service.images(request_id)
    origin.add(image["outputUrl"].removeprefix(f"{origin.base}/"), gone)
    ran = await Shell(tmp_path, service.url).run(
        *("status", request_id, "--download", "results", "--key", "secret")
    )
    assert ran.code == 1
    assert "1 result could not be had, such as" in ran.err
    assert "403" in ran.err
    assert f"imgsvc status {request_id} --wait --download results" in ran.err
    assert keys == [None] * 4
    assert "secret" not in ran.out + ran.err
    assert files(tmp_path / "results") == []


# Calls that go wrong.


class Front:
    """A proxy in front of the service that does to calls what a test scripts.

    Args:
        service: where calls go on to.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.script: list[str] = []
        self.calls: list[tuple[str, str, str | None, str | None]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in ("Content-Type", "Idempotency-Key")
        }
        self.calls.append(
            (
                request.method,
                request.path,
                request.headers.get("Idempotency-Key"),
                request.headers.get("Authorization"),
            )
        )
        step = self.script.pop(0) if self.script else "pass"
        if step.isdecimal():
            return web.Response(status=int(step), headers={"Retry-After": "1"})
        if step == "away":
            return web.Response(status=503, headers={"Retry-After": "3600"})
        if step == "redirect":
            raise web.HTTPTemporaryRedirect("https://example.com/elsewhere")
        async with self._service.session.request(
            request.method,
            f"{self._service.url}{request.path_qs}",
            data=await request.read(),
            headers=headers,
        ) as response:
            body = await response.read()
        if step == "lose":
            assert request.transport
            request.transport.abort()
        return web.Response(
            body=b"<html>" if step == "garble" else body,
            status=response.status,
            content_type=response.content_type,
        )


@asynccontextmanager
async def standing(front: Front) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", front.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def front(service: Service) -> AsyncIterator[tuple[Front, str]]:
    """A proxy and its address."""
    made = Front(service)
    async with standing(made) as url:
        yield made, url


@pytest.mark.parametrize("source", ["csv", "json"])
async def test_a_post_whose_answer_is_lost_is_repeated_and_makes_one_request(
    tmp_path: Path, service: Service, front: tuple[Front, str], origin: Origin, source: str
) -> None:
    proxy, url = front
    shell = Shell(tmp_path, url)
    proxy.script = ["503", "lose", "429", "502", "pass", "lose", "503"]
    what = origin.url("rocket.jpg")
    if source == "csv":
        what = shell.file("a.csv", HEADER + f"1,A,{what}\n")
    ran = await shell.run("submit", what, "--wait", "--key", "secret")
    assert ran.code == 0, ran
    posts = [call for call in proxy.calls if call[0] == "POST"]
    assert len(posts) == 5
    assert len({key for _, _, key, _ in posts}) == 1
    assert posts[0][2]
    assert {who for _, _, _, who in proxy.calls} == {"Bearer secret"}
    assert "Trying again" in ran.err
    _, found = await service.get("/api/requests")
    assert [each["requestId"] for each in found["requests"]] == [ran.out.splitlines()[0]]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("redirect", "redirects to https://example.com/elsewhere"),
        ("garble", "What answers there is not imgsvc"),
        ("403", "Give a key with --key or in IMGSVC_KEY"),
    ],
)
async def test_what_repeating_cannot_mend_is_told_at_once(
    tmp_path: Path, front: tuple[Front, str], step: str, said: str
) -> None:
    proxy, url = front
    proxy.script = [step]
    ran = await Shell(tmp_path, url).run("requests")
    assert (ran.code, len(proxy.calls)) == (1, 1)
    assert said in ran.err


async def test_who_waits_is_told_the_way_back_when_the_service_goes_away(
    tmp_path: Path, service: Service, front: tuple[Front, str], origin: Origin
) -> None:
    proxy, url = front
    proxy.script = ["pass", "away"]
    ran = await Shell(tmp_path, url).run("submit", origin.url("rocket.jpg"), "--out", "report.csv")
    request_id = ran.out.strip()
    assert (ran.code, len(proxy.calls)) == (1, 2)
    assert f"To come back: imgsvc status {request_id} --wait --out report.csv" in ran.err
    await service.finished(request_id)


async def test_a_call_is_given_up_in_the_end(front: tuple[Front, str]) -> None:
    from yarl import URL

    from imgsvc.client.calls import Calls
    from imgsvc.client.server import CallError, Server

    proxy, url = front
    told: list[str] = []
    proxy.script = ["503"] * 9
    async with Calls(Server(URL(url)), told.append, patience_s=1.5) as calls:
        with pytest.raises(CallError):
            await calls.status("any")
    assert len(proxy.calls) == 2  # it waited for the second as long as it was asked to
    async with Calls(Server(URL("http://127.0.0.1:1")), told.append, patience_s=0.1) as calls:
        with pytest.raises(CallError, match="cannot be reached"):
            await calls.status("any")


# Looking.


async def test_requests_images_and_savings_are_listed(
    shell: Shell, service: Service, origin: Origin
) -> None:
    urls = [origin.url("rocket.jpg"), origin.url("gone.jpg")]
    ids = [await service.upload([urls]) for _ in range(3)]
    for request_id in ids:
        await service.finished(request_id)
    listed = (await shell.run("requests", "--limit", "2")).out.splitlines()
    assert [line.split()[:2] for line in listed] == [
        ["Request", "Status"],
        [ids[2], "PARTIAL"],
        [ids[1], "PARTIAL"],
    ]
    assert (await shell.run("requests", "--status", "completed")).out == ""
    images = (await shell.run("images", ids[0], "--status", "failed")).out.splitlines()
    assert len(images) == 2
    assert images[1].split() == ["1", "1", "FAILED", "FETCH_STATUS", urls[1]]
    as_json = (await shell.run("images", ids[0], "--json")).out.splitlines()
    assert [orjson.loads(line) for line in as_json] == await service.images(ids[0])
    shown = (await shell.run("status", ids[0])).out
    assert "Images    2 of 2, 1 failed\n" in shown
    report = await shell.run("report", ids[0])
    assert "PARTIAL: 2 images, 1 completed, 1 failed" in report.out
    assert "127.0.0.1:" in report.out
    found = orjson.loads((await shell.run("report", ids[0], "--json")).out)
    assert found == (await service.get(f"/api/requests/{ids[0]}/report"))[1]


async def test_failed_rows_are_saved_mended_and_submitted_again(
    shell: Shell, service: Service, origin: Origin
) -> None:
    request_id = await service.upload([[origin.url("rocket.jpg"), origin.url("gone.jpg")]])
    await service.finished(request_id)
    assert (await shell.run("report", request_id, "--failed", "--out", "failed.csv")).code == 0
    failed = shell.folder / "failed.csv"
    failed.write_text(failed.read_text().replace("gone.jpg", "coffee.png"))
    ran = await shell.run("submit", "failed.csv", "--wait")
    assert (ran.code, "COMPLETED: 1 image" in ran.out) == (0, True), ran


# Changing.


async def test_what_failed_is_tried_again_and_watched(
    shell: Shell, service: Service, origin: Origin
) -> None:
    request_id = await service.upload(
        [[origin.url("rocket.jpg"), origin.url("late.jpg")], [origin.url("late.jpg")]]
    )
    await service.finished(request_id)
    for words, said in ((["--code", "TOO_LARGE"], "failed"), (["--product", "9"], "failed")):
        ran = await shell.run("retry", request_id, *words)
        assert (ran.code, said in ran.err) == (1, True), ran
    origin.add("late.jpg", origin.photo("rocket.jpg"))
    ran = await shell.run("retry", request_id, "--product", "2", "--wait")
    assert (ran.code, "PARTIAL: 3 images, 2 completed, 1 failed" in ran.out) == (3, True), ran
    ran = await shell.run("retry", request_id, "--code", "FETCH_STATUS", "--download", "results")
    assert (ran.code, "COMPLETED: 3 images" in ran.out) == (0, True), ran
    assert files(shell.folder / "results") == ["1/0.jpg", "1/1.jpg", "2/0.jpg"]


async def test_a_retry_whose_answer_is_lost_is_not_repeated(
    tmp_path: Path, service: Service, front: tuple[Front, str], origin: Origin
) -> None:
    proxy, url = front
    request_id = await service.upload([[origin.url("gone.jpg")]])
    await service.finished(request_id)
    proxy.script = ["503", "lose"]
    ran = await Shell(tmp_path, url).run("retry", request_id)
    assert (ran.code, "cannot be reached" in ran.err) == (1, True), ran
    assert [path for _, path, _, _ in proxy.calls] == [f"/api/requests/{request_id}/retry"] * 2
    await service.finished(request_id)


async def test_a_request_is_cancelled_and_erased(
    shell: Shell, service: Service, origin: Origin
) -> None:
    released = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=origin.photo("rocket.jpg"))

    request_id = await service.upload([[origin.add("held.jpg", held)]])
    ran = await shell.run("cancel", request_id)
    assert (ran.code, "Accepted; its status is CANCELLED.\n" in ran.err) == (0, True), ran
    released.set()
    watched = await shell.run("status", request_id, "--wait")
    assert (watched.code, "CANCELLED: 1 image, 1 cancelled" in watched.out) == (1, True), watched

    asked = await shell.run("erase", request_id)  # there is nobody to say yes
    assert asked.code != 0
    assert (await service.get(f"/status/{request_id}"))[0] == 200
    assert (await shell.run("erase", request_id, "--yes")).code == 0
    ran = await shell.run("status", request_id)
    assert (ran.code, "erased" in ran.err) == (1, True), ran


async def test_what_is_not_there_is_told_in_a_line(shell: Shell) -> None:
    for words in (
        ["status", "nope"],
        ["images", "nope"],
        ["report", "nope"],
        ["status", "../metrics"],
    ):
        ran = await shell.run(*words)
        assert (ran.code, ran.out) == (1, ""), ran
        assert len(ran.err.splitlines()) == 1


async def test_the_clients_variables_do_not_stop_the_service(tmp_path: Path) -> None:
    ran = await Shell(tmp_path, "http://127.0.0.1:1").run("config")
    assert ran.code == 0, ran
