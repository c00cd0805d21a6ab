"""GIF files as blocks.

Source: GIF89a §17-26.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgsvc.imaging.containers.structure import MAX_FILL_BYTES, DamagedError, Survey, bounded

_LOOP_EXTENSIONS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


@bounded
def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and whole bytes of each block; the name is ``,`` or ``!`` with a label.

    The first block is the header, whose name is empty.
    """
    try:
        at, fill = 13 + _colour_table(data[10]), 0
        yield b"", data[:at]
        while data[at] != ord(";"):
            start = at
            if data[at] == ord(","):
                name, at = b",", at + 10 + _colour_table(data[at + 9]) + 1
            elif data[at] == ord("!"):
                name, at = data[at : at + 2], at + 2
            elif data[at] == 0 and fill < MAX_FILL_BYTES:
                at, fill = at + 1, fill + 1  # stray terminators exist, and every viewer skips them
                continue
            else:
                raise DamagedError("the GIF has an unknown block")
            while size := data[at]:
                at += size + 1
            at += 1
            yield name, data[start:at]
    except IndexError:
        raise DamagedError("the GIF has no trailer") from None


def _colour_table(flags: int) -> int:
    """Size in bytes of the colour table that packed flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def survey(data: bytes) -> Survey:
    """Count frames."""
    return Survey(frames=sum(name == b"," for name, _ in _blocks(data)), lossless=True)


def strip(data: bytes) -> bytes:
    """Keep the header, pictures, their timing and disposal, and the loop count."""
    kept = (
        whole
        for name, whole in _blocks(data)
        if name in {b"", b",", b"!\xf9"} or (name == b"!\xff" and whole[3:14] in _LOOP_EXTENSIONS)
    )
    return b"".join(kept) + b";"
