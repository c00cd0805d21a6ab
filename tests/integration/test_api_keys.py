"""``imgsvc keys``: made, listed and revoked by an operator beside the running service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from imgsvc.auth import credentials
from imgsvc.cli.main import cli
from tests.integration.test_dead_letters import imgsvc
from tests.support import Service, wait_until


def row(listing: str, key_id: str) -> list[str]:
    """What the table says of a key."""
    line = next(line for line in listing.splitlines() if key_id in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


async def status_with(service: Service, path: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with service.session.get(f"{service.url}{path}", headers=headers) as response:
        return int(response.status)


async def test_a_key_is_shown_once_lets_in_and_is_revoked(start_service: Any) -> None:
    service = await start_service(auth={"mode": "keys"})
    told = await imgsvc(service, "keys", "create", "acme", "--scope", "read", "--days", "30")
    key = next(word for word in told.split() if word.startswith("isk_"))
    credential = credentials.parse(key)
    assert credential
    day = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    assert f"For acme, allows read, expires {day}" in told
    assert await status_with(service, "/api/requests", key) == 200
    assert await status_with(service, "/metrics", key) == 403

    async def used() -> bool:
        listing = await imgsvc(service, "keys", "list")
        return row(listing, credential.id)[5] != "never"

    await wait_until(used, "the list tells of its use")
    listing = await imgsvc(service, "keys", "list")
    assert row(listing, credential.id)[1:3] == ["acme", "read"]
    assert row(listing, credential.id)[6] == "live"
    assert credential.secret not in listing

    assert await imgsvc(service, "keys", "revoke", credential.id) == "0: "

    async def refused() -> bool:
        return await status_with(service, "/api/requests", key) == 401

    await wait_until(refused, "the key lets in no more", within_s=7)
    assert row(await imgsvc(service, "keys", "list"), credential.id)[6] == "revoked"
    assert await imgsvc(service, "keys", "revoke", credential.id) == "0: ", "it is so already"


async def test_keys_are_listed_for_one_tenant(service: Service) -> None:
    assert await imgsvc(service, "keys", "list") == "0: There are none.\n"
    acme = await imgsvc(service, "keys", "create", "acme")
    globex = await imgsvc(service, "keys", "create", "globex", "--scope", "admin")
    assert "For acme, allows read, upload, expires never" in acme
    assert "[auth] mode says that keys are not asked for" in acme
    listing = await imgsvc(service, "keys", "list", "--tenant", "globex")
    assert globex.split("isk_")[1].split("_")[0] in listing
    assert acme.split("isk_")[1].split("_")[0] not in listing


async def test_a_key_that_never_was_cannot_be_revoked(service: Service) -> None:
    told = await imgsvc(service, "keys", "revoke", "0123456789abcdef")
    assert told.startswith("1: ")
    assert "There is no key 0123456789abcdef." in told


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["a b"], "letters, digits"),
        (["-x"], "No such option"),
        (["a" * 101], "up to 100"),
        (["acme\n"], "letters, digits"),
        (["acme", "--scope", "root"], "'upload', 'read', 'admin'"),
        (["acme", "--days", "0"], "greater than or equal to 1"),
    ],
)
def test_what_makes_no_key_is_refused_with_what_would(wrong: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, ["keys", "create", *wrong], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert told in result.stderr
