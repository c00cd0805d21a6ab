"""How a replica gets to each failpoint, and what the other one does then."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web

from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.envelope import Envelope
from imgsvc.mailboxes.keys import DEAD, NOTIFY, REPLICAS, delayed
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime.settings import Redis
from tests.chaos import commands
from tests.chaos.album import MISSING, picture
from tests.chaos.erasures import (
    a_client_that_erases,
    a_client_that_erases_what_is_held,
    a_client_that_erases_what_is_to_be_announced,
    a_hold_that_an_operator_lifts,
    a_request_whose_time_is_over,
)
from tests.chaos.proxy import BucketFault, LedgerFault
from tests.chaos.replicas import operate
from tests.chaos.scene import Scene
from tests.chaos.stack import ask, post
from tests.chaos.world import Gate, Posted
from tests.support import wait_until

_REQUEST = b"totalImages"  # in a write, says that it is of a whole request
Scenario = Callable[[Scene], Awaitable[None]]


async def a_request(scene: Scene) -> None:
    """Two products with good images, and a webhook."""
    await scene.dies_at_work(scene.upload([picture(1), picture(2)], [picture(3)]))


async def a_request_bit_by_bit(scene: Scene) -> None:
    """One image of a product comes when the other has ended."""
    posted = scene.upload([picture(1), picture(2)])
    gate = scene.hold(posted, 0, 1)
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await post(victim, posted)

    async def one_has_ended() -> bool:
        stored = any(each.get("event") == "image.uploaded" for each in victim.events())
        return stored or not victim.running

    await wait_until(one_has_ended, "one image has ended")
    gate.open()
    await scene.dies(victim)
    await scene.bystander_goes_on()


async def a_failing_image(scene: Scene) -> None:
    """The request's only image is not there."""
    # Else the victim's own dealer may close the request first, and nothing is left to hand on.
    await scene.dies_at_work(scene.upload([MISSING]), IMGSVC_REDIS__RECONCILE_S="60")


async def an_origin_that_is_busy_once(scene: Scene) -> None:
    """An image that is put aside and fetched later."""
    posted = scene.upload([picture(4)])
    answers = iter([503])

    async def busy_once(_: web.Request) -> web.Response:
        status = next(answers, 200)
        return web.Response(status=status, body=picture(4).data if status == 200 else None)

    scene.stack.origin.add(posted.name(0, 0), busy_once)
    await scene.dies_at_work(posted)


async def a_receiver_that_fails_once(scene: Scene) -> None:
    """A webhook that is put aside and sent again."""
    scene.receiver.script = [500]
    await scene.dies_at_work(scene.upload([picture(5)]))


async def a_webhook_that_waits(scene: Scene) -> None:
    """What the other replica put aside falls due while the victim is alone."""
    scene.receiver.script = [_busy]
    posted = scene.upload([picture(6)])
    assert await post(scene.bystander, posted)

    async def waits() -> bool:
        return await scene.stack.redis.zcard(delayed(NOTIFY)) == 1

    await wait_until(waits, "the webhook waits for its second attempt")
    await scene.dies_at_work()


async def _busy(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "60"})  # ten times the plan are heard


async def a_receiver_that_is_busy_with_another(scene: Scene) -> None:
    """Two webhooks for a host that is sent one at a time, and that hangs."""
    gate = Gate(_fine)
    scene.receiver.script = [gate.pass_through]
    await scene.dies_at_work(
        scene.upload([picture(19)]),
        scene.upload([picture(20)]),
        IMGSVC_WEBHOOK__HOST_CONCURRENCY="1",
    )
    gate.open()


async def a_replica_that_is_silent(scene: Scene) -> None:
    """The other replica pauses with an image in hand, and wakes up when it was taken over."""
    posted = scene.upload([picture(7), picture(8)])
    gate = scene.hold(posted)
    assert await post(scene.bystander, posted)
    await gate.reached.wait()
    await scene.dies_at_work()
    gate.open()


async def a_replica_that_leaves(scene: Scene) -> None:
    """It is told to go while an image will not come, and hands the image back."""
    posted = scene.upload([picture(9)])
    gate = scene.hold(posted)
    await scene.bystander_pauses()
    await _taken_over(scene)  # else the victim's first reclaim would be that of the other one
    victim = await scene.victim_starts(IMGSVC_HTTP__SHUTDOWN_S="0.5")
    await post(victim, posted)
    await gate.reached.wait()
    victim.process.terminate()
    await scene.dies(victim)
    gate.open()
    await scene.bystander_goes_on()


async def a_client_that_is_counted(scene: Scene) -> None:
    """Rate limits are on."""
    await scene.dies_at_work(scene.upload([picture(10)]), IMGSVC_RATELIMIT__ENABLED="true")


async def a_ledger_whose_answer_is_lost(scene: Scene) -> None:
    """The request is written, but the replica does not learn it and takes it back."""
    scene.stack.ledger.harm_once(LedgerFault.UNANSWERED, _REQUEST)
    await scene.dies_at_work(scene.upload([picture(11)]))
    assert scene.stack.ledger.harmed


async def a_client_that_repeats_itself(scene: Scene) -> None:
    """Its first upload is not answered, so it sends it once more, to the victim."""
    posted = scene.upload([picture(21)], keyed=True)
    scene.stack.ledger.harm_once(LedgerFault.UNSENT, _REQUEST)
    assert not await post(scene.bystander, posted)
    assert scene.stack.ledger.harmed
    await scene.dies_at_work(posted)


async def a_client_that_does_not(scene: Scene) -> None:
    """It goes away without an answer, and what it left is swept while the victim is alone."""
    posted = scene.upload([picture(22)], keyed=True)
    scene.stack.ledger.harm_once(LedgerFault.UNSENT, _REQUEST)
    assert not await post(scene.bystander, posted)
    assert scene.stack.ledger.harmed
    await scene.dies_at_work()


async def a_request_with_copies(scene: Scene) -> None:
    """The same picture at the same address three times, in two products."""
    await scene.dies_at_work(scene.upload([picture(24), picture(24)], [picture(24)]))


async def a_source_seen_before(scene: Scene) -> None:
    """An earlier request had the same address."""
    earlier = scene.upload([picture(25)])
    assert await post(scene.bystander, earlier)
    await scene.finished(earlier)
    await scene.dies_at_work(scene.upload([picture(25)], like=earlier))


async def a_source_whose_result_is_gone(scene: Scene) -> None:
    """The same, but somebody deleted the object; the earlier request is not looked at any more."""
    earlier = scene.stack.new_post([[picture(26)]])
    assert await post(scene.bystander, earlier)
    await scene.finished(earlier)
    scene.stack.settled.add(str(earlier.accepted))
    await scene.stack.delete_objects(f"{earlier.accepted}/")
    await scene.dies_at_work(scene.upload([picture(26)], like=earlier))


async def uploads_that_are_long_written(scene: Scene) -> None:
    """With a key and without: the journal can forget the one, and keeps the other."""
    for keyed in (True, False):
        posted = scene.upload([picture(23)], keyed=keyed)
        assert await post(scene.bystander, posted)
        await scene.finished(posted)
    await scene.dies_at_work()


async def a_replica_that_comes_too_late(scene: Scene) -> None:
    """It pauses in the middle of storing an object, which another one then stores."""
    posted = scene.upload([picture(12)])
    gcs = scene.stack.gcs
    gcs.harm_once(BucketFault.STALL)
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await post(victim, posted)
    await gcs.stalled.wait()
    victim.pause()
    await scene.bystander_goes_on()
    await scene.finished(posted)
    victim.resume()
    gcs.heal()
    await scene.dies(victim)


async def an_image_nobody_survives(scene: Scene) -> None:
    """The other replica pauses with an image; for the victim that is once too often."""
    posted = scene.upload([picture(13)], failures=frozenset({"INTERNAL"}))
    gate = scene.hold(posted)
    assert await post(scene.bystander, posted)
    await gate.reached.wait()
    await scene.dies_at_work(IMGSVC_REDIS__MAX_DELIVERIES="1")
    gate.open()
    await scene.stack.redis.delete(DEAD)


async def a_webhook_nobody_survives(scene: Scene) -> None:
    """The same with a webhook that the other replica waits for an answer to."""
    posted = scene.upload([picture(14)], failures=frozenset({"INTERNAL"}))
    gate = Gate(_fine)
    scene.receiver.script = [gate.pass_through]
    assert await post(scene.bystander, posted)
    await gate.reached.wait()
    await scene.bystander_pauses()
    victim = await scene.victim_starts(IMGSVC_REDIS__MAX_DELIVERIES="1")
    await scene.dies(victim)
    gate.open()
    await scene.bystander_goes_on()
    await scene.stack.redis.delete(DEAD)


async def a_last_attempt_that_is_cut_off(scene: Scene) -> None:
    """The other replica pauses in the last of five attempts, after four that failed."""
    gate = Gate(_wrong)
    scene.receiver.script = [500, 500, 500, 500, gate.pass_through]
    posted = scene.upload([picture(15)])
    assert await post(scene.bystander, posted)
    await gate.reached.wait()
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await scene.dies(victim)
    gate.open()
    await scene.bystander_goes_on()


async def _fine(_: web.Request) -> web.Response:
    return web.Response()


async def _wrong(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def a_dead_image_replayed_by_an_operator(scene: Scene) -> None:
    """The operator's command dies, and the operator runs it again."""
    posted = await _failed(scene)
    entry = await _buried(scene, ImageJob(request_id=str(posted.accepted), product=0, index=0))
    _mend(posted)
    await scene.operator_dies("dead", "replay", entry)
    await _again(scene, entry)


async def a_dead_image_of_a_running_request(scene: Scene) -> None:
    """The same while another image of the request is still being fetched."""
    posted = scene.upload([MISSING, picture(16)])
    gate = scene.hold(posted, 0, 1)
    assert await post(scene.bystander, posted)
    await gate.reached.wait()

    async def failed() -> bool:
        _, found = await scene.bystander.call("GET", f"/status/{posted.accepted}")
        return bool(found["failedImages"] == 1)

    await wait_until(failed, "the first image failed")
    entry = await _buried(scene, ImageJob(request_id=str(posted.accepted), product=0, index=0))
    _mend(posted)
    await scene.operator_dies("dead", "replay", entry)
    await _again(scene, entry)
    gate.open()


async def a_dead_webhook_replayed_by_an_operator(scene: Scene) -> None:
    """A webhook is sent once more because an operator wants it."""
    posted = scene.upload([picture(17)], cycles=3)  # at its end, and for each of two commands
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    entry = await _buried(scene, WebhookJob(request_id=str(posted.accepted)))
    await scene.operator_dies("dead", "replay", entry)
    await _again(scene, entry)


async def images_to_work_on_again(scene: Scene) -> None:
    """An operator's command that the victim's dealer carries out."""
    posted = await _failed(scene)
    entry = await _buried(scene, ImageJob(request_id=str(posted.accepted), product=0, index=0))
    _mend(posted)
    await scene.bystander_pauses()
    await _again(scene, entry)
    await scene.dies_at_work()


async def a_client_that_retries(scene: Scene) -> None:
    """It puts right what was missing and has it done again, by the victim."""
    posted = await _failed(scene)
    _mend(posted)
    await _retried_by_the_victim(scene, posted)


async def a_client_that_retries_much(scene: Scene) -> None:
    """More products than are opened at once; they fail again."""
    posted = scene.upload(*[[MISSING] for _ in range(201)], cycles=2)
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    await _retried_by_the_victim(scene, posted)


async def _retried_by_the_victim(scene: Scene, posted: Posted) -> None:
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await ask(victim, "POST", f"/api/requests/{posted.accepted}/retry", json={})
    await scene.dies(victim)
    await scene.bystander_goes_on()
    scene.wrong += await commands.ask_to_retry(lambda: scene.bystander, posted, {}, asked=True)


async def a_client_that_cancels(scene: Scene) -> None:
    """While one image is there and another is being fetched, by the victim."""
    posted = scene.upload([picture(21)], [picture(22)])
    gate = scene.hold(posted, 1, 0)
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await post(victim, posted)
    await gate.reached.wait()
    await ask(victim, "POST", f"/api/requests/{posted.accepted}/cancel")
    await scene.dies(victim)
    gate.open()
    await scene.bystander_goes_on()
    scene.wrong += await commands.cancel(lambda: scene.bystander, posted)


async def a_client_that_cancels_what_is_being_stored(scene: Scene) -> None:
    """The object is there when the image has been cancelled; the victim takes it back."""
    posted = scene.upload([picture(23)])
    gcs = scene.stack.gcs
    gcs.harm_once(BucketFault.STALL)
    await scene.bystander_pauses()
    victim = await scene.victim_starts()
    await post(victim, posted)
    await gcs.stalled.wait()
    scene.wrong += await commands.cancel(lambda: victim, posted)
    assert posted.cancelled
    gcs.heal()
    await scene.dies(victim)
    await scene.bystander_goes_on()


async def a_key_that_is_made(scene: Scene) -> None:
    """The operator's command dies, and the operator runs it again."""
    await scene.operator_dies("keys", "create", "acme")
    assert (await _key(scene)).startswith("isk_")


async def a_key_that_is_revoked(scene: Scene) -> None:
    """The same; a key that is revoked twice is revoked."""
    key_id = (await _key(scene)).split("_")[1]
    await scene.operator_dies("keys", "revoke", key_id)
    assert await _operated(scene, "keys", "revoke", key_id) == ""
    listed = await _operated(scene, "keys", "list")
    assert "revoked" in next(line for line in listed.splitlines() if key_id in line)


async def a_key_that_is_used(scene: Scene) -> None:
    """The victim notes that it is; if it cannot, nobody is the worse for it."""
    key = await _key(scene)
    victim = await scene.victim_starts(IMGSVC_AUTH__MODE="keys")
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await victim.call("GET", "/api/requests", headers={"Authorization": f"Bearer {key}"})
    await scene.dies(victim)


async def _key(scene: Scene) -> str:
    told = await _operated(scene, "keys", "create", "acme")
    return next(line for line in told.splitlines() if line.startswith("isk_"))


async def _operated(scene: Scene, *command: str) -> str:
    """Run an operator's command; what it printed."""
    exit_code, told = await operate(scene.stack.environment, scene.stack.folder, *command)
    assert exit_code == 0, told
    return told


async def _failed(scene: Scene) -> Posted:
    """A request that has ended because its image was not there."""
    posted = scene.upload([MISSING], cycles=2)
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    return posted


def _mend(posted: Posted) -> None:
    """Put the missing image where it belongs."""
    posted.products[0][0] = picture(18)
    posted.lay_out()


async def _buried(scene: Scene, job: ImageJob | WebhookJob) -> str:
    """A dead letter about this job, made as the service makes one; its id."""
    async with _mailboxes(scene) as ours:
        inbox = ours.inbox("{imgsvc}:grave")
        await ours.streams.deal(inbox.name, [job], bounded=False)
        envelopes: list[Envelope] = []
        while not envelopes:
            envelopes = await inbox.take(1, 10)
        assert await ours.dead_letters.bury(envelopes[0], "for the test")
        await inbox.close()
        await scene.stack.redis.delete(inbox.name)
        await scene.stack.redis.zrem(REPLICAS, ours.replica)
        return (await ours.dead_letters.oldest(10))[-1].entry_id


async def _taken_over(scene: Scene) -> None:
    """Have the paused replica taken over from, as soon as it counts as silent."""
    async with _mailboxes(scene) as ours:

        async def silent() -> bool:
            return scene.bystander.id in await ours.replicas.silent()

        await wait_until(silent, "the bystander is silent")
        await ours.replicas.reclaim(scene.bystander.id)


@contextlib.asynccontextmanager
async def _mailboxes(scene: Scene) -> AsyncIterator[Mailboxes]:
    """The service's mailboxes, in the hands of the test."""
    settings = Redis(
        port=scene.stack.servers.endpoints.redis_port,
        db=int(scene.stack.environment["IMGSVC_REDIS__DB"]),
    )
    client = connect(settings)
    try:
        yield Mailboxes(client, settings, "the-test")
    finally:
        await client.aclose()


async def _again(scene: Scene, entry: str) -> None:
    """The operator repeats the command; if it had worked after all, drops the letter."""
    environment, folder = scene.stack.environment, scene.stack.folder
    exit_code, told = await operate(environment, folder, "dead", "replay", entry)
    if exit_code:
        assert "cannot be done again" in told, told
        assert await operate(environment, folder, "dead", "drop", entry) == (0, "")


SCENARIOS: dict[Scenario, tuple[str, ...]] = {
    a_request: (
        "bucket.create",
        "ledger.claim_delivery",
        "ledger.complete",
        "ledger.finish_images",
        "ledger.forget_sources",
        "ledger.insert_products",
        "ledger.insert_request",
        "ledger.open_entry",
        "ledger.record_delivery",
        "ledger.remember_sources",
        "ledger.start",
        "redis.beat",
        "redis.deal",
        "redis.hand_off",
        "redis.settle",
        "redis.share",
        "webhook.post",
    ),
    a_request_bit_by_bit: ("ledger.close_products", "ledger.count"),
    a_failing_image: ("ledger.complete", "ledger.finish_images", "redis.hand_off"),
    an_origin_that_is_busy_once: ("redis.blame", "redis.later"),
    a_receiver_that_fails_once: ("ledger.record_delivery", "redis.later"),
    a_webhook_that_waits: ("redis.promote",),
    a_receiver_that_is_busy_with_another: ("ledger.put_off_delivery",),
    a_replica_that_is_silent: ("redis.reclaim",),
    a_replica_that_leaves: ("redis.reclaim",),
    a_client_that_is_counted: ("redis.take_token",),
    a_ledger_whose_answer_is_lost: ("ledger.withdraw_products", "ledger.withdraw_request"),
    a_client_that_repeats_itself: ("ledger.insert_request", "ledger.take_up_entry"),
    a_client_that_does_not: (
        "ledger.condemn_entry",
        "ledger.forget_entry",
        "ledger.sweep_products",
    ),
    a_request_with_copies: ("ledger.finish_copies",),
    a_source_seen_before: ("bucket.copy",),
    a_source_whose_result_is_gone: ("ledger.forget_source",),
    uploads_that_are_long_written: ("ledger.forget_entries", "ledger.keep_entries"),
    a_replica_that_comes_too_late: ("ledger.recount",),
    an_image_nobody_survives: ("redis.bury",),
    a_webhook_nobody_survives: ("ledger.abandon_webhook", "redis.bury"),
    a_last_attempt_that_is_cut_off: ("ledger.exhaust_delivery",),
    a_dead_image_replayed_by_an_operator: ("ledger.reopen",),
    a_dead_image_of_a_running_request: ("ledger.reopen",),
    a_dead_webhook_replayed_by_an_operator: ("ledger.replay_webhook",),
    a_key_that_is_made: ("ledger.insert_key",),
    a_key_that_is_revoked: ("ledger.revoke_key",),
    a_key_that_is_used: ("ledger.note_use",),
    images_to_work_on_again: ("ledger.recount", "ledger.reopen_images", "ledger.reopened"),
    a_client_that_retries: ("ledger.reopen", "ledger.reopen_images", "ledger.complete"),
    a_client_that_retries_much: ("ledger.reopened_some",),
    a_client_that_cancels: (
        "ledger.ask_to_cancel",
        "ledger.cancel_images",
        "ledger.complete",
        "ledger.swept",
    ),
    a_client_that_cancels_what_is_being_stored: ("bucket.delete",),
    a_client_that_erases: (
        "bucket.delete",
        "ledger.ask_to_erase",
        "ledger.erase_entry",
        "ledger.erase_products",
        "ledger.erase_request",
        "ledger.erase_sources",
        "ledger.swept",
    ),
    a_client_that_erases_what_is_held: ("ledger.refuse_erasure",),
    a_client_that_erases_what_is_to_be_announced: ("redis.forget",),
    a_hold_that_an_operator_lifts: ("ledger.erase_at_once",),
    a_request_whose_time_is_over: ("ledger.expire",),
}
