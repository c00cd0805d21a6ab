"""A receiver of webhooks for developers, which checks each and shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


async def receive(
    port: int, secrets: Sequence[str], show: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Receive webhooks on loopback, at any path, until ``stop`` is set.

    It answers 204, or 401 to a signature that is not valid, so that the sender notices.

    Args:
        port: where; 0 for any free one.
        secrets: one of them must have signed; with none nothing is checked.
        show: called with a line or several to be read.
        stop: set it to end.

    Raises:
        OSError: the port is taken.
    """

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        problem = _problem(body, request.headers, secrets)
        verdict = problem or ("signature valid" if secrets else "not checked: no secret is known")
        show(
            f"{request.headers.get('webhook-id', '(no webhook-id)')!r}: {verdict}\n{_readable(body)}"
        )
        return web.Response(status=401 if problem else 204)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        show(f"Listening on http://127.0.0.1:{runner.addresses[0][1]}/ until Ctrl-C")
        await stop.wait()
    finally:
        await runner.cleanup()


def _problem(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> str | None:
    """Why a webhook is not to be trusted; None if it is, or if that cannot be checked."""
    lower = {name.lower(): value for name, value in headers.items()}
    problem = None
    for secret in secrets:
        try:
            Webhook(secret).verify(body, lower)
        except (WebhookVerificationError, UnicodeDecodeError) as error:
            problem = f"NOT VALID: {error}"
        else:
            return None
    return problem


def _readable(body: bytes) -> str:
    """Indented JSON; anything else with its control characters escaped, for it goes to a terminal."""
    try:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return repr(body)
