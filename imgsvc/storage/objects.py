"""Objects of the bucket: one to create, and one that is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to create.

    Args:
        name: of the object.
        path: of the file that holds its content.
        content_type: as it is to be served.
        note: how the codec made it.
    """

    name: str
    path: Path
    content_type: str
    note: str

    @property
    def metadata(self) -> dict[str, str]:
        """Custom metadata of the object."""
        return {"imgsvc-note": self.note}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the bucket."""

    size_bytes: int
    checksum: str  # crc32c, base64
