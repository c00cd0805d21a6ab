"""An issuer's keys: fetched through the guard, seldom, once at a time, and kept when it is away."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from imgsvc.auth.jwks import FRESH_S, PAUSE_S, KeySet
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.identify import sniff
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.settings import Fetch, Net
from tests.issuer import Issuer, ec_key, public_jwk, rsa_key
from tests.support import wait_until

LOOPBACK = Net.model_validate({"allow": ["127.0.0.0/8"]})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(one=rsa_key()) as running:
        yield running


@pytest.fixture
async def key_set(issuer: Issuer) -> AsyncIterator[Callable[..., KeySet]]:
    """Makes key sets of the issuer."""
    outbound = Outbound(LOOPBACK, Fetch(), sniff)
    made: list[KeySet] = []

    def make(url: str | None = None, key_type: str = "RSA", **times: float) -> KeySet:
        made.append(KeySet(outbound, url or issuer.jwks_url, key_type, **times))
        return made[-1]

    yield make
    for each in made:
        await each.close()
    await outbound.close()


async def refused(keys: KeySet, kid: str = "one") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await keys.get(kid)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    return caught.value


async def test_keys_are_fetched_once_however_many_ask(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    issuer.delay_s = 0.2
    keys = key_set()
    found = await asyncio.gather(*(keys.get("one") for _ in range(50)))
    assert all(found)
    assert issuer.asked == 1
    assert await keys.get("one")
    assert issuer.asked == 1


async def test_one_who_goes_away_does_not_take_the_fetch_with_them(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    issuer.delay_s = 0.2
    keys = key_set()
    first, second = (asyncio.create_task(keys.get("one")) for _ in range(2))

    async def asked() -> bool:
        return issuer.asked == 1

    await wait_until(asked, "the fetch began")
    first.cancel()
    assert await second
    assert issuer.asked == 1


async def test_made_up_ids_do_not_have_the_issuer_asked_again(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    assert PAUSE_S >= 30
    keys = key_set()
    assert await keys.get("one")
    for number in range(100):
        assert await keys.get(f"made-up-{number}") is None
    assert issuer.asked == 1


async def test_a_new_key_is_found_when_it_is_asked_for(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    keys, new = key_set(pause_s=0.5), rsa_key()
    assert await keys.get("two") is None
    issuer.publish("two", new)
    assert await keys.get("two") is None, "not before the pause is over"

    async def found() -> bool:
        return await keys.get("two") is not None

    await wait_until(found, "the new key is known")
    assert issuer.asked == 2


async def test_old_keys_are_used_while_new_ones_are_fetched_and_then_forgotten(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    assert FRESH_S <= 3600
    keys = key_set(fresh_s=0.1, pause_s=0.1)
    assert await keys.get("one")
    issuer.members = [public_jwk(rsa_key(), "two")]
    issuer.delay_s = 0.3
    await asyncio.sleep(0.15)
    assert await asyncio.wait_for(keys.get("one"), 0.1), "nobody waits for the fetch"

    async def withdrawn() -> bool:
        return await keys.get("one") is None

    await wait_until(withdrawn, "a key that is not published any more is none")


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500},
        {"status": 302, "headers": {"Location": "/elsewhere"}},
        {"text": "no JSON"},
        {"text": "[]"},
        {"text": "{}"},
        {"text": '{"keys": []}'},
        {"text": '{"keys": "RSA"}'},
        {"text": '{"keys": [1, null, {}, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}]}'},
        {"text": "[" * 100_000},
        {"body": b"\xff\xfe"},
        {"body": b" " * 300_000},
        {"text": "{}", "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=lambda answer: str(answer)[:60],
)
async def test_what_is_no_key_set_changes_nothing(
    issuer: Issuer, key_set: Callable[..., KeySet], answer: dict[str, Any]
) -> None:
    keys, new = key_set(fresh_s=0, pause_s=0), key_set()
    assert await keys.get("one")
    before, issuer.answer = issuer.asked, functools.partial(web.Response, **answer)
    assert await keys.get("one")

    async def asked() -> bool:
        return issuer.asked > before

    await wait_until(asked, "the bad answer came")
    assert await keys.get("one")
    await keys.close()
    # And from nothing it is an error that says when to come again.
    wait_s = (await refused(new)).retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= PAUSE_S


async def test_an_issuer_that_is_away_is_not_asked_by_every_call(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    issuer.answer = functools.partial(web.Response, status=503)
    keys = key_set()
    for _ in range(20):
        await refused(keys)
    assert issuer.asked == 1


async def test_only_keys_of_the_type_that_sign_are_taken(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    issuer.members = [
        public_jwk(ec_key(), "ec"),
        public_jwk(rsa_key(), "encrypts", use="enc"),
        public_jwk(rsa_key(), "signs", use="sig"),
    ]
    keys = key_set(pause_s=0)
    assert await keys.get("signs")
    assert await keys.get("ec") is None
    assert await keys.get("encrypts") is None


async def test_without_an_id_it_is_the_only_key(
    issuer: Issuer, key_set: Callable[..., KeySet]
) -> None:
    assert await key_set().get(None)
    issuer.publish("two", rsa_key())
    assert await key_set().get(None) is None


async def test_the_guard_holds_for_the_issuer_too(issuer: Issuer) -> None:
    outbound = Outbound(Net(), Fetch(), sniff)
    keys = KeySet(outbound, issuer.jwks_url, "RSA")
    await refused(keys)
    assert issuer.asked == 0
    await keys.close()
    await outbound.close()


async def test_redirects_are_not_followed(issuer: Issuer, key_set: Callable[..., Any]) -> None:
    headers = {"Location": f"{issuer.jwks_url}?again"}
    issuer.answer = functools.partial(web.Response, status=307, headers=headers)
    await refused(key_set())
    assert issuer.asked == 1
