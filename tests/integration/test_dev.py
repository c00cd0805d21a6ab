"""``imgsvc dev`` and ``imgsvc serve`` as a user runs them: commands, signals, exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
import pytest

from tests.conftest import free_port

IMGSVC = (sys.executable, "-m", "imgsvc")


@contextmanager
def dev(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """``imgsvc dev`` in a folder; killed at the end if it still runs."""
    environment = {**os.environ, "PORT": str(port), "IMGSVC_SPOOL__DIR": str(folder / "files")}
    with (folder / "out.log").open("ab") as log:
        process = subprocess.Popen(
            [*IMGSVC, "dev"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        eventually(lambda: call(port, "/readyz") is not None, f"ready: {folder}/out.log")
        yield process
    finally:
        process.kill()
        process.wait()


def call(port: int, path: str, body: object = None) -> dict[str, object] | None:
    """The JSON that a service answers, or None if it does not."""
    data = orjson.dumps(body) if body else None
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            answer: dict[str, object] = orjson.loads(response.read())
            return answer
    except OSError:
        return None


def eventually(condition: Callable[[], bool], what: str, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_dev_keeps_its_data_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
    body = {
        "products": [
            {"serialNumber": "1", "productName": "A", "inputUrls": ["http://127.0.0.1:9/a.jpg"]}
        ]
    }
    with dev(tmp_path, port) as process:
        accepted = call(port, "/api/upload", body)
        assert accepted
        children = family(process)
        assert len(children) >= 4  # three servers and at least one worker
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        eventually(lambda: gone(children), "all children are gone", 5)
    with dev(tmp_path, port) as process:
        assert call(port, f"/status/{accepted['requestId']}")
        process.terminate()
        assert process.wait(20) == 0
    assert b"For development only" in (tmp_path / "out.log").read_bytes()


def test_dev_that_is_killed_takes_its_children_with_it(tmp_path: Path) -> None:
    with dev(tmp_path, free_port()) as process:
        children = family(process)
        process.kill()
        eventually(lambda: gone(children), "all children are gone", 10)
        assert len(list((tmp_path / "files").iterdir())) == 1
    # Its spool could not be removed by anyone then; the next start sweeps it.
    with dev(tmp_path, free_port()) as process:
        process.terminate()
        assert process.wait(20) == 0
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"PORT": "99999"}, "PORT = '99999'"),
        ({"IMGSVC_CODEC__WORKERS": "two"}, "IMGSVC_CODEC__WORKERS = 'two'"),
        ({"IMGSVC_HTTP__HOST": "0.0.0.0"}, "IMGSVC_AUTH__MODE=none"),
        ({"GCP_KEY_BASE64": "c2VjcmV0"}, "GCP_KEY_BASE64 = ***"),
        ({"IMGSVC_SPOOL__DIR": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    done = subprocess.run(
        [*IMGSVC, "serve"],
        cwd=tmp_path,
        env={
            **os.environ,
            "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
            "IMGSVC_SPOOL__DIR": str(tmp_path / "spool"),
            **environment,
        },
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode != 0
    said = done.stderr.decode()
    assert told in said.replace("\n", " ")
    assert "Traceback" not in said


def test_the_settings_in_force_are_printed_without_secrets(tmp_path: Path) -> None:
    done = subprocess.run(
        [*IMGSVC, "config"],
        cwd=tmp_path,
        env={**os.environ, "MONGO_URI": "mongodb://user:hunter2@db/", "PORT": "4711"},
        capture_output=True,
        check=True,
    )
    assert b"port = 4711" in done.stdout
    assert b"hunter2" not in done.stdout + done.stderr
