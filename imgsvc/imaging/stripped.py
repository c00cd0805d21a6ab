"""The original file without its metadata, for images that encoding again does not improve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imgsvc.imaging import containers
from imgsvc.imaging.containers.structure import DamagedError, Piece
from imgsvc.imaging.encode import Encoded
from imgsvc.imaging.picture import Picture


@dataclass(frozen=True, slots=True)
class Stripped:
    """The original's pixels as they were stored, in pieces that are joined only if they win."""

    pieces: Sequence[Piece]

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return sum(map(len, self.pieces))

    def result(self, original: bytes, picture: Picture) -> Encoded:
        """The result: the pieces joined.

        Args:
            original: the whole file.
            picture: what was decoded from it.
        """
        made = b"".join(self.pieces)
        note = "original" if made == original else "stripped"
        width, height = picture.frames[0].size
        return Encoded(made, picture.kind, width, height, len(picture.frames), note)


def stripped_original(original: bytes, picture: Picture) -> Stripped | None:
    """The original without metadata.

    Returns:
        None if its pixels must change, or if metadata cannot be taken out of its container.
    """
    if picture.changed:
        return None
    if picture.survey.stripped:
        return Stripped(picture.survey.stripped)
    try:
        stripped = containers.strip(picture.kind, original)
    except DamagedError:  # outside the pixels, which were decoded
        return None
    return None if stripped is None else Stripped([stripped])
