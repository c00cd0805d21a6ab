"""The cases, by the name they are chosen with, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.cases import api, express, fairness, growth, memory, overhead, peers, replicas, share
from bench.figures import Figure
from bench.lab import Lab

CASES: dict[str, Callable[[Lab], Awaitable[list[Figure]]]] = {
    "overhead": overhead.run,
    "share": share.run,
    "peers": peers.run,
    "express": express.run,
    "api": api.run,
    "growth": growth.run,
    "fairness": fairness.run,
    "replicas": replicas.run,
    "memory": memory.run,
}
