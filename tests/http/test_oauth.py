"""Who may come in with a token of an issuer."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsvc.auth import credentials
from imgsvc.auth.oauth import Tokens
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope
from imgsvc.imaging.identify import sniff
from imgsvc.ledger import Ledger
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.settings import Auth, Fetch, Net
from tests.issuer import Issuer, ec_key, ed_key, public_jwk, rsa_key
from tests.support import Origin, Service

ONE = rsa_key()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(one=ONE) as running:
        yield running


@pytest.fixture
async def guarded(start_service: Any, issuer: Issuer) -> Service:
    """A service that trusts the issuer."""
    made: Service = await start_service(auth=issuer.settings)
    return made


async def call(service: Service, token: str, path: str = "/api/requests") -> tuple[int, str, str]:
    """Status, body and challenge."""
    headers = {"Authorization": f"Bearer {token}"}
    async with service.session.get(f"{service.url}{path}", headers=headers) as response:
        challenge = response.headers.get("WWW-Authenticate", "")
        return response.status, await response.text(), challenge


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims)
    ]
    return ".".join([*parts, signature])


async def test_a_token_lets_in_for_its_subject_and_scopes(
    guarded: Service, issuer: Issuer, origin: Origin
) -> None:
    mine, other = issuer.token(), issuer.token(sub="user-2")
    guarded.session.headers["Authorization"] = f"Bearer {mine}"
    request_id = await guarded.upload([[origin.url("rocket.jpg")]])
    assert (await guarded.finished(request_id))["status"] == "COMPLETED"
    del guarded.session.headers["Authorization"]
    assert (await call(guarded, mine, f"/status/{request_id}"))[0] == 200
    assert (await call(guarded, other, f"/status/{request_id}"))[0] == 404
    status, body, challenge = await call(guarded, mine, "/metrics")
    assert (status, '"code":"FORBIDDEN"' in body) == (403, True)
    assert 'scope="admin"' in challenge
    assert (await call(guarded, issuer.token(scope="admin"), "/metrics"))[0] == 200
    assert issuer.asked == 1


NOW = int(time.time())
IN_A_WHILE = 3600
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": NOW - IN_A_WHILE}, "has expired"),
    "expired beyond the leeway": ({"exp": NOW - 35}, "has expired"),
    "never expires": ({"exp": None}, "lacks a claim"),
    "expires at a word": ({"exp": "never"}, "not valid"),
    "not valid yet": ({"nbf": NOW + IN_A_WHILE}, "not valid yet"),
    "from the future": ({"iat": NOW + IN_A_WHILE}, "not valid yet"),
    "another issuer": ({"iss": "https://evil.example"}, "another issuer"),
    "no issuer": ({"iss": None}, "lacks a claim"),
    "another audience": ({"aud": "https://other.example"}, "another audience"),
    "no audience": ({"aud": None}, "lacks a claim"),
    "part of the audience": ({"aud": "https://imgsvc"}, "another audience"),
    "nobody": ({"sub": None}, "lacks a claim"),
    "an empty subject": ({"sub": ""}, "not a usable name"),
    "a subject with a line break": ({"sub": "a\nb"}, "not a usable name"),
    "a very long subject": ({"sub": "x" * 256}, "not a usable name"),
    "an unknown key": ({"kid": "two", "key": rsa_key()}, "does not publish"),
    "another's key under a known id": ({"key": rsa_key()}, "not valid"),
    "an elliptic curve": ({"key": ec_key(), "algorithm": "ES256"}, "algorithm"),
    "a shared secret": ({"key": b"x" * 32, "algorithm": "HS256"}, "algorithm"),
    "padding of another family": ({"algorithm": "PS256"}, "algorithm"),
    "an unknown critical header": ({"headers": {"crit": ["x"], "x": 1}}, "not valid"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_token_that_is_wrong_is_refused_with_the_reason(
    guarded: Service, issuer: Issuer, wrong: str
) -> None:
    assert (await call(guarded, issuer.token()))[0] == 200
    said, reason = WRONG[wrong]
    if said.get("key") is None or said.get("algorithm") == "PS256":
        said = {**said, "key": ONE}
    status, body, challenge = await call(guarded, issuer.token(**said))
    assert (status, '"code":"UNAUTHENTICATED"' in body) == (401, True)
    assert reason in body
    assert 'error="invalid_token"' in challenge


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    guarded: Service, issuer: Issuer
) -> None:
    public = ONE.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    header = {"alg": "HS256", "typ": "JWT", "kid": "one"}
    text = unsigned(header, claims).rstrip(".")
    # The library itself refuses to sign so: an attacker's would not.
    signature = hmac.digest(public, text.encode(), "sha256")
    token = f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert (await call(guarded, token))[0] == 401


@pytest.mark.parametrize("alg", ["none", "None", "", "RS1", "HS512", None, 1, ["RS256"]])
async def test_no_word_of_a_token_says_how_to_check_it(
    guarded: Service, issuer: Issuer, alg: Any
) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    status, body, _ = await call(guarded, unsigned({"alg": alg, "kid": "one"}, claims))
    assert (status, "UNAUTHENTICATED" in body) == (401, True)
    assert issuer.asked == 0, "what cannot be right has nothing fetched"


async def test_no_word_of_a_token_says_where_keys_are(
    guarded: Service, issuer: Issuer, origin: Origin
) -> None:
    evil = rsa_key()
    jwks = json.dumps({"keys": [public_jwk(evil, "evil")]}).encode()
    url = origin.add("jwks", jwks)
    for headers in (
        {"jku": url},
        {"x5u": url},
        {"jwk": public_jwk(evil, "evil")},
        {"jku": url, "kid": "one"},
    ):
        kid = headers.get("kid", "evil")
        token = issuer.token(str(kid), key=evil, headers=headers)
        assert (await call(guarded, token))[0] == 401
    assert origin.asked == []


@pytest.mark.parametrize(
    ("family", "key", "algorithm"),
    [
        ("RS", ONE, "RS512"),
        ("PS", ONE, "PS256"),
        ("ES", ec_key(), "ES256"),
        ("ES", ec_key(ec.SECP384R1()), "ES384"),
        ("EdDSA", ed_key(), "EdDSA"),
    ],
)
async def test_each_family_lets_in_its_own_and_no_other(
    family: Any, key: Any, algorithm: str
) -> None:
    async with Issuer(one=key) as issuer:
        tokens, outbound = checker(issuer, oauth_algorithms=family)
        try:
            assert (await tokens.check(issuer.token(algorithm=algorithm))).tenant == "oauth:user-1"
            for other, wrong in (("RS256", ONE), ("PS256", ONE), ("ES256", ec_key())):
                if not other.startswith(family):
                    await is_refused(tokens, issuer.token(key=wrong, algorithm=other))
        finally:
            await tokens.close()
            await outbound.close()


async def test_a_key_that_is_too_short_is_refused(issuer: Issuer) -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        short = issuer.token(key=(weak := rsa_key(1024)))
    issuer.members = [public_jwk(weak, "one")]
    tokens, outbound = checker(issuer)
    await is_refused(tokens, short)
    await tokens.close()
    await outbound.close()


async def test_the_tenant_is_the_claim_that_is_said(issuer: Issuer) -> None:
    tokens, outbound = checker(issuer, oauth_tenant_claim="org")
    assert (await tokens.check(issuer.token(org="acme"))).tenant == "oauth:acme"
    await is_refused(tokens, issuer.token())
    for org in (1, ["acme"], {"a": 1}):
        await is_refused(tokens, issuer.token(org=org))
    await tokens.close()
    await outbound.close()


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (None, set()),
        ("", set()),
        ("uploads reader", set()),
        ("read", {Scope.READ}),
        ("a:b admin  read", {Scope.ADMIN, Scope.READ}),
        ("READ", set()),
        (["read"], set()),
        (1, set()),
    ],
)
async def test_scopes_are_whole_words_of_the_claim(
    issuer: Issuer, scope: Any, allowed: set[Scope]
) -> None:
    tokens, outbound = checker(issuer)
    assert (await tokens.check(issuer.token(scope=scope))).scopes == allowed
    await tokens.close()
    await outbound.close()


def test_no_text_is_more_than_refused() -> None:
    header = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), inner)
        ),
        max_leaves=8,
    )
    good = st.fixed_dictionaries({"alg": st.just("RS256"), "kid": st.just("one")})
    made = st.builds(unsigned, header | good, header, st.text("AQab_-=.", max_size=8))

    async def check_all() -> None:
        async with Issuer(one=ONE) as issuer:
            tokens, outbound = checker(issuer)
            await tokens.check(issuer.token())
            loop_texts: list[str] = []

            @settings(max_examples=300, database=None)
            @given(st.text(max_size=60) | made)
            def gather(text: str) -> None:
                loop_texts.append(text)

            await asyncio.to_thread(gather)
            for text in loop_texts:
                await is_refused(tokens, text)
            assert len(loop_texts) >= 300
            assert issuer.asked == 1
            await tokens.close()
            await outbound.close()

    asyncio.run(check_all())


async def test_without_the_issuer_its_known_keys_still_let_in_and_others_wait(
    start_service: Any, issuer: Issuer
) -> None:
    issuer.answer = functools.partial(web.Response, status=503)
    service = await start_service(auth=issuer.settings)
    headers = {"Authorization": f"Bearer {issuer.token()}"}
    async with service.session.get(f"{service.url}/api/requests", headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (503, "UNAVAILABLE")
        assert 1 <= int(response.headers["Retry-After"]) <= 30


async def test_keys_and_tokens_side_by_side_are_never_the_same_tenant(
    start_service: Any, issuer: Issuer, origin: Origin
) -> None:
    service = await start_service(auth={**issuer.settings, "mode": "keys+oauth"})
    ledger = Ledger(service.settings.mongo)
    key, shared = credentials.new(), credentials.new()
    await ledger.api_keys.insert(key.id, key.digest, "user-1", {Scope.UPLOAD, Scope.READ}, None)
    await ledger.api_keys.insert(shared.id, shared.digest, "oauth:user-1", {Scope.READ}, None)
    ledger.close()
    service.session.headers["Authorization"] = f"Bearer {issuer.token()}"
    request_id = await service.upload([[origin.url("none.jpg")]])
    await service.finished(request_id)
    del service.session.headers["Authorization"]
    path = f"/status/{request_id}"
    assert (await call(service, issuer.token(), path))[0] == 200
    assert (await call(service, str(key), path))[0] == 404
    assert (await call(service, str(shared), path))[0] == 200


@pytest.mark.parametrize(("mode", "other"), [("keys", "token"), ("oauth", "key")])
async def test_what_is_not_asked_for_does_not_let_in(
    start_service: Any, issuer: Issuer, mode: str, other: str
) -> None:
    service = await start_service(auth={**issuer.settings, "mode": mode})
    key = credentials.new()
    ledger = Ledger(service.settings.mongo)
    await ledger.api_keys.insert(key.id, key.digest, "acme", {Scope.READ}, None)
    ledger.close()
    shown = {"token": issuer.token(), "key": str(key)}
    assert (await call(service, shown.pop(other)))[0] == 401
    assert (await call(service, shown.popitem()[1]))[0] == 200


async def test_tokens_are_in_no_log(
    guarded: Service, issuer: Issuer, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = issuer.token(), issuer.token(exp=1)
    await call(guarded, good)
    await call(guarded, bad)
    logged = "".join(capfd.readouterr())
    assert "oauth:user-1" in logged
    for token in (good, bad):
        for part in token.split(".")[1:]:
            assert part not in logged


def checker(issuer: Issuer, **more: Any) -> tuple[Tokens, Outbound]:
    """What checks tokens of the issuer, without a service around it."""
    outbound = Outbound(Net.model_validate({"allow": ["127.0.0.0/8"]}), Fetch(), sniff)
    return Tokens(Auth(**{**issuer.settings, **more}), outbound), outbound


async def is_refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await tokens.check(text)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED, text
