"""Every setting, in one frozen tree.

Order, weakest first: the defaults written here, ``config.toml``, ``IMGSVC_<SECTION>__<KEY>``,
and last the plain names that the first users of the service had (``PORT``, ``MONGO_URI``, ...).
What may stand in the environment, and how, is told in ``environment``.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from imgsvc.runtime import environment, mongo_uri, redaction, redis_url
from imgsvc.runtime.environment import Place, Said

PREFIX = environment.PREFIX
_NO_SETTINGS = frozenset({"IMGSVC_CONFIG", "IMGSVC_SERVER", "IMGSVC_KEY"})  # two: of the client

PLAIN_NAMES: dict[str, tuple[str, str]] = {
    "PORT": ("http", "port"),
    "MONGO_URI": ("mongo", "uri"),
    "MONGODB_URI": ("mongo", "uri"),
    "REDIS_URL": ("redis", "url"),
    "REDIS_HOST": ("redis", "host"),
    "REDIS_PORT": ("redis", "port"),
    "GCP_PROJECT_ID": ("gcs", "project"),
    "GCP_BUCKET_NAME": ("gcs", "bucket"),
    "GCP_KEY_BASE64": ("gcs", "key_base64"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("gcs", "credentials_file"),
    "STORAGE_EMULATOR_HOST": ("gcs", "emulator_host"),
    "WEBHOOK_RETRY_ATTEMPTS": ("webhook", "attempts"),
    "WEBHOOK_RETRY_DELAY": ("webhook", "delay_ms"),
}

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 24, 64  # the bounds of the Standard Webhooks specification

LONGEST_URL = 32_768
"""Characters: 100 of them, all outside of ASCII, are a product that MongoDB still takes."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Quota = Annotated[int, Field(ge=0)]  # 0: unlimited
Wait = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Port = Annotated[int, Field(ge=1, le=65535)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _name_server(text: str) -> str:
    """An address, perhaps with a port, as ``1.1.1.1``, ``1.1.1.1:53`` or ``[2001:db8::1]:53``."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        parts = urlsplit(f"//{text}")
        try:
            ipaddress.ip_address(parts.hostname or "")
            if parts.port and text == parts.netloc and "@" not in text:
                return text
        except ValueError:
            pass
        raise ValueError("must be an IP address, or one with a port as in 10.0.0.53:53") from None
    return text


NameServer = Annotated[str, AfterValidator(_name_server)]


class SettingsError(Exception):
    """The settings cannot be used; the message names each setting, its value and the remedy."""


def _text(value: object) -> str:
    """The text of a secret, without the blanks around it that a copy brings along."""
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value or "").strip()


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Http(_Section):
    """The HTTP server and what it accepts."""

    host: str = "127.0.0.1"
    port: Port = 3000
    shutdown_s: Positive = 25.0
    body_limit_bytes: Count = 16 * 1024 * 1024
    intake_bytes: Count = 128 * 1024 * 1024
    max_products: Count = 100_000
    max_urls_per_product: Count = 100
    max_images: Count = 100_000
    backlog_limit: Count = 1_000_000
    page_limit: Count = 1000
    idempotency_ttl_s: Positive = 24 * 3600.0
    csv_bom: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    header_timeout_s: Positive = 10.0
    body_timeout_s: Positive = 30.0
    keepalive_s: Positive = 75.0

    @model_validator(mode="after")
    def _a_body_fits(self) -> Http:
        if self.intake_bytes < self.body_limit_bytes:
            raise ValueError("intake_bytes must be at least body_limit_bytes: one body has to fit")
        return self


class Redis(_Section):
    """The mailboxes."""

    url: SecretStr | None = None
    host: str = "127.0.0.1"
    port: Port = redis_url.PORT
    db: Annotated[int, Field(ge=0)] = 0
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password: SecretStr | None = None
    window: Count = 32
    heartbeat_s: Positive = 20.0
    reconcile_s: Positive = 15.0
    lease_s: Positive = 900.0
    max_deliveries: Count = 5

    @field_validator(
        "url", "username", "password", "ca_file", "sentinel_username", "sentinel_password",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_means_unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("host")
    @classmethod
    def _a_host_alone(cls, value: str) -> str:
        return redis_url.check_host(value)

    @field_validator("url")
    @classmethod
    def _readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            redis_url.parse(value.get_secret_value())
        return value

    @field_validator("ca_file")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        if value and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @model_validator(mode="after")
    def _encrypted_if_said(self) -> Redis:
        where = self.where
        if self.tls and not where.tls and where.path is None:
            raise ValueError("tls is true, but url is not encrypted: begin it with rediss")
        return self

    @property
    def where(self) -> redis_url.RedisUrl:
        """Where Redis is and as whom to speak to it: what the URL says, else the single settings."""
        if self.url is None:
            said = redis_url.RedisUrl(
                addresses=(redis_url.Address(self.host, self.port),), tls=self.tls
            )
        else:
            said = redis_url.parse(self.url.get_secret_value())
        password = self.password.get_secret_value() if self.password else None
        return dataclasses.replace(
            said,
            username=said.username or self.username,
            password=said.password or password,
            db=self.db if said.db is None else said.db,
        )

    @property
    def priority_window(self) -> int:
        """Images that somebody waits for which a replica fetches beside all others."""
        return max(1, self.window // 4)


class Mongo(_Section):
    """The ledger."""

    uri: SecretStr = SecretStr("mongodb://127.0.0.1:27017")
    database: str = "imgsvc"
    timeout_ms: Count = 5000
    intake_s: Positive = 600.0

    @model_validator(mode="before")
    @classmethod
    def _database_of_the_uri(cls, values: Any) -> Any:
        """The database that the URI names holds, unless another is said."""
        if not isinstance(values, dict) or values.get("database") is not None:
            return values
        with contextlib.suppress(ValueError):  # told below, as what it is: a wrong URI
            if named := mongo_uri.database_of(_text(values.get("uri"))):
                return {**values, "database": named}
        return values

    @field_validator("uri")
    @classmethod
    def _has_the_form(cls, value: SecretStr) -> SecretStr:
        uri = _text(value)
        mongo_uri.database_of(uri)
        return SecretStr(uri)

    @field_validator("database")
    @classmethod
    def _can_be_one(cls, value: str) -> str:
        return mongo_uri.check_database(value)


class Gcs(_Section):
    """The bucket."""

    bucket: Annotated[str, Field(min_length=3, max_length=222)] = "imgsvc"
    project: str | None = None
    key_base64: SecretStr | None = None
    credentials_file: Path | None = None
    emulator_host: str | None = None
    public_url: str | None = None
    cache_control: str = "public, max-age=31536000, immutable"
    signed_urls: bool = False
    signed_url_ttl_s: Annotated[int, Field(ge=1, le=604_800)] = 604_800
    threads: Annotated[int, Field(ge=1, le=64)] = 8
    timeout_s: Positive = 60.0
    retry_s: Positive = 120.0

    @property
    def in_hand(self) -> int:
        """Results that may be on their way; most of the time they wait for the ledger."""
        return max(256, self.threads * 8)

    @field_validator("emulator_host", "project", "key_base64", "credentials_file", mode="before")
    @classmethod
    def _empty_means_unset(cls, value: Any) -> Any:
        # Compose files pass variables through even when they are empty.
        return None if value == "" else value

    @field_validator("emulator_host")
    @classmethod
    def _with_scheme(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("http://", "https://")):
            return value
        return f"http://{value}"


class Net(_Section):
    """Which addresses the service connects to, for images and webhooks alike."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = (80, 443, 8080, 8443)
    connect_s: Positive = 5.0
    resolve_s: Positive = 5.0
    nameservers: tuple[NameServer, ...] = ()
    max_url_length: Annotated[int, Field(ge=256, le=LONGEST_URL)] = 8192
    user_agent: str = "imgsvc/0.1 (image batch service)"


class Fetch(_Section):
    """How images are fetched."""

    concurrency: Count = 16
    per_host: Count = 8
    ahead: Count = 32
    max_bytes: Count = 50 * 1024 * 1024
    silence_s: Positive = 10.0
    min_bytes_per_s: Count = 2048
    slow_s: Positive = 5.0
    total_s: Positive = 30.0
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    attempts: Count = 2
    patience: Count = 5
    failures: Count = 5
    rest_s: Positive = 1.0
    longest_rest_s: Positive = 300.0
    rests: Count = 4

    @model_validator(mode="after")
    def _rests_grow(self) -> Fetch:
        if self.longest_rest_s < self.rest_s:
            raise ValueError("longest_rest_s must be at least rest_s, the first of them")
        return self


class Spool(_Section):
    """Where fetched and encoded files wait for the next actor."""

    dir: Path = Path("/tmp/imgsvc-spool")  # noqa: S108 - each replica makes its own 0700 folder
    quota_bytes: Count = 2 * 1024 * 1024 * 1024


class Codec(_Section):
    """How images are decoded and encoded."""

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    task_s: Positive = 60.0
    tasks_per_worker: Count = 2000
    memory_bytes: Count = 3 * 1024 * 1024 * 1024
    budget_bytes: Count = 2 * 1024 * 1024 * 1024
    max_pixels: Count = 50_000_000
    max_frames: Count = 200
    max_total_pixels: Count = 200_000_000
    max_jpeg_scans: Count = 100
    max_output_bytes: Count = 256 * 1024 * 1024

    @property
    def worker_count(self) -> int:
        """Worker processes to run: as set, or one for each core this process may use."""
        if self.workers:
            return self.workers
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


class Dedupe(_Section):
    """Doing the same work once."""

    enabled: bool = True
    ttl_s: Annotated[float, Field(ge=0)] = 24 * 3600.0


class Webhook(_Section):
    """How the end of a request is announced."""

    secrets: tuple[SecretStr, ...] = ()
    attempts: Count = 5
    delay_ms: Count = 1000
    schedule: Annotated[tuple[Wait, ...], Field(max_length=99)] = ()
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    timeout_s: Positive = 15.0
    concurrency: Count = 64
    host_concurrency: Count = 4

    @field_validator("secrets")
    @classmethod
    def _usable(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return tuple(SecretStr(check_webhook_secret(s.get_secret_value())) for s in value)


class Retention(_Section):
    """How long requests are kept, and how fast they go."""

    days: Annotated[float, Field(ge=0, le=36_500)] = 0
    erase_per_s: Count = 100


class Auth(_Section):
    """Who may come in."""

    mode: Literal["none", "keys", "oauth", "keys+oauth"] | None = None
    protect_docs: bool = False
    oauth_issuer: str | None = None
    oauth_audience: str | None = None
    oauth_jwks_url: str | None = None
    oauth_algorithms: Literal["RS", "PS", "ES", "EdDSA"] = "RS"
    oauth_tenant_claim: Annotated[str, Field(min_length=1)] = "sub"
    oauth_leeway_s: Annotated[float, Field(ge=0, le=60)] = 30.0

    @property
    def takes_keys(self) -> bool:
        """Whether API keys let in."""
        return self.mode in ("keys", "keys+oauth")

    @property
    def takes_tokens(self) -> bool:
        """Whether an issuer's tokens let in."""
        return self.mode in ("oauth", "keys+oauth")

    @field_validator("oauth_jwks_url")
    @classmethod
    def _not_in_clear(cls, value: str | None) -> str | None:
        # Whoever can change the answer on its way can let in whomever they like.
        url = urlsplit(value or "")
        if value and url.scheme != "https" and not _is_loopback(url.hostname or ""):
            raise ValueError("must start with https://, but for an address of this machine")
        return value


class RateLimit(_Section):
    """How much one tenant, or one client address, may ask for; shared by all replicas."""

    enabled: bool = True
    uploads_per_minute: Quota = 120
    reads_per_minute: Quota = 1200
    images_per_minute: Quota = 100_000
    images_in_flight: Quota = 500_000
    bytes_per_day: Quota = 0


class Log(_Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Dev(_Section):
    """What developers and tests of the service need."""

    data_dir: Path = Path(".imgsvc")
    failpoint: str | None = None


class Settings(_Section):
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
    def _open_door_is_said(self) -> Settings:
        if self.auth.mode is None and not _is_loopback(self.http.host):
            raise ValueError(
                f"http.host = {self.http.host} lets other machines in, but auth.mode is not set; "
                'say auth.mode = "keys" (IMGSVC_AUTH__MODE=keys) to let in who has a key, '
                'auth.mode = "none" (IMGSVC_AUTH__MODE=none) if everyone who can reach the '
                "port may use the service, or bind to 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _issuer_is_said(self) -> Settings:
        names = ("oauth_issuer", "oauth_audience", "oauth_jwks_url")
        missing = [f"auth.{name}" for name in names if not getattr(self.auth, name)]
        if self.auth.takes_tokens and missing:
            raise ValueError(
                f"auth.mode = {self.auth.mode} needs {', '.join(missing)}: which tokens to accept, "
                "and where their issuer publishes its keys"
            )
        return self


def load(config: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        config: the file to read; left out, ``$IMGSVC_CONFIG`` or ``config.toml`` in the working
            directory if there is one.

    Raises:
        SettingsError: a value is wrong or a name unknown.
    """
    values = _read(config)
    in_file = frozenset(values)
    said = _environment()
    for (section, key), each in said.items():
        below = values.setdefault(section, {})
        if isinstance(below, dict):  # else the file is wrong there, and that is told
            below[key] = _parsed(section, key, each)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(e, said, in_file) for e in error.errors())) from None


def name_of(section: str, key: str) -> str:
    """What an operator has to change: the strongest source that says this setting."""
    said = environment.name_of(os.environ, PLAIN_NAMES, (section, key))
    return said or f"[{section}] {key}"


def is_setting(name: str) -> bool:
    """Whether a variable of this name is a setting, or names the file that holds one."""
    return name.upper().startswith(PREFIX) or name.removesuffix("_FILE") in PLAIN_NAMES


def overlooked() -> list[str]:
    """Variables that begin like settings and are none; somebody may have meant one."""
    return environment.overlooked(os.environ, _NO_SETTINGS)


def meant_by(overlooked_name: str) -> str:
    """The setting that such a variable was meant for, if that can be told; else the form of all."""
    for section in Settings.model_fields:
        for key in _fields(section):
            if overlooked_name.upper() == f"{PREFIX}{section}_{key}".upper():
                return f"{PREFIX}{section}__{key}".upper()
    return f"{PREFIX}<SECTION>__<KEY>"


def show(settings: Settings) -> str:
    """The settings in force as TOML-like text, secrets masked."""
    lines = []
    for section in Settings.model_fields:
        lines.append(f"[{section}]")
        values: BaseModel = getattr(settings, section)
        for key, value in values.model_dump(mode="json").items():
            # A list of secrets, a path, a network: all are JSON by now.
            lines.append(f"{key} = {json.dumps(value)}" if value is not None else f"# {key} unset")
        lines.append("")
    return "\n".join(lines).rstrip()


def check_webhook_secret(text: str) -> str:
    """The secret without blanks around it, if it is one that every receiver can use.

    Checked here since the signing package skips characters that are not base64, and so would
    sign with another key than a stricter receiver reads from the same text.

    Raises:
        ValueError: what is wrong and how to get a good one; it never holds the secret itself.
    """
    secret = text.strip()
    remedy = (
        f"write {SECRET_PREFIX} and then {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} random bytes in base64: "
        f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)"'
    )
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a webhook secret starts with {SECRET_PREFIX}; {remedy}")
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        # Receivers' libraries take secrets with and without padding.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError as exc:
        raise ValueError(f"the part after {SECRET_PREFIX} is not base64; {remedy}") from exc
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise ValueError(f"the webhook secret holds {len(key)} bytes; {remedy}")
    return secret


def _read(config: Path | None) -> dict[str, Any]:
    named = config or (Path(os.environ["IMGSVC_CONFIG"]) if "IMGSVC_CONFIG" in os.environ else None)
    path = named or Path("config.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _environment() -> dict[Place, Said]:
    sections = {name: _fields(name) for name in Settings.model_fields}
    try:
        return environment.read(os.environ, PLAIN_NAMES, sections)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _parsed(section: str, key: str, said: Said) -> Any:
    """The text of a variable as the setting's type is to be made of: lists are JSON."""
    field = _fields(section).get(key)
    if field is None or "tuple" not in str(field.annotation):
        return said.text
    try:
        return json.loads(said.text)
    except ValueError:
        shown = _shown(key, said.text, said)
        raise SettingsError(
            f"{said.name} = {shown}: must be JSON, such as '[\"a\"]' for a list"
        ) from None


def _fields(section: str) -> dict[str, FieldInfo]:
    kind = Settings.model_fields[section].annotation if section in Settings.model_fields else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields
    return Settings.model_fields


def _explain(error: Any, said: Mapping[Place, Said], in_file: frozenset[str]) -> str:
    """One line: which name to change, what it holds, what is allowed."""
    section, key = (*map(str, error["loc"]), "", "")[:2]
    name = _name(section, key, said, in_file)
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting; known here: {', '.join(_fields(section))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not section:
        return message
    return f"{name} = {_shown(key, error['input'], said.get((section, key)))}: {message}"


def _shown(key: str, value: object, said: Said | None) -> str:
    """The value as an error may show it; a whole section or a file may hold a secret anywhere."""
    words = ("secret", "password", "key_base64", "uri")
    secret = key == "url" or any(word in key.lower() for word in words)
    secret = secret or bool(said and said.from_file)
    plain = key and not secret and isinstance(value, str | int | float)
    return redaction.of_library(repr(value)) if plain else "***"


def _name(section: str, key: str, said: Mapping[Place, Said], in_file: frozenset[str]) -> str:
    """What the operator has to change: the strongest source that says something here."""
    if found := said.get((section, key)):
        return found.name
    place = f"[{section}] {key}".rstrip()
    return f"config.toml {place}" if section in in_file else place


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
