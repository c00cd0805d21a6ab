"""What one payer may have done: images in a minute, images at a time, bytes in a day."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from imgsvc import traffic
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.http import keys
from imgsvc.http.ratelimit import MINUTE_S, Policy, take
from imgsvc.settings import Http, Settings

_ROOM_S = 30  # until room may have been made by images that end


def of_one_upload(settings: Settings) -> Http:
    """What an upload is held to: no more images than its payer could ever pay for."""
    limits = settings.ratelimit
    quotas = (limits.images_per_minute, limits.images_in_flight) if limits.enabled else ()
    most = min([settings.http.max_images, *filter(None, quotas)])
    return settings.http.model_copy(update={"max_images": most})


@contextlib.asynccontextmanager
async def charged(
    request: web.Request, images: int
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Charge images to whoever pays for a call; given back if the block raises.

    Gives a function that gives them back, for a call that turns out to be another one's repeat.

    Raises:
        ServiceError: QUOTA_EXCEEDED, or OVERLOADED if all payers together have too many images.
    """
    await _have_room(request, images)
    limits = request.app[keys.SETTINGS].ratelimit
    # Bytes are counted when they are fetched; here it is only asked whether too many were.
    await take(
        request,
        Policy(
            traffic.LIMIT,
            limits.bytes_per_day,
            traffic.DAY_S,
            ErrorCode.QUOTA_EXCEEDED,
            f"More than {limits.bytes_per_day} bytes fetched in a day",
        ),
        cost=0,
    )
    per_minute = Policy(
        "images",
        limits.images_per_minute,
        MINUTE_S,
        ErrorCode.QUOTA_EXCEEDED,
        f"More than {limits.images_per_minute} images in {MINUTE_S} s",
    )
    await take(request, per_minute, images)

    async def give_back() -> None:
        await take(request, per_minute, -images)

    try:
        yield give_back
    except BaseException:
        await give_back()
        raise


async def _have_room(request: web.Request, images: int) -> None:
    settings = request.app[keys.SETTINGS]
    waiting, of_payer = await request.app[keys.LEDGER].count_in_flight(request[keys.PAYER])
    if waiting + images > settings.http.backlog_limit:
        raise ServiceError(ErrorCode.OVERLOADED, retry_after_s=_ROOM_S)
    limit = settings.ratelimit.images_in_flight if settings.ratelimit.enabled else 0
    if not limit:
        return
    room = max(0, limit - of_payer)
    fits = images <= room
    request[keys.LIMITS]["in-flight"] = (f"q={limit}", f"r={room - images if fits else room}")
    if not fits:
        raise ServiceError(
            ErrorCode.QUOTA_EXCEEDED,
            f"{of_payer} images are not finished and {images} more would exceed the {limit} allowed "
            "at a time; wait for some to end.",
            retry_after_s=_ROOM_S,
        )
