"""What the service counts and times, in Prometheus' terms."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Nobody else may count its open files: it is hidden from others of its user.
        ProcessCollector(registry=self.registry)
        r = self.registry
        self.http_seconds = Histogram(
            "imgsvc_http_request_seconds",
            "Time to answer an HTTP request.",
            ["route", "method", "status"],
            registry=r,
            buckets=_SECONDS,
        )
        self.handled_seconds = Histogram(
            "imgsvc_message_seconds",
            "Time an actor took for one message, by outcome.",
            ["actor", "outcome"],
            registry=r,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge(
            "imgsvc_messages_in_flight", "Messages being handled.", ["actor"], registry=r
        )
        self.actor_restarts = Counter(
            "imgsvc_actor_restarts", "Crashes of an actor.", ["actor"], registry=r
        )
        self.images = Counter(
            "imgsvc_images", "Images that reached their end.", ["status", "code"], registry=r
        )
        self.origin_rests = Counter(
            "imgsvc_origin_rests",
            "Times an origin was left alone because it asked for that or kept failing.",
            registry=r,
        )
        self.image_bytes = Counter(
            "imgsvc_image_bytes", "Bytes of completed images.", ["direction"], registry=r
        )
        self.images_saved = Counter(
            "imgsvc_images_saved",
            "Completed images that took no work of their own: shared within their request, or "
            "reused from an earlier one.",
            ["how"],
            registry=r,
        )
        self.requests = Counter(
            "imgsvc_requests", "Requests that reached their end.", ["status"], registry=r
        )
        self.webhook_attempts = Counter(
            "imgsvc_webhook_attempts", "Webhook posts, by outcome.", ["outcome"], registry=r
        )
        self.webhooks = Counter(
            "imgsvc_webhooks",
            "Webhooks that were delivered or given up.",
            ["status"],
            registry=r,
        )
        self.codec_kills = Counter(
            "imgsvc_codec_worker_kills", "Codec workers killed or lost.", ["reason"], registry=r
        )
        self.ratelimit_open = Counter(
            "imgsvc_ratelimit_failed_open",
            "Calls let in unchecked because the rate limiter could not be asked.",
            registry=r,
        )
        self.reclaimed = Counter(
            "imgsvc_messages_reclaimed", "Messages taken back from lost replicas.", registry=r
        )
        self.erasures_refused = Gauge(
            "imgsvc_erasures_refused",
            "Erasures that wait because the bucket refused or failed; `imgsvc dead list` says why.",
            registry=r,
        )
        self.mailbox_length = Gauge(
            "imgsvc_mailbox_length", "Entries in a mailbox.", ["mailbox"], registry=r
        )
        self.spool_bytes = Gauge("imgsvc_spool_bytes", "Bytes in the spool.", registry=r)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
