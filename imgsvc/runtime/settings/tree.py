"""All sections together, and what must hold between them."""

from __future__ import annotations

from pydantic import BaseModel, model_validator
from pydantic.fields import FieldInfo

from imgsvc.runtime.settings.auth import Auth
from imgsvc.runtime.settings.gcs import Gcs
from imgsvc.runtime.settings.http import Http, RateLimit
from imgsvc.runtime.settings.imaging import Codec, Dedupe, Spool
from imgsvc.runtime.settings.mongo import Mongo
from imgsvc.runtime.settings.operation import Dev, Log, Retention
from imgsvc.runtime.settings.outbound import Fetch, Net
from imgsvc.runtime.settings.redis import Redis
from imgsvc.runtime.settings.section import Section, is_loopback
from imgsvc.runtime.settings.webhook import Webhook


class Settings(Section):
    """All settings of one process."""

    http: Http = Http()
    redis: Redis = Redis()
    mongo: Mongo = Mongo()
    gcs: Gcs = Gcs()
    net: Net = Net()
    fetch: Fetch = Fetch()
    spool: Spool = Spool()
    codec: Codec = Codec()
    dedupe: Dedupe = Dedupe()
    webhook: Webhook = Webhook()
    retention: Retention = Retention()
    auth: Auth = Auth()
    ratelimit: RateLimit = RateLimit()
    log: Log = Log()
    dev: Dev = Dev()

    @model_validator(mode="after")
    def _open_door_is_explicit(self) -> Settings:
        if self.auth.mode is None and not is_loopback(self.http.host):
            raise ValueError(
                f"http.host = {self.http.host} lets other machines in, but auth.mode is not set; "
                'say auth.mode = "keys" (IMGSVC_AUTH__MODE=keys) to let in who has a key, '
                'auth.mode = "none" (IMGSVC_AUTH__MODE=none) if everyone who can reach the '
                "port may use the service, or bind to 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _issuer_is_named(self) -> Settings:
        names = ("oauth_issuer", "oauth_audience", "oauth_jwks_url")
        missing = [f"auth.{name}" for name in names if not getattr(self.auth, name)]
        if self.auth.takes_tokens and missing:
            raise ValueError(
                f"auth.mode = {self.auth.mode} needs {', '.join(missing)}: which tokens to accept, "
                "and where their issuer publishes its keys"
            )
        return self


def fields(section: str) -> dict[str, FieldInfo]:
    """The settings of a section by their keys; the sections themselves if there is none such."""
    kind = Settings.model_fields[section].annotation if section in Settings.model_fields else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields
    return Settings.model_fields
