"""Ports of this machine for servers: free ones, which no client is given by chance."""

from __future__ import annotations

import itertools
import random
import socket

# Outside the ranges from which Linux and macOS take source ports: a client that keeps
# reconnecting to a server that is down could otherwise be given the server's own port.
PORTS = range(20_000, 32_000)

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Loopback ports on which nothing listens at the moment.

    Args:
        count: how many.
    """
    candidates = random.sample(PORTS, len(PORTS))
    return list(itertools.islice(filter(is_free, candidates), count))


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as probe:
        # As the servers do: the remains of closed connections are no hindrance, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
