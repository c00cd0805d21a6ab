"""What Redis says when it refuses, word by word of Redis 6.2, 7 and Valkey, and what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.mailboxes import rights
from imgsvc.mailboxes.refusals import translated

ROOT = Path(__file__).parents[2]
SCRIPT = "ERR Error running script (call to f_0e0ee1a5ccec1fd4ea1ef1c47ef2ad59ee5aeba9): "
PLACE = " script: 0e0ee1a5ccec1fd4ea1ef1c47ef2ad59ee5aeba9, on @user_script:12."

PASSING = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    f"READONLY You can't write against a read only replica.{PLACE}",
    f"{SCRIPT}@user_script:12: @user_script: 12: -READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    f"OOM command not allowed when used memory > 'maxmemory'.{PLACE}",
    f"{SCRIPT}@user_script:3: @user_script: 3: -OOM command not allowed when used memory > 'maxmemory'.",
    f"{SCRIPT}@user_script:3: @user_script: 3: -MISCONF Redis is configured to save RDB snapshots",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "NOGOODSLAVE Not enough good slaves to write.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOSCRIPT No matching script. Please use EVAL.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "NOMASTERLINK Can't SYNC while not connected with my master",
    "EXECABORT Transaction discarded because of previous errors.",
    "INPROG Failover already in progress",
    "ERR max number of clients reached",
    "ERR upstream failure",
    "SOMETHINGNEW of a server that is not written yet",
]
SETUP = [
    ("NOAUTH Authentication required.", "password"),
    ("NOAUTH HELLO must be called with the client already authenticated", "password"),
    ("WRONGPASS invalid username-password pair or user is disabled.", "password"),
    ("ERR invalid password", "password"),
    ("NOPERM this user has no permissions to run the 'xadd' command", "docs/redis.md"),
    (f"{SCRIPT}@user_script:1: @user_script: 1: -NOPERM can't run this", "docs/redis.md"),
    (f"ERR ACL failure in script: User u has no permissions{PLACE}", "docs/redis.md"),
    ("NOPERM No permissions to access a key", "docs/redis.md"),
    (f"{SCRIPT}@user_script: 1: The user executing the script can't run this", "docs/redis.md"),
    ("MOVED 1234 127.0.0.1:7001", "cluster"),
    ("ASK 1234 127.0.0.1:7001", "cluster"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "cluster"),
    ("ERR SELECT is not allowed in cluster mode", "cluster"),
    ("ERR DB index is out of range", "database"),
    ("ERR invalid DB index", "database"),
    ("ERR unknown command `EVALSHA`, with args beginning with: `x`", "docs/redis.md"),
    ("ERR unknown command 'EVALSHA', with args beginning with: 'x'", "docs/redis.md"),
    ("DENIED Redis is running in protected mode", "protected"),
]
MISTAKES = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    f"{SCRIPT}@user_script:5: WRONGTYPE Operation against a key holding the wrong kind of value",
    f"WRONGTYPE Operation against a key holding the wrong kind of value{PLACE}",
    "ERR wrong number of arguments for 'xadd' command",
    f"{SCRIPT}@user_script:5: @user_script: 5: Wrong number of args calling Redis command",
    "ERR syntax error",
    "ERR value is not an integer or out of range",
    "ERR Error compiling script (new function): user_script:1: '=' expected near 'x'",
    f"{SCRIPT}@user_script:5: user_script:5: attempt to index a nil value",
    f"ERR user_script:5: attempt to index a nil value{PLACE}",
]


def refused(text: str) -> Exception:
    """The exception that the client makes of an answer."""
    error: Exception = BaseParser.parse_error(text)
    return error


@pytest.mark.parametrize("text", PASSING)
def test_whatever_passes_is_waited_for(text: str) -> None:
    with pytest.raises(ServiceError) as caught, translated():
        raise refused(text)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.remedy is None
    code = re.search(r"-?([A-Z]{2,}) ", text.partition("): ")[2] or text)
    assert code
    assert code[1] in caught.value.detail


@pytest.mark.parametrize(("text", "remedy"), SETUP)
def test_what_an_operator_must_change_is_told_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ServiceError) as caught, translated():
        raise refused(text)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.remedy
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.remedy


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_of_ours_is_not_waited_for(text: str) -> None:
    with pytest.raises(redis.exceptions.ResponseError), translated():
        raise refused(text)


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Connection closed by server."),
        redis.exceptions.TimeoutError("Timeout reading from socket"),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        ),
    ],
)
def test_a_network_that_fails_is_waited_for(error: Exception) -> None:
    with pytest.raises(ServiceError) as caught, translated():
        raise error
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.remedy is None


def acl_line() -> str:
    """The rights of the service's user, as the document gives them."""
    document = (ROOT / "docs" / "redis.md").read_text("utf-8")
    [line] = re.findall(r"^ACL SETUSER .*$", document, re.MULTILINE)
    return str(line)


# Every connection begins with the first two, whoever it is; the others may be missing.
NOT_LOOKED_AT = {"hello", "select", "client|id", "client|unblock", "info"}


def documented() -> set[str]:
    """The commands of that line."""
    return {word[1:] for word in acl_line().split() if word.startswith("+")}


def test_what_scripts_do_is_in_the_documented_rights() -> None:
    called = set()
    for script in (ROOT / "imgsvc" / "mailboxes" / "lua").glob("*.lua"):
        called |= set(re.findall(r"redis\.p?call\(\s*'([A-Za-z]+)'", script.read_text("utf-8")))
    assert called
    assert {name.lower() for name in called} <= {name.partition("|")[0] for name in documented()}


def test_what_is_looked_at_when_a_replica_starts_is_what_is_documented() -> None:
    asked = [words[0].lower().replace(" ", "|") for words in rights.commands("k")]
    assert len(asked) == len(set(asked))
    assert set(asked) == documented() - NOT_LOOKED_AT
