"""Which variables are settings beside an orchestrator, and secrets that come in files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from imgsvc.runtime import settings
from imgsvc.runtime.settings import PLAIN_NAMES, Settings
from tests.unit.operator import complaint, with_env

pytestmark = pytest.mark.usefixtures("nothing_set")

# What Kubernetes puts beside a container for Services named imgsvc, imgsvc-http, redis and mongo;
# Docker's links add names and the other container's environment.
INJECTED = {
    "IMGSVC_PORT": "tcp://10.0.0.1:3000",
    "IMGSVC_PORT_3000_TCP": "tcp://10.0.0.1:3000",
    "IMGSVC_PORT_3000_TCP_ADDR": "10.0.0.1",
    "IMGSVC_PORT_3000_TCP_PORT": "3000",
    "IMGSVC_PORT_3000_TCP_PROTO": "tcp",
    "IMGSVC_SERVICE_HOST": "10.0.0.1",
    "IMGSVC_SERVICE_PORT": "3000",
    "IMGSVC_SERVICE_PORT_HTTP": "3000",
    "IMGSVC_HTTP_PORT": "tcp://[fd00::1]:3000",
    "IMGSVC_HTTP_PORT_53_UDP": "udp://10.0.0.1:53",
    "IMGSVC_HTTP_SERVICE_HOST": "10.0.0.1",
    "IMGSVC_HTTP_SERVICE_PORT": "3000",
    "IMGSVC_NAME": "/web/imgsvc",
    "IMGSVC_ENV_REDIS_PASSWORD": "x",
    "REDIS_PORT": "tcp://10.0.0.2:6379",
    "REDIS_PORT_6379_TCP": "tcp://10.0.0.2:6379",
    "REDIS_SERVICE_HOST": "10.0.0.2",
    "REDIS_SERVICE_PORT": "6379",
    "MONGO_PORT": "tcp://10.0.0.3:27017",
    "MONGO_SERVICE_HOST": "10.0.0.3",
    "HOSTNAME": "imgsvc-5d7f-x2x",
    "KUBERNETES_PORT": "tcp://10.0.0.4:443",
}


@pytest.mark.parametrize("name", INJECTED)
def test_what_an_orchestrator_injects_is_no_setting(name: str) -> None:
    assert with_env(**{name: INJECTED[name]}) == Settings()


def test_nor_is_all_of_it_together_nor_does_it_raise_a_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert with_env(**INJECTED) == Settings()
    for name, value in INJECTED.items():
        monkeypatch.setenv(name, value)
    assert settings.overlooked() == []


@pytest.mark.parametrize("name", ["PORT", "REDIS_HOST", "REDIS_PORT"])
@pytest.mark.parametrize("link", ["tcp://10.0.0.9:7", "TCP://h:7", "udp://[::1]:7", "sctp://h:7"])
def test_a_service_link_leaves_what_is_said_elsewhere(name: str, link: str) -> None:
    section, key = PLAIN_NAMES[name]
    said = {f"IMGSVC_{section}__{key}".upper(): "4321"}
    assert getattr(getattr(with_env(**{name: link}, **said), section), key) in (4321, "4321")
    assert with_env(**{name: link}) == Settings()


def test_a_host_that_is_said_holds_beside_a_link_for_the_port() -> None:
    made = with_env(REDIS_HOST="redis", REDIS_PORT="tcp://10.0.0.2:6379")
    assert (made.redis.host, made.redis.port) == ("redis", 6379)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("IMGSVC_HTTP_PORT", "8080", "IMGSVC_HTTP__PORT"),
        ("IMGSVC_PORT", "8080", "IMGSVC_<SECTION>__<KEY>"),
        ("IMGSVC_AUTH_MODE", "keys", "IMGSVC_AUTH__MODE"),
        ("imgsvc_webhook_delay_ms", "9", "IMGSVC_WEBHOOK__DELAY_MS"),
        ("IMGSVC_REDIS", "redis", "IMGSVC_<SECTION>__<KEY>"),
        ("IMGSVC_GCS_BUCKET", "pictures", "IMGSVC_GCS__BUCKET"),
    ],
)
def test_what_looks_like_a_slip_is_pointed_out_and_not_read(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: str
) -> None:
    monkeypatch.setenv(name, value)
    assert settings.load() == Settings()
    assert settings.overlooked() == [name]
    assert settings.meant_by(name) == meant


def test_names_of_the_client_and_of_the_file_are_no_slips(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMGSVC_CONFIG", "IMGSVC_SERVER", "IMGSVC_KEY"):
        monkeypatch.setenv(name, "x")
    assert settings.overlooked() == []


# Secrets in files.

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VALUES = {
    "PORT": "8080",
    "MONGO_URI": "mongodb://one:1/x",
    "MONGODB_URI": "mongodb://one:1/x",
    "REDIS_HOST": "redis",
    "REDIS_PORT": "8081",
    "REDIS_URL": "redis://user:hunter2@redis:6380/1",
    "GCP_PROJECT_ID": "project",
    "GCP_BUCKET_NAME": "bucket",
    "GCP_KEY_BASE64": "b25l",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "STORAGE_EMULATOR_HOST": "http://one:1",
    "WEBHOOK_RETRY_ATTEMPTS": "3",
    "WEBHOOK_RETRY_DELAY": "100",
    "IMGSVC_REDIS__PASSWORD": " hunter 2 ",
    "IMGSVC_WEBHOOK__SECRETS": json.dumps([SECRET]),
    "IMGSVC_GCS__CREDENTIALS_FILE": "/key.json",
    "IMGSVC_MONGO__URI": "mongodb://one:1/x",
    "IMGSVC_AUTH__PROTECT_DOCS": "true",
    "imgsvc_redis__password": "hunter2",
}


def in_file(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "secret"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("name", VALUES)
def test_every_setting_may_come_from_a_file(tmp_path: Path, name: str, end: str) -> None:
    suffix = "_FILE" if name.isupper() else "_file"
    from_file = with_env(**{name + suffix: in_file(tmp_path, VALUES[name] + end)})
    assert from_file == with_env(**{name: VALUES[name]})
    assert from_file != Settings()


def test_every_plain_name_is_tried() -> None:
    assert set(VALUES) > PLAIN_NAMES.keys()


def test_a_byte_order_mark_is_none_of_the_secret(tmp_path: Path) -> None:
    made = with_env(IMGSVC_REDIS__PASSWORD_FILE=in_file(tmp_path, b"\xef\xbb\xbfhunter2\r\n"))
    assert made.redis.password == SecretStr("hunter2")


def test_a_key_that_ends_in_file_is_the_setting_itself(tmp_path: Path) -> None:
    path = in_file(tmp_path, "{}")
    assert with_env(IMGSVC_GCS__CREDENTIALS_FILE=path).gcs.credentials_file == Path(path)


def test_the_name_and_its_file_are_not_both_read(tmp_path: Path) -> None:
    path = in_file(tmp_path, "hunter2")
    for name in ("MONGO_URI", "IMGSVC_REDIS__PASSWORD", "GCP_KEY_BASE64"):
        said = complaint(**{name: "hunter2", f"{name}_FILE": path})
        assert said == f"{name} and {name}_FILE are both set; leave one of them out"
        said = complaint(**{f"{name}_FILE": path, name: "hunter2"})
        assert "both set" in said


def test_an_empty_one_of_the_two_is_not_set(tmp_path: Path) -> None:
    path = in_file(tmp_path, "hunter2")
    hunter2 = SecretStr("hunter2")
    made = with_env(IMGSVC_REDIS__PASSWORD="", IMGSVC_REDIS__PASSWORD_FILE=path)
    assert made.redis.password == hunter2
    made = with_env(IMGSVC_REDIS__PASSWORD_FILE=path, IMGSVC_REDIS__PASSWORD="")
    assert made.redis.password == hunter2
    made = with_env(IMGSVC_REDIS__PASSWORD="hunter2", IMGSVC_REDIS__PASSWORD_FILE="")
    assert made.redis.password == hunter2
    assert with_env(GCP_KEY_BASE64="", GCP_KEY_BASE64_FILE=path).gcs.key_base64 == hunter2
    assert with_env(PORT="3001", PORT_FILE="").http.port == 3001


def test_two_names_of_a_setting_may_not_differ_in_files_either(tmp_path: Path) -> None:
    path = in_file(tmp_path, "mongodb://user:hunter2@one/x\n")
    assert with_env(MONGO_URI="mongodb://user:hunter2@one/x", MONGODB_URI_FILE=path)
    said = complaint(MONGO_URI="mongodb://two/x", MONGODB_URI_FILE=path)
    assert said == "MONGO_URI and MONGODB_URI_FILE differ; leave one of them out"


@pytest.mark.parametrize("name", ["MONGO_URI_FILE", "IMGSVC_REDIS__PASSWORD_FILE"])
def test_a_file_that_cannot_be_read_is_a_line(tmp_path: Path, name: str) -> None:
    assert (
        complaint(**{name: f"{tmp_path}/no"})
        == f"{name} = {tmp_path}/no: No such file or directory"
    )
    assert complaint(**{name: str(tmp_path)}).startswith(f"{name} = {tmp_path}: ")
    for content, reason in (
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "not UTF-8"),
        (b"hunter2\0", "NUL"),
        (b"hunter2" * 200_000, "more than"),
    ):
        path = in_file(tmp_path, content)
        said = complaint(**{name: path})
        assert said.startswith(f"{name} = {path}: ")
        assert reason in said
        assert "hunter2" not in said


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    said: list[str] = []
    asking = threading.Thread(
        target=lambda: said.append(complaint(MONGO_URI_FILE=pipe)), daemon=True
    )
    asking.start()
    asking.join(10)
    assert said == [f"MONGO_URI_FILE = {pipe}: not a regular file"]


def test_a_device_without_an_end_is_not_read() -> None:
    assert complaint(MONGO_URI_FILE="/dev/zero").endswith("not a regular file")


@pytest.mark.parametrize("secret", ["mongodb://user:hunter2@db/x", "hunter2"])
def test_a_secret_in_place_of_a_path_is_not_shown(secret: str) -> None:
    said = complaint(MONGO_URI_FILE=secret)
    assert said == "MONGO_URI_FILE = ***: No such file or directory"


def test_what_a_file_holds_is_not_shown_in_an_error(tmp_path: Path) -> None:
    path = in_file(tmp_path, "hunter2")
    for name in (
        "PORT",
        "IMGSVC_HTTP__PORT",
        "IMGSVC_LOG__LEVEL",
        "IMGSVC_NET__ALLOW",
        "MONGO_URI",
    ):
        said = complaint(**{f"{name}_FILE": path})
        assert said.startswith(f"{name}_FILE = ***: ")
        assert "hunter2" not in said


def test_a_file_for_what_is_no_setting_is_refused(tmp_path: Path) -> None:
    path = in_file(tmp_path, "hunter2")
    said = complaint(IMGSVC_REDIS__PASSWRD_FILE=path)
    assert said.startswith("IMGSVC_REDIS__PASSWRD_FILE: there is no such setting")
