"""What can be said about the container files without an engine to run them."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgsvc.embedded.ports import free_ports
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime.settings import PLAIN_NAMES
from tests.contract.documents import ASKED, blocks

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVERS = {"MONGO_URI", "MONGODB_URI", "REDIS_URL", "REDIS_HOST", "REDIS_PORT"}


def env_file() -> dict[str, str]:
    """The user's own ``.env``, as it was asked for."""
    [text] = blocks(ASKED, "ini")
    return dict(line.split("=", 1) for line in text.splitlines())


def instructions(stage: int = -1) -> list[tuple[str, str]]:
    """The instructions of one stage of the Dockerfile, the last if not told otherwise."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    all_of_them = [tuple(line.split(maxsplit=1)) for line in lines if line]
    starts = [i for i, (word, _) in enumerate(all_of_them) if word == "FROM"]
    return all_of_them[starts[stage] : [*starts[1:], None][stage]]


def only(word: str) -> str:
    (value,) = (rest for name, rest in instructions() if name == word)
    return value


def command() -> list[str]:
    return json.loads(only("CMD"))


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in only("ENV").split())


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def service_environment(given: dict[str, str]) -> dict[str, str]:
    """The environment of the service `imgsvc` as compose fills it in.

    Args:
        given: the variables of the shell in which compose is called.
    """

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        missing = name not in given or (operator == ":-" and not given[name])
        return default if missing else given[name]

    declared = compose()["services"]["imgsvc"]["environment"]
    innermost = re.compile(r"\$\{(\w+)(:?-)([^${}]*)\}")
    filled = {}
    for name, text in declared.items():
        filled[name] = str(text)
        while innermost.search(filled[name]):
            filled[name] = innermost.sub(value, filled[name])
    return filled


@pytest.mark.skipif(not (BIN / "hadolint").exists(), reason="no hadolint wheel for this platform")
def test_hadolint_finds_nothing():
    done = subprocess.run(
        [BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_process_is_reached_by_signals_and_is_not_root():
    assert command() == ["imgsvc", "serve"]  # JSON, so the exec form
    assert only("USER") == "10001:10001"
    assert "/readyz" in only("HEALTHCHECK")


def test_the_last_stage_installs_nothing():
    text = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert not re.search(r"\b(apt|apt-get|pip|gcc|make)\b", text)
    builds = " ".join(rest for word, rest in instructions(0) if word == "RUN")
    assert "--require-hashes" in builds


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client")
def test_docker_reads_the_compose_file():
    docker = [shutil.which("docker"), "compose"]
    if subprocess.run([*docker, "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client has no compose")
    subprocess.run([*docker, "config", "--quiet"], cwd=ROOT, check=True)


def test_any_number_of_replicas_stand_behind_one_port():
    services = compose()["services"]
    assert services["proxy"]["ports"] == ["${PORT:-3000}:3000"]
    assert "ports" not in services["imgsvc"]
    assert "container_name" not in services["imgsvc"]
    conf = (ROOT / "deploy/nginx.conf").read_text()
    assert "server imgsvc:3000 resolve;" in conf


def test_every_service_is_checked_and_is_waited_for_until_healthy():
    services = compose()["services"]
    for name, service in services.items():
        assert name == "imgsvc" or "test" in service["healthcheck"], name
        waits = service.get("depends_on", {})
        assert all(on["condition"] == "service_healthy" for on in waits.values())
    assert set(services["imgsvc"]["depends_on"]) == {"redis", "mongo", "gcs"}
    assert services["imgsvc"]["stop_grace_period"] == "30s"
    assert services["imgsvc"]["read_only"] is True


def test_redis_keeps_its_data_and_evicts_nothing():
    redis = " ".join(compose()["services"]["redis"]["command"])
    assert "--appendonly yes" in redis
    assert "--maxmemory-policy noeviction" in redis


def test_mongo_is_a_replica_set_of_one():
    mongo = compose()["services"]["mongo"]
    assert mongo["command"][:3] == ["mongod", "--replSet", "rs0"]
    assert "rs.initiate" in mongo["healthcheck"]["test"][-1]
    assert service_environment({})["MONGO_URI"].endswith("?replicaSet=rs0")


def test_the_key_is_mounted_and_may_be_missing():
    # A bind mount of a missing file would make a folder of that name, so its parent is mounted.
    assert "./config:/app/config:ro" in compose()["services"]["imgsvc"]["volumes"]
    assert "*" in (ROOT / "config/.gitignore").read_text().splitlines(), "keys stay out of the repo"


def test_the_spool_is_not_shared_between_replicas():
    spool = image_environment()["IMGSVC_SPOOL__DIR"]
    assert spool == only("VOLUME")
    assert spool in compose()["services"]["imgsvc"]["volumes"], "an anonymous volume"


def test_an_empty_emulator_host_means_the_real_bucket():
    assert service_environment({})["STORAGE_EMULATOR_HOST"] == "http://gcs:4443"
    real = service_environment({"STORAGE_EMULATOR_HOST": "", "GCP_BUCKET_NAME": "pictures"})
    assert (real["STORAGE_EMULATOR_HOST"], real["GCP_BUCKET_NAME"]) == ("", "pictures")


def test_what_may_be_said_without_a_container_may_be_said_to_compose():
    for name in PLAIN_NAMES.keys() - SERVERS - {"PORT"}:
        assert service_environment({name: "said"})[name] == "said", name
    assert "PORT" not in service_environment({"PORT": "80"}), "it is the proxy's"


def test_the_servers_of_a_run_without_containers_are_not_looked_for_inside_one():
    given = env_file()
    filled = service_environment(given)
    assert filled["GCP_BUCKET_NAME"] == given["GCP_BUCKET_NAME"]
    assert {name: filled.get(name) for name in SERVERS} == {
        "MONGO_URI": "mongodb://mongo:27017/?replicaSet=rs0",
        "MONGODB_URI": None,
        "REDIS_URL": None,
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
    }


def test_what_runs_in_the_container_is_what_was_tested():
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), flags=re.MULTILINE))

    assert pins("requirements/runtime.txt") <= pins("requirements/dev.txt")


async def test_the_command_serves_with_the_environment_of_the_compose_file(tmp_path: Path):
    async with EmbeddedServers(tmp_path / "servers") as servers:
        at = servers.endpoints
        (port,) = free_ports(1)
        environment = {
            **image_environment(),
            **service_environment({"STORAGE_EMULATOR_HOST": at.gcs_url}),
            "MONGO_URI": at.mongo_uri,
            "REDIS_HOST": at.redis_host,
            "REDIS_PORT": str(at.redis_port),
            "PATH": os.environ["PATH"],
            "PORT": str(port),
            "IMGSVC_SPOOL__DIR": str(tmp_path / "spool"),
        }
        # As the compose file's emulator does: a folder is a bucket.
        (tmp_path / "servers/gcs" / environment["GCP_BUCKET_NAME"]).mkdir()
        program, *arguments = command()
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
                [BIN / program, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        try:
            await asyncio.to_thread(until_ready, process, port, tmp_path / "log")
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, 30)
        finally:
            process.kill()
            process.wait()
        assert code == 0, (tmp_path / "log").read_text()


def until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    answer: object = None
    for _ in range(900):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            answer = error.read()
        except OSError as error:
            answer = error
        time.sleep(0.1)
    pytest.fail(f"not ready in 90 s: {answer!r}\n{log.read_text()}")
