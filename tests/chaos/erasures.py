"""Scenarios of erasing: how a replica gets to each failpoint, and what the other one does then."""

from __future__ import annotations

from imgsvc.mailboxes.keys import NOTIFY, delayed
from tests.chaos import commands
from tests.chaos.album import MISSING, picture
from tests.chaos.replicas import Replica, operate
from tests.chaos.scene import Scene
from tests.chaos.stack import ask, post
from tests.chaos.world import Posted
from tests.support import wait_until


async def a_client_that_erases(scene: Scene) -> None:
    """What the bystander has done is to be erased by the victim."""
    posted = scene.upload([picture(24)], [picture(25), MISSING])
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    await _erased_by_the_victim(scene, posted)


async def a_client_that_erases_what_is_held(scene: Scene) -> None:
    """The same while the bucket keeps all objects, as under a hold; then it is lifted."""
    posted = scene.upload([picture(27)])
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    scene.stack.gcs.holds = True
    await _erased_by_the_victim(scene, posted)


async def a_client_that_erases_what_is_to_be_announced(scene: Scene) -> None:
    """The webhook waits for its second attempt, and is not to be sent any more."""
    scene.receiver.script = [500]
    posted = scene.upload([picture(28)])
    await scene.bystander_pauses()
    victim = await scene.victim_starts(IMGSVC_WEBHOOK__DELAY_MS="60000")
    assert await post(victim, posted)

    async def waits() -> bool:
        return await scene.stack.redis.zcard(delayed(NOTIFY)) == 1

    await wait_until(waits, "the webhook waits for its second attempt")
    await _erased_by(victim, scene, posted)


async def a_hold_that_an_operator_lifts(scene: Scene) -> None:
    """The operator's command to try again at once dies, and the operator runs it again."""
    posted = scene.upload([picture(29)])
    assert await post(scene.bystander, posted)
    await scene.finished(posted)
    scene.stack.gcs.holds = True
    scene.wrong += await commands.erase(lambda: scene.bystander, posted)

    async def refused() -> bool:
        return any(
            each.get("event") == "request.not_erased" and each["request_id"] == posted.accepted
            for each in scene.bystander.events()
        )

    await wait_until(refused, "the bucket has refused it")
    replay = ("dead", "replay", str(posted.accepted))
    await scene.operator_dies(*replay)
    scene.stack.gcs.heal()
    # Where commands take long, it has been refused often by now, and would wait for as long; or it
    # is gone already, and the command fails.
    await operate(scene.stack.environment, scene.stack.folder, *replay)


async def a_request_whose_time_is_over(scene: Scene) -> None:
    """The victim has done it and finds that it is to be erased."""
    posted = scene.upload([picture(26)], more={"expiresInDays": 1e-9}, erased=True)
    await scene.dies_at_work(posted)

    async def gone() -> bool:
        status, _ = await scene.bystander.call("GET", f"/status/{posted.accepted}")
        return status == 410

    await wait_until(gone, "its time is over")


async def _erased_by_the_victim(scene: Scene, posted: Posted) -> None:
    await scene.bystander_pauses()
    await _erased_by(await scene.victim_starts(), scene, posted)


async def _erased_by(victim: Replica, scene: Scene, posted: Posted) -> None:
    await ask(victim, "DELETE", f"/api/requests/{posted.accepted}")
    await scene.dies(victim)
    scene.stack.gcs.heal()
    await scene.bystander_goes_on()
    scene.wrong += await commands.erase(lambda: scene.bystander, posted)
