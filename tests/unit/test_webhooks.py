"""Webhooks: bodies and signatures that any Standard Webhooks library accepts."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from imgsvc.domain.model import OPEN_REQUEST, RequestStatus, event_type
from imgsvc.runtime.settings import check_webhook_secret
from imgsvc.webhooks.payload import links, payload
from imgsvc.webhooks.signature import new_secret, signed_headers

# The vector that the Standard Webhooks libraries share.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_of_the_shared_vector() -> None:
    assert signed_headers(MESSAGE_ID, AT, BODY, [SECRET]) == {
        "content-type": "application/json",
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("hours", [-11, 2])
def test_the_same_moment_in_another_zone_is_signed_the_same(hours: int) -> None:
    there = AT.astimezone(timezone(timedelta(hours=hours)))
    assert signed_headers(MESSAGE_ID, there, BODY, [SECRET])["webhook-signature"] == SIGNATURE


def test_while_rotating_the_holder_of_either_secret_verifies() -> None:
    body = payload("request.completed", datetime.now(UTC), {"name": "Stühle, 椅子"})
    old, new, foreign = new_secret(), new_secret(), new_secret()
    headers = signed_headers("msg_1", datetime.now(UTC), body, [new, old])
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers)["data"] == {"name": "Stühle, 椅子"}
    with pytest.raises(WebhookVerificationError):
        Webhook(foreign).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body + b" ", headers)


def test_without_secrets_nothing_is_signed() -> None:
    assert "webhook-signature" not in signed_headers("msg_1", AT, BODY, [])


def test_a_time_without_zone_is_refused() -> None:
    naive = AT.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        signed_headers("msg_1", naive, BODY, [SECRET])
    with pytest.raises(ValueError, match="time zone"):
        payload("request.completed", naive, {})


def test_the_body_to_the_letter() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert payload("request.partial", at, {"requestId": "r1"}) == (
        b'{"type":"request.partial","timestamp":"2026-01-02T02:04:05Z","data":{"requestId":"r1"}}'
    )


def test_the_body_says_where_the_rest_is() -> None:
    body = orjson.loads(payload("request.completed", AT, {}, links=links("r1")))
    assert list(body) == ["type", "timestamp", "data", "links"]
    assert body["links"] == {
        "status": "/status/r1",
        "images": "/api/requests/r1/images",
        "report": "/download/r1",
    }


def test_times_inside_the_data_end_in_z_too() -> None:
    assert orjson.loads(payload("request.failed", AT, {"at": AT}))["data"]["at"] == (
        "2021-02-25T15:02:10Z"
    )


def test_there_is_an_event_for_each_end_and_none_before() -> None:
    ends = [status for status in RequestStatus if status not in OPEN_REQUEST]
    assert sorted(map(event_type, ends)) == [
        "request.cancelled",
        "request.completed",
        "request.failed",
        "request.partial",
    ]
    for status in OPEN_REQUEST:
        with pytest.raises(ValueError, match=status):
            event_type(status)


def test_new_secrets_pass_and_differ() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert check_webhook_secret(f" {one}\n") == one


@pytest.mark.parametrize("size", [24, 25, 64])
def test_secrets_pass_with_and_without_padding(size: int) -> None:
    padded = "whsec_" + base64.b64encode(bytes(size)).decode()
    assert check_webhook_secret(padded) == padded
    assert check_webhook_secret(padded.rstrip("=")) == padded.rstrip("=")


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "starts with whsec_"),
        (SECRET.removeprefix("whsec_"), "starts with whsec_"),
        ("whsec_", "holds 0 bytes"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "holds 23 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "holds 65 bytes"),
        (SECRET[:20] + "-_" + SECRET[22:], "not base64"),
        (SECRET[:20] + "!!!!" + SECRET[20:], "not base64"),
        (SECRET[:20] + "é" + SECRET[21:], "not base64"),
        (SECRET[:-3], "not base64"),
    ],
)
def test_a_bad_secret_is_refused_with_a_remedy_and_not_repeated(secret: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_webhook_secret(secret)
    assert "openssl rand -base64 32" in str(caught.value)
    assert len(secret) < 10 or secret[6:16] not in str(caught.value)
