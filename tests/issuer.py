"""A token issuer: real keys, and a key set that is served over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support import Server

AUDIENCE = "https://imgsvc.example"


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    """The public half of a key as a member of a key set."""
    kinds = {"RSA": "RS256", "EC": "ES256", "Ed25": "EdDSA"}
    name = next(alg for kind, alg in kinds.items() if type(key).__name__.startswith(kind))
    algorithm: Any = jwt.get_algorithm_by_name(name)
    member: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    member.pop("key_ops", None)
    return {**member, **({"kid": kid} if kid else {}), **more}


class Issuer(Server):
    """Serves its key set; can be slow, broken or away."""

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        self.keys = keys
        self.members: list[Any] = [public_jwk(key, kid) for kid, key in keys.items()]
        self.asked = 0
        self.delay_s = 0.0
        self.answer: Callable[[], web.Response] | None = None  # instead of the set

    @property
    def jwks_url(self) -> str:
        """Where the key set is."""
        return f"{self.base}/jwks"

    @property
    def settings(self) -> dict[str, Any]:
        """The ``[auth]`` section of a service that trusts it."""
        return {
            "mode": "oauth",
            "oauth_issuer": self.base,
            "oauth_audience": AUDIENCE,
            "oauth_jwks_url": self.jwks_url,
        }

    def publish(self, kid: str, key: Any, **more: Any) -> None:
        """Add a key to the set."""
        self.keys[kid] = key
        self.members.append(public_jwk(key, kid, **more))

    def token(
        self,
        kid: str | None = "one",
        algorithm: str = "RS256",
        *,
        key: Any = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token that lets in, but for what is said otherwise; None leaves a claim out."""
        now = int(time.time())
        said = {
            "iss": self.base,
            "aud": AUDIENCE,
            "sub": "user-1",
            "scope": "openid upload read",
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        return jwt.encode(
            {name: claim for name, claim in said.items() if claim is not None},
            key if key is not None else self.keys[kid or "one"],
            algorithm,
            headers={**({"kid": kid} if kid else {}), **(headers or {})},
        )

    async def _answer(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.answer:
            return self.answer()
        return web.Response(text=json.dumps({"keys": self.members}))
