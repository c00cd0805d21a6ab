"""The quotas of a tenant: images in a minute, images at a time, bytes in a day."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.http import keys
from imgsvc.http.limits.rate_limit import MINUTE_S, Policy, take
from imgsvc.mailboxes import traffic
from imgsvc.runtime.settings import Http, Settings

_RETRY_AFTER_S = 30  # by then images may have ended and made room


def of_one_upload(settings: Settings) -> Http:
    """The limits of one upload: no more images than its tenant's quotas ever allow."""
    limits = settings.ratelimit
    quotas = (limits.images_per_minute, limits.images_in_flight) if limits.enabled else ()
    most = min([settings.http.max_images, *filter(None, quotas)])
    return settings.http.model_copy(update={"max_images": most})


@contextlib.asynccontextmanager
async def charged(
    request: web.Request, images: int, name: Hashable
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Charge images to the quotas of a call's tenant; given back if the block raises.

    Gives a function that gives them back, for a call that turns out to repeat another one.

    Args:
        request: the call.
        images: how many.
        name: of what it is for: the same for a repeat, and for nothing else.

    Raises:
        ServiceError: QUOTA_EXCEEDED, or OVERLOADED if all tenants together have too many images.
    """
    async with _room(request, images, name), _charge(request, images) as give_back:
        yield give_back


@contextlib.asynccontextmanager
async def _charge(
    request: web.Request, images: int
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    limits = request.app[keys.SETTINGS].ratelimit
    # Bytes are counted when they are fetched; this only asks whether there were too many.
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


@contextlib.asynccontextmanager
async def _room(request: web.Request, images: int, name: Hashable) -> AsyncIterator[None]:
    """Reserve room; exact within this replica, but others may admit as much at that moment."""
    settings, reservations = request.app[keys.SETTINGS], request.app[keys.RESERVATIONS]
    quota_tenant = request[keys.QUOTA_TENANT]
    with reservations.observe() as seen:
        waiting, of_tenant = await request.app[keys.LEDGER].requests.count_in_flight(quota_tenant)
    all_reserved, of_tenant_reserved = seen.besides(name, quota_tenant)
    waiting, of_tenant = waiting + all_reserved, of_tenant + of_tenant_reserved
    if waiting + images > settings.http.backlog_limit:
        raise ServiceError(ErrorCode.OVERLOADED, retry_after_s=_RETRY_AFTER_S)
    if limit := settings.ratelimit.images_in_flight if settings.ratelimit.enabled else 0:
        room = max(0, limit - of_tenant)
        fits = images <= room
        request[keys.LIMITS]["in-flight"] = (f"q={limit}", f"r={room - images if fits else room}")
        if not fits:
            raise ServiceError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{of_tenant} images are not finished and {images} more would exceed the {limit} "
                "allowed at a time; wait for some to end.",
                retry_after_s=_RETRY_AFTER_S,
            )
    with reservations.hold(name, quota_tenant, images):
        yield
