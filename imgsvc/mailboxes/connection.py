"""Connections to Redis: over TCP, TLS or a socket file, or to the master that Sentinels name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import ConnectionPool, Redis, Sentinel
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from imgsvc.mailboxes.refusals import code_of
from imgsvc.runtime.settings import Redis as Settings
from imgsvc.runtime.settings.redis_url import RedisUrl

_ANSWER_S = 5
_SENTINEL_S = 1  # another one is asked then
_COMMON: Mapping[str, Any] = {
    "decode_responses": True,
    "legacy_responses": False,
    "retry": Retry(NoBackoff(), 0),
    # So that nobody has to allow CLIENT SETINFO and CLIENT MAINT_NOTIFICATIONS.
    "driver_info": None,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}

OnConnect = Callable[[AbstractConnection], Awaitable[None]]


def connect(
    settings: Settings, *, answer_s: float = _ANSWER_S, on_connect: OnConnect | None = None
) -> Redis:
    """A client for Redis.

    The client's own retries are off: by default a lost reply makes redis-py send an XADD up to
    eleven times. The caller knows what may be repeated, and repeats it.

    Args:
        settings: where Redis is.
        answer_s: how long an answer may take.
        on_connect: called with each new connection, in place of its own ``on_connect``.
    """
    where = settings.where
    options = {
        "socket_timeout": answer_s,
        "redis_connect_func": on_connect,
        "socket_connect_timeout": _ANSWER_S,
        "username": where.username,
        "password": where.password,
        "db": where.db or 0,
        **_COMMON,
        **_trust(settings, where),
    }
    if where.service is not None:
        return Redis.from_pool(_sentinels(settings, where, options))
    kind: type[AbstractConnection]
    if where.path is not None:
        kind, options["path"] = _UnixConnection, where.path
    else:
        [address] = where.addresses
        kind = _TlsConnection if where.tls else _PlainConnection
        options |= {"host": address.host, "port": address.port}
    return Redis.from_pool(ConnectionPool(connection_class=kind, **options))


async def now_ms(client: Redis) -> int:
    """The time on Redis' own clock, which all replicas go by."""
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _sentinels(settings: Settings, where: RedisUrl, options: dict[str, Any]) -> ConnectionPool:
    password = settings.sentinel_password
    asking = {
        "username": settings.sentinel_username,
        "password": password.get_secret_value() if password else None,
        "socket_timeout": _SENTINEL_S,
        "socket_connect_timeout": _SENTINEL_S,
        "ssl": where.tls,
        **_COMMON,
        **_trust(settings, where),
    }
    addresses = [(address.host, address.port) for address in where.addresses]
    kind = _MasterTlsConnection if where.tls else _MasterConnection
    asked = Sentinel(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    return _MasterPool(  # type: ignore[no-untyped-call]
        where.service, asked, connection_class=kind, **options
    )


def _trust(settings: Settings, where: RedisUrl) -> dict[str, Any]:
    """Which certificates to trust: those of our own authority, or those that the system trusts."""
    if not where.tls:
        return {}
    ca_file = str(settings.ca_file) if settings.ca_file else None
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}


class _Following(AbstractConnection):
    """A connection that is closed when its Redis has become a replica.

    After a failover the name, or the Sentinels, lead to the new master, but an open connection stays
    with the old one. The client's own check for that does not see into scripts.
    """

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if code_of(error) == "READONLY":
                await self.disconnect(nowait=True)
            raise


class _PlainConnection(_Following, Connection):
    pass


class _TlsConnection(_Following, SSLConnection):
    pass


class _UnixConnection(_Following, UnixDomainSocketConnection):
    pass


class _MasterConnection(_Following, SentinelManagedConnection):
    pass


class _MasterTlsConnection(_Following, SentinelManagedSSLConnection):
    pass


class _MasterPool(SentinelConnectionPool):
    """A pool that closes its connections to the Sentinels with its own."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()
