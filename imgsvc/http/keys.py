"""The keys of what handlers find on the application, put there by ``app``, and on the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from aiohttp import web

from imgsvc.auth.authenticator import Authenticator
from imgsvc.domain.model import Scope
from imgsvc.http.limits.body_budget import BodyBudget
from imgsvc.http.limits.reservations import Reservations
from imgsvc.http.readiness import Readiness
from imgsvc.ledger import Ledger
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Settings
from imgsvc.storage.bucket import Bucket

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health:
    """Whether this replica wants traffic: only while its state is ``ok``."""

    def __init__(self) -> None:
        self.state = "starting"


SETTINGS = web.AppKey("settings", Settings)
LEDGER = web.AppKey("ledger", Ledger)
MAILBOXES = web.AppKey("mailboxes", Mailboxes)
BUCKET = web.AppKey("bucket", Bucket)
RESERVATIONS = web.AppKey("reservations", Reservations)
BODY_BUDGET = web.AppKey("body_budget", BodyBudget)
OUTBOUND = web.AppKey("outbound", Outbound)
METRICS = web.AppKey("metrics", Metrics)
HEALTH = web.AppKey("health", Health)
READINESS = web.AppKey("readiness", Readiness)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)  # absent if nobody has to authenticate
OPENAPI = web.AppKey("openapi", bytes)  # the document, as JSON
SCOPES: web.AppKey[Mapping[Any, Scope | None]] = web.AppKey("scopes", Mapping)
POLICIES: web.AppKey[Mapping[Any, str]] = web.AppKey("policies", Mapping)
WITHOUT_QUERY: web.AppKey[Collection[Handler]] = web.AppKey("without_query", Collection)

CLIENT = web.RequestKey("client", str)
TENANT = web.RequestKey("tenant", str)
QUOTA_TENANT = web.RequestKey("quota_tenant", str)  # whose quotas count: a tenant or an address
CALL_ID = web.RequestKey("call_id", str)
# Name of a limit that counted the call -> its policy and what is left, for the headers.
LIMITS: web.RequestKey[dict[str, tuple[str, str]]] = web.RequestKey("limits", dict)
