"""The URLs of outputs in the bucket."""

from __future__ import annotations

from collections.abc import Sequence

from imgsvc.ledger import Document
from imgsvc.storage.bucket import Bucket


async def output_urls(bucket: Bucket, images: Sequence[Document]) -> list[str | None]:
    """The URL of each image's output, in order; None for an image without one.

    Args:
        bucket: where the outputs are.
        images: as the ledger has them.
    """
    names = [image["output"] for image in images if image.get("output")]
    urls = iter(await bucket.urls(names))
    return [next(urls) if image.get("output") else None for image in images]
