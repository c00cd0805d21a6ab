"""Messages: what is put into a mailbox comes out the same, and strangers' messages are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from imgsvc.domain.messages import VERSION, Compressed, Fetched, ImageJob, WebhookJob
from imgsvc.domain.model import Recipe

text = st.text(st.characters(codec="utf-8"))
count = st.integers(0, 2**53)
image_jobs = st.builds(
    ImageJob,
    request_id=text,
    call_id=text,
    product=count,
    index=count,
    attempt=st.integers(1, 1000),
    copied=st.booleans(),
    priority=st.booleans(),
)
webhook_jobs = st.builds(WebhookJob, request_id=text, call_id=text)
times = st.dictionaries(st.sampled_from(["fetch", "compress", "upload"]), count)
recipes = st.builds(
    Recipe,
    format=st.sampled_from(["keep", "webp", "auto"]),
    quality=st.one_of(st.none(), st.integers(1, 100)),
)
fetched = st.builds(Fetched, file=text, bytes_in=count, recipe=recipes, ms=times)
compressed = st.builds(
    Compressed,
    file=text,
    bytes_in=count,
    bytes_out=count,
    format=text,
    width=count,
    height=count,
    note=text,
    ms=times,
)


@given(st.one_of(image_jobs, webhook_jobs, fetched, compressed))
def test_a_message_comes_out_as_it_was_put_in(message: BaseModel) -> None:
    assert type(message).model_validate_json(message.model_dump_json()) == message


@given(image_jobs, st.integers(1, 1000))
def test_attempts_are_the_same_work(job: ImageJob, attempt: int) -> None:
    assert job.model_copy(update={"attempt": attempt}).key == job.key


def test_different_work_has_different_keys() -> None:
    jobs = [ImageJob(request_id="r", product=p, index=i) for p in range(20) for i in range(20)]
    keys = {job.key for job in jobs} | {WebhookJob(request_id="r").key}
    assert len(keys) == 401


@pytest.mark.parametrize(
    "message", [ImageJob(request_id="r", product=1, index=2), WebhookJob(request_id="r")]
)
def test_a_message_of_another_version_is_refused(message: ImageJob | WebhookJob) -> None:
    written = message.model_dump_json()
    of_tomorrow = written.replace(f'"v":{VERSION}', f'"v":{VERSION + 1}')
    assert of_tomorrow != written
    with pytest.raises(ValidationError, match="v\n"):
        type(message).model_validate_json(of_tomorrow)


@pytest.mark.parametrize(
    "written",
    [
        '{"request_id":"r","product":0,"index":0,"priority":1}',
        '{"request_id":"r","product":0}',
        '{"request_id":"r","product":-1,"index":0}',
        '{"request_id":"r","product":0,"index":0,"attempt":0}',
        '{"request_id":"r"',
        "",
    ],
)
def test_a_message_that_is_not_understood_in_full_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        ImageJob.model_validate_json(written, by_name=False)


@pytest.mark.parametrize("message", [ImageJob(request_id="r", product=1, index=2)])
def test_messages_do_not_change(message: ImageJob) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        message.attempt = 2  # type: ignore[misc]


def test_priority_keeps_its_old_name_on_the_wire() -> None:
    """Lua scripts and replicas of older versions read it there."""
    plain = ImageJob(request_id="r", call_id="c", product=1, index=2)
    written = (
        b'{"v":1,"request_id":"r","call_id":"c","product":1,"index":2,"attempt":1,"turn":0'
        b',"hurry":true}'
    )
    job = ImageJob.model_validate_json(written, by_name=False)
    assert job == plain.model_copy(update={"priority": True})
    assert job.model_dump_json().encode() == written
    assert b"hurry" not in plain.model_dump_json().encode(), "as older versions write it"


def test_facts_from_before_times_were_kept_can_be_read() -> None:
    assert Fetched.model_validate_json('{"file":"a","bytes_in":1,"recipe":{}}').ms == {}
    older = (
        '{"file":"a","bytes_in":2,"bytes_out":1,"format":"png","width":1,"height":1,"note":"kept"}'
    )
    assert Compressed.model_validate_json(older).ms == {}
