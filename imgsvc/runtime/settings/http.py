"""``[http]`` and ``[ratelimit]``: the HTTP server, and how much it accepts from whom."""

from __future__ import annotations

from pydantic import Field, model_validator

from imgsvc.runtime.settings.section import Count, Network, Port, Positive, Quota, Section


class Http(Section):
    """The HTTP server and what it accepts."""

    host: str = Field(
        "127.0.0.1",
        description="The address to listen on. Beyond loopback, `[auth] mode` must be set.",
    )
    port: Port = Field(3000, description="The port to listen on.")
    shutdown_s: Positive = Field(
        25.0, description="From SIGTERM to the end; most of it is for running work to finish."
    )
    body_limit_bytes: Count = Field(
        16 * 1024 * 1024, description="The largest upload: JSON, CSV and forms alike."
    )
    intake_bytes: Count = Field(
        128 * 1024 * 1024,
        description="All bodies in memory at once. Above it, calls with a body get 503. At most "
        "an eighth of the container's memory, but one body always fits.",
    )
    max_products: Count = Field(100_000, description="Products in one request.")
    max_urls_per_product: Count = Field(100, description="Image URLs of one product.")
    max_images: Count = Field(100_000, description="Images in one request.")
    backlog_limit: Count = Field(
        1_000_000, description="Unfinished images. Above it, uploads get 503 with Retry-After."
    )
    page_limit: Count = Field(1000, description="The most entries of a page.")
    idempotency_ttl_s: Positive = Field(
        24 * 3600.0, description="How long an Idempotency-Key is remembered."
    )
    csv_bom: bool = Field(
        default=False,
        description="Whether reports begin with a byte order mark, for Excel; `?bom=` sets it for "
        "one report.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks whose X-Forwarded-For header is believed."
    )
    header_timeout_s: Positive = Field(
        10.0, description="From connecting to the end of the first request's headers."
    )
    body_timeout_s: Positive = Field(30.0, description="For an upload's body to arrive.")
    keepalive_s: Positive = Field(
        75.0,
        description="How long an idle connection is kept. Longer than a proxy in front keeps it.",
    )

    @model_validator(mode="after")
    def _a_body_fits(self) -> Http:
        if self.intake_bytes < self.body_limit_bytes:
            raise ValueError("intake_bytes must be at least body_limit_bytes: one body has to fit")
        return self


class RateLimit(Section):
    """How much one tenant, or one client address, may ask for; shared by all replicas."""

    enabled: bool = Field(default=True, description="Whether these limits hold.")
    uploads_per_minute: Quota = Field(120, description="Calls that start work. 0: unlimited.")
    reads_per_minute: Quota = Field(1200, description="All other calls. 0: unlimited.")
    images_per_minute: Quota = Field(
        100_000,
        description="Images posted or retried; no call may have more. 0: unlimited.",
    )
    images_in_flight: Quota = Field(
        500_000,
        description="Images posted and not finished; no call may have more. 0: unlimited.",
    )
    bytes_per_day: Quota = Field(
        0,
        description="Bytes fetched. Above it no more is accepted, but what was is finished. "
        "0: unlimited.",
    )
