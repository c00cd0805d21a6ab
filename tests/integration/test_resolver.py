"""Names: looked up as the system does, bounded for each tenant, and never one behind another's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.identify import sniff
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.guard import BlockedError, Guard
from imgsvc.outbound.resolver import Resolver, on_behalf_of
from imgsvc.runtime.settings import Fetch, Net
from tests.name_server import FAILURE, NO_SUCH_NAME, REFUSED, NameServer
from tests.support import Origin, wait_until

LOOPBACK = ["127.0.0.0/8"]
Make = Callable[..., Resolver]


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    async with NameServer() as running:
        yield running


@pytest.fixture
async def resolver(name_server: NameServer) -> AsyncIterator[Make]:
    """Makes resolvers of settings of ``[net]``."""
    async with contextlib.AsyncExitStack() as stack:

        def make(**settings: Any) -> Resolver:
            net = Net.model_validate({"nameservers": [name_server.address], **settings})
            made = Resolver(Guard(net), net)
            stack.push_async_callback(made.close)
            return made

        yield make


async def look_up(resolver: Resolver, name: str, tenant: str = "somebody") -> list[str]:
    with on_behalf_of(tenant):
        found = await resolver.resolve(name, 80, socket.AF_UNSPEC)
    return [each["host"] for each in found]


# Whom names hold up


@pytest.mark.parametrize("tenant", ["hung", "another"])
async def test_names_that_hang_hold_up_no_other_name(
    name_server: NameServer, origin: Origin, tenant: str
) -> None:
    """Through the client, as images are fetched."""
    name_server.answers = lambda name: ["127.0.0.1"] if name == "pictures.example" else None
    net = Net.model_validate({"nameservers": [name_server.address], "allow": LOOPBACK})
    outbound = Outbound(net.model_copy(update={"resolve_s": 60.0}), Fetch(), sniff)
    hanging = [
        asyncio.create_task(
            outbound.download(f"http://n{n}.example/", ignore, tenant="hung"), name=f"n{n}"
        )
        for n in range(64)
    ]

    async def all_are_asked_for() -> bool:
        return len({name for name in name_server.asked if name.startswith("n")}) == 64

    try:
        await wait_until(all_are_asked_for, "all are asked for")
        url = origin.url("rocket.jpg").replace("127.0.0.1", "pictures.example")
        assert await outbound.download(url, ignore, tenant=tenant)
        assert not any(task.done() for task in hanging)
    finally:
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await outbound.close()


async def test_nobody_waits_for_a_name_behind_a_tenant_with_too_many(
    name_server: NameServer, origin: Origin
) -> None:
    """Both want the same name: one has no place to ask for it, the other has."""
    name_server.answers = lambda name: ["127.0.0.1"] if name == "pictures.example" else None
    net = Net.model_validate({"nameservers": [name_server.address], "allow": LOOPBACK})
    outbound = Outbound(net.model_copy(update={"resolve_s": 60.0}), Fetch(), sniff)
    url = origin.url("rocket.jpg").replace("127.0.0.1", "pictures.example")
    urls = [*(f"http://n{n}.example/" for n in range(128)), url]
    hanging = [asyncio.create_task(outbound.download(u, ignore, tenant="hung")) for u in urls]

    async def all_places_are_taken() -> bool:
        return len(set(name_server.asked)) == 128

    try:
        await wait_until(all_places_are_taken, "all places are taken")
        assert await outbound.download(url, ignore, tenant="another")
        assert not any(task.done() for task in hanging)
    finally:
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await outbound.close()


async def ignore(_: bytes) -> None: ...


async def test_one_tenant_asks_for_so_many_names_at_once(
    name_server: NameServer, resolver: Make
) -> None:
    """So that the name server has room for others, too; for each name there is no thread."""
    name_server.answers = lambda name: ["1.1.1.1"] if name == "quick.example" else None
    made = resolver(resolve_s=60)
    threads = threading.active_count()
    hanging = []
    for n in range(1000):
        hanging.append(asyncio.create_task(look_up(made, f"n{n}.example", "many names")))
        await asyncio.sleep(0)  # the server's buffer is small

    async def its_share_is_asked_for_again() -> bool:
        return all(name_server.asked.count(f"n{n}.example") > 1 for n in range(128))

    try:
        await wait_until(its_share_is_asked_for_again, "its share is asked for again")
        assert await look_up(made, "quick.example", "another") == ["1.1.1.1"]
        assert len(set(name_server.asked)) == 128 + 1
        assert threading.active_count() == threads
    finally:
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_who_waits_for_a_place_gets_it_when_a_name_is_given_up(
    name_server: NameServer, resolver: Make
) -> None:
    name_server.answers = lambda name: ["1.1.1.1"] if name == "quick.example" else None
    made = resolver(resolve_s=1)
    hanging = [asyncio.create_task(look_up(made, f"n{n}.example")) for n in range(300)]
    assert await look_up(made, "quick.example") == ["1.1.1.1"]
    ends = await asyncio.gather(*hanging, return_exceptions=True)
    assert {type(end) for end in ends} == {socket.gaierror}


# What is found


@pytest.mark.parametrize("answer", [NO_SUCH_NAME, FAILURE, REFUSED, [], None])
async def test_whatever_goes_wrong_it_is_a_failed_resolution(
    name_server: NameServer, answer: Any
) -> None:
    name_server.answers = lambda _: answer
    net = Net(nameservers=(name_server.address,), resolve_s=0.5)
    outbound = Outbound(net, Fetch(), sniff)
    with pytest.raises(ServiceError) as caught:
        await outbound.download("http://pictures.example/", ignore)
    assert caught.value.code is ErrorCode.DNS_FAILED
    assert name_server.asked
    await outbound.close()


async def test_a_name_may_take_all_of_its_time(name_server: NameServer, resolver: Make) -> None:
    """C-ares learns how quick a server is, and gives up soon when a quick one is not."""
    made = resolver(resolve_s=5)
    name_server.answers = lambda _: ["1.1.1.1"]
    for n in range(5):
        await look_up(made, f"n{n}.example")
    name_server.answers = lambda _: None
    slow = asyncio.create_task(look_up(made, "slow.example"))

    async def is_asked_for_again() -> bool:
        return name_server.asked.count("slow.example") > 4

    await wait_until(is_asked_for_again, "it is asked for again and again")
    name_server.answers = lambda _: ["1.1.1.1"]
    name_server.answer_late()
    assert await slow == ["1.1.1.1"]


async def test_both_families_are_found_and_silence_about_the_newer_is_no_failure(
    name_server: NameServer, resolver: Make
) -> None:
    name_server.answers = lambda _: ["1.1.1.1", "2606:4700::1111"]
    name_server.silent = {("half.example", socket.AF_INET6)}
    made = resolver()
    assert set(await look_up(made, "both.example")) == {"1.1.1.1", "2606:4700::1111"}
    assert await look_up(made, "half.example") == ["1.1.1.1"]


async def test_aliases_are_followed(name_server: NameServer, resolver: Make) -> None:
    chain = {"shop.example": ["cdn.example"], "cdn.example": ["edge.example"]}
    name_server.answers = lambda name: chain.get(name, ["1.1.1.1"])
    assert await look_up(resolver(), "shop.example") == ["1.1.1.1"]


@pytest.mark.parametrize("name", ["localhost", "localhost.", "LOCALHOST"])
async def test_localhost_is_this_machine_and_nobody_is_asked(
    name_server: NameServer, resolver: Make, name: str
) -> None:
    """What of it may be dialled is found, without the rest."""
    assert await look_up(resolver(allow=LOOPBACK), name) == ["127.0.0.1"]
    assert await look_up(resolver(allow=[*LOOPBACK, "::1/128"]), name) == ["127.0.0.1", "::1"]
    with pytest.raises(BlockedError):
        await look_up(resolver(), name)
    assert name_server.asked == []


async def test_the_hosts_file_comes_first(name_server: NameServer, resolver: Make) -> None:
    """As Docker's ``extra_hosts`` and each container's own name need it."""
    name, address = next(iter(_hosts().items()), ("", ""))
    if not name:
        pytest.skip("the hosts file has no name")
    assert address in await look_up(resolver(allow=["0.0.0.0/0", "::/0"]), name)
    assert name_server.asked == []


def _hosts() -> dict[str, str]:
    lines = Path("/etc/hosts").read_text().splitlines()
    entries = [line.partition("#")[0].split() for line in lines]
    return {name: entry[0] for entry in entries for name in entry[1:] if "localhost" not in name}


async def test_the_search_list_is_for_private_names_alone(
    name_server: NameServer, resolver: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes' and Docker's: ``receiver`` is found; without private networks no name is."""
    monkeypatch.setenv("LOCALDOMAIN", "shop.svc.cluster.example")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")
    name_server.answers = lambda name: ["127.0.0.9"] if name.endswith("cluster.example") else 3
    assert await look_up(resolver(allow=LOOPBACK), "receiver") == ["127.0.0.9"]
    assert name_server.asked == ["receiver.shop.svc.cluster.example"]
    name_server.asked.clear()
    for name in ("pictures.example", "pictures.example.", "receiver"):
        with pytest.raises(OSError, match="not found"):
            await look_up(resolver(), name)
    assert name_server.asked == ["pictures.example", "pictures.example", "receiver"]


async def test_aliases_of_the_environment_rename_no_host(
    name_server: NameServer, resolver: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "aliases").write_text("receiver elsewhere.example\n")
    monkeypatch.setenv("HOSTALIASES", str(tmp_path / "aliases"))
    name_server.answers = lambda _: ["127.0.0.1"]
    await look_up(resolver(allow=LOOPBACK), "receiver")
    assert "elsewhere.example" not in name_server.asked


async def test_no_cookies_are_sent(name_server: NameServer, resolver: Make) -> None:
    """A forwarder that forgets one would not be believed any more, and its names time out."""
    name_server.answers = lambda _: ["1.1.1.1"]
    await look_up(resolver(), "pictures.example")
    assert name_server.extended == 0


async def test_what_is_remembered_is_judged_again(name_server: NameServer, resolver: Make) -> None:
    name_server.ttl_s = 60
    name_server.answers = lambda _: ["1.1.1.1"]
    made = resolver()
    assert await look_up(made, "pictures.example") == ["1.1.1.1"]
    assert await look_up(made, "pictures.example") == ["1.1.1.1"]
    assert name_server.asked == ["pictures.example"]
    denied = Net.model_validate({"deny": ["1.1.1.1/32"]})
    made._guard = Guard(denied)
    with pytest.raises(BlockedError):
        await look_up(made, "pictures.example")
    assert name_server.asked == ["pictures.example"]


# The end


async def test_closing_ends_what_is_under_way_and_nothing_comes_later(
    name_server: NameServer, resolver: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    name_server.answers = lambda _: None
    made = resolver(resolve_s=60)
    hanging = [asyncio.create_task(look_up(made, f"n{n}.example")) for n in range(200)]

    async def some_are_asked_for() -> bool:
        return len(set(name_server.asked)) == 128

    await wait_until(some_are_asked_for, "some are asked for")
    hanging[0].cancel()
    await made.close()
    ends = await asyncio.gather(*hanging, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError, socket.gaierror}
    assert capfd.readouterr().err == ""
