"""An image of the ledger as clients see it."""

from __future__ import annotations

from imgsvc.ledger import Document
from imgsvc.storage.bucket import Bucket


def view(row: Document, index: int, image: Document) -> Document:
    """An image; its output is still the object's name, see ``fill_in_urls``.

    Args:
        row: its product.
        index: its place in the product, from 0.
        image: what the ledger has of it.
    """
    return {
        "serialNumber": row["serialNumber"],
        "productName": row["productName"],
        "product": row["n"],
        "index": index,
        "inputUrl": image["url"],
        "outputUrl": image.get("output"),
        "status": image["status"],
        "error": image.get("error"),
        "bytesIn": image.get("bytesIn"),
        "bytesOut": image.get("bytesOut"),
        "format": image.get("format"),
        "width": image.get("width"),
        "height": image.get("height"),
    }


async def fill_in_urls(bucket: Bucket, page: list[Document]) -> None:
    """Replace the names of the outputs by their URLs, all at once."""
    stored = [image for image in page if image["outputUrl"]]
    urls = await bucket.urls([image["outputUrl"] for image in stored])
    for image, url in zip(stored, urls, strict=True):
        image["outputUrl"] = url
