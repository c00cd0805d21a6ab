"""Every command that the service needs, in a form that does no harm.

A replica sends all of them when it starts, to find out what its user may not do. They all name one
key, which the first command makes as a string. Redis looks at the rights first. Then it refuses
a command for another type, or a script that is not there, with one of ``HARMLESS``.
"""

from __future__ import annotations

HARMLESS = frozenset({"WRONGTYPE", "NOSCRIPT"})

_LIFE_MS = 10_000  # of the key; without it the blocking command would wait
_NO_SCRIPT = "0" * 40
_GROUP, _CONSUMER, _ID = "g", "c", "0-1"


def commands(key: str) -> list[tuple[str, ...]]:
    """The commands, as words.

    Args:
        key: one that nobody else uses; it is gone afterwards.
    """
    return [
        ("SET", key, "1", "PX", str(_LIFE_MS)),
        ("GET", key),
        ("EXISTS", key),
        ("PTTL", key),
        ("HGET", key, "f"),
        ("HSET", key, "f", "1"),
        ("HDEL", key, "f"),
        ("HGETALL", key),
        ("HKEYS", key),
        ("HINCRBY", key, "f", "1"),
        ("LPUSH", key, "1"),
        ("RPUSH", key, "1"),
        ("LTRIM", key, "0", "0"),
        ("LLEN", key),
        ("BLPOP", key, "0.01"),
        ("ZADD", key, "1", "m"),
        ("ZREM", key, "m"),
        ("ZSCORE", key, "m"),
        ("ZMSCORE", key, "m"),
        ("ZCOUNT", key, "0", "1"),
        ("ZRANGE", key, "0", "0"),
        ("ZRANGEBYSCORE", key, "0", "1"),
        ("ZREMRANGEBYSCORE", key, "0", "1"),
        ("ZSCAN", key, "0"),
        ("XADD", key, "*", "f", "1"),
        ("XGROUP CREATE", key, _GROUP, "0"),
        ("XGROUP DELCONSUMER", key, _GROUP, _CONSUMER),
        ("XINFO CONSUMERS", key, _GROUP),
        ("XREADGROUP", "GROUP", _GROUP, _CONSUMER, "STREAMS", key, ">"),
        ("XPENDING", key, _GROUP),
        ("XCLAIM", key, _GROUP, _CONSUMER, "0", _ID),
        ("XACK", key, _GROUP, _ID),
        ("XDEL", key, _ID),
        ("XLEN", key),
        ("XRANGE", key, "-", "+"),
        ("TIME",),
        ("SCRIPT LOAD", "return 0"),
        ("EVALSHA", _NO_SCRIPT, "0"),
        ("PEXPIRE", key, "1"),
        ("DEL", key),
    ]
