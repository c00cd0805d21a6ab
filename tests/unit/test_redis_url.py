"""REDIS_URL: what each form says, and a clear word without a secret about what says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imgsvc.runtime.settings import Redis, SettingsError, load, show
from imgsvc.runtime.settings.redis_url import Address, RedisUrl, parse

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis://redis", {"addresses": (Address("redis", 6379),)}),
        ("REDIS://redis:1/", {"addresses": (Address("redis", 1),)}),
        ("redis://redis:6380/3", {"addresses": (Address("redis", 6380),), "db": 3}),
        ("redis://redis?db=4", {"addresses": (Address("redis", 6379),), "db": 4}),
        ("redis://[::1]:7", {"addresses": (Address("::1", 7),)}),
        ("redis://[fe80::1]/1", {"addresses": (Address("fe80::1", 6379),), "db": 1}),
        ("redis://under_score.a-b", {"addresses": (Address("under_score.a-b", 6379),)}),
        ("redis://:pw@h", {"addresses": (Address("h", 6379),), "password": "pw"}),
        ("redis://u@h", {"addresses": (Address("h", 6379),), "username": "u"}),
        ("redis://u:@h", {"addresses": (Address("h", 6379),), "username": "u"}),
        (
            "rediss://us%40er:p%2F%3A%40%25%C3%A9+@h",
            {
                "addresses": (Address("h", 6379),),
                "tls": True,
                "username": "us@er",
                "password": "p/:@%é+",
            },
        ),
        (
            "redis://u:p:q@r@h",
            {"addresses": (Address("h", 6379),), "username": "u", "password": "p:q@r"},
        ),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        (
            "unix://u:pw@/run/my%20redis.sock?db=2",
            {"path": "/run/my redis.sock", "username": "u", "password": "pw", "db": 2},
        ),
        (
            "redis+sentinel://a,b:1,[::1]:2/mymaster",
            {
                "addresses": (Address("a", 26379), Address("b", 1), Address("::1", 2)),
                "service": "mymaster",
            },
        ),
        (
            "rediss+sentinel://u:p%2Cq@a:1/my%20master/5",
            {
                "addresses": (Address("a", 1),),
                "service": "my master",
                "tls": True,
                "username": "u",
                "password": "p,q",
                "db": 5,
            },
        ),
    ],
)
def test_what_a_url_says(text: str, says: dict[str, Any]) -> None:
    assert parse(text) == RedisUrl(**says)
    assert parse(f"  {text}\n") == RedisUrl(**says), "as a file with a secret may hold it"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "redis://"),
        (f"redis:{SECRET}@h", "redis://"),
        (f"http://u:{SECRET}@h", "redis://"),
        (f"redis-sentinel://u:{SECRET}@h/m", "redis+sentinel://"),
        ("redis://", "name a host"),
        (f"redis://u:{SECRET}@", "name a host"),
        (f"redis://:{SECRET}/x@h", "%2F"),
        (f"redis://:{SECRET}?x@h", "%3F"),
        (f"redis://:{SECRET}#x@h", "%23"),
        (f"redis://:{SECRET} x@h", "%20"),
        (f"redis://h:{SECRET}", "port"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:\u0661", "port"),
        ("redis://h:" + "1" * 5000, "port"),
        ("redis://h/" + "1" * 5000, "number"),
        (f"redis://u:{SECRET}@ho$t", "name a host"),
        ("redis://[::1", "name a host"),
        ("redis://::1", "name a host"),
        (f"redis://h/{SECRET}", "number"),
        ("redis://h/-1", "number"),
        ("redis://h/1/2", "behind the database"),
        ("redis://h/1?db=2", "twice"),
        ("redis://h?db=1&db=2", "twice"),
        (f"redis://h?password={SECRET}", "only db"),
        ("rediss://h?ssl_cert_reqs=none", "ca_file"),
        (f"redis://:{SECRET},x@a,b", "redis+sentinel://"),
        ("redis+sentinel://a,b", "master"),
        ("redis+sentinel://a//0", "master"),
        ("redis+sentinel://a,,b/m", "name a host"),
        ("redis+sentinel://a/m/0/1", "behind the database"),
        ("unix://run/redis.sock", "whole path"),
        (f"unix://u:{SECRET}@run", "whole path"),
    ],
)
def test_what_a_url_cannot_say_is_told_in_one_line_without_a_secret(
    text: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert remedy in str(caught.value)
    if text:
        monkeypatch.setenv("REDIS_URL", text)
        with pytest.raises(SettingsError, match=r"^REDIS_URL = \*\*\*: ") as refused:
            load()
        for told in (str(caught.value), str(refused.value)):
            assert SECRET not in told
            assert "\n" not in told


def test_what_the_url_says_wins_and_the_single_settings_say_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    single = {"host": "single", "port": 1, "db": 2, "username": "u", "password": "p"}
    alone = Redis.model_validate(single).where
    assert alone == RedisUrl((Address("single", 1),), username="u", password="p", db=2)
    part = Redis.model_validate({**single, "url": "redis://other"}).where
    assert part == RedisUrl((Address("other", 6379),), username="u", password="p", db=2)
    whole = Redis.model_validate({**single, "url": "rediss://v:q@other:3/4"}).where
    assert whole == RedisUrl((Address("other", 3),), tls=True, username="v", password="q", db=4)
    assert Redis.model_validate({"url": "redis://h"}).where.db == 0
    monkeypatch.setenv("REDIS_URL", f"redis://u:{SECRET}@h")
    assert SECRET not in show(load())
    assert SECRET not in repr(load().redis.where)


def test_a_promise_to_encrypt_is_not_broken_by_the_url() -> None:
    with pytest.raises(ValueError, match="rediss"):
        Redis.model_validate({"tls": True, "url": "redis://h"})
    assert Redis.model_validate({"tls": True, "url": "rediss://h"}).where.tls
    assert Redis.model_validate({"tls": True, "url": "unix:///s"}).where.path == "/s"
    with pytest.raises(ValueError, match="no such file"):
        Redis.model_validate({"ca_file": "/nowhere/ca.pem"})


@pytest.mark.parametrize(
    "host", ["redis", "redis.example.", "a_b-c", "10.0.0.1", "::1", "fe80::1%eth0", " redis\n"]
)
def test_a_host_by_itself_is_a_name_or_an_address(host: str) -> None:
    [address] = Redis(host=host).where.addresses
    assert address.host == host.strip()


@pytest.mark.parametrize(
    "host",
    ["", "redis:6379", "redis/0", "[::1]", "a,b", "a b", "1:2", f"redis://u:{SECRET}/x@h:6379/0"],
)
def test_more_than_a_host_is_told_with_where_it_goes(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGSVC_REDIS__HOST", host)
    with pytest.raises(
        SettingsError, match=r"^IMGSVC_REDIS__HOST = .*REDIS_PORT.*REDIS_URL$"
    ) as caught:
        load()
    assert SECRET not in str(caught.value)


def test_what_is_passed_through_empty_is_not_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = load().redis
    for key in ("username", "password", "ca_file", "sentinel_username", "sentinel_password", "url"):
        monkeypatch.setenv(f"IMGSVC_REDIS__{key}".upper(), "")
    assert load().redis == alone
