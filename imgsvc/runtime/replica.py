"""Which process this is, among all that ever share the work."""

from __future__ import annotations

import os
import secrets
import socket


def new_replica_id() -> str:
    """An id that no other process ever had: host, process and chance."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
