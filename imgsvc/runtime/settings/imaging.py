"""``[spool]``, ``[codec]`` and ``[dedupe]``: where images wait, how they are encoded, and how often."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from imgsvc.runtime.settings.section import Count, Positive, Section


class Spool(Section):
    """Where fetched and encoded files wait for the next actor."""

    dir: Path = Field(
        Path("/tmp/imgsvc-spool"),  # noqa: S108 - each replica makes its own 0700 folder
        description="Each process makes a folder of its own in it; tmpfs is fine.",
    )
    quota_bytes: Count = Field(
        2 * 1024 * 1024 * 1024, description="Above so many bytes of files, fetching pauses."
    )


class Codec(Section):
    """How images are decoded and encoded."""

    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Processes. 0: one for each core that the container may use."
    )
    task_s: Positive = Field(60.0, description="For one image; then its worker is killed.")
    tasks_per_worker: Count = Field(2000, description="Images, after which a worker is replaced.")
    memory_bytes: Count = Field(3 * 1024 * 1024 * 1024, description="Memory of one worker.")
    budget_bytes: Count = Field(
        2 * 1024 * 1024 * 1024,
        description="Memory of all workers together, by estimate; large images wait for it. At "
        "most half of the container's memory.",
    )
    max_pixels: Count = Field(50_000_000, description="Width x height of an image.")
    max_frames: Count = Field(200, description="Frames of an animation.")
    max_total_pixels: Count = Field(200_000_000, description="Width x height x frames.")
    max_jpeg_scans: Count = Field(100, description="Scans of a progressive JPEG.")
    max_output_bytes: Count = Field(
        256 * 1024 * 1024,
        description="One result; a small file can ask for one that fills the spool.",
    )

    @property
    def worker_count(self) -> int:
        """Worker processes to run: as set, or one for each core this process may use."""
        if self.workers:
            return self.workers
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


class Dedupe(Section):
    """Doing the same work once."""

    enabled: bool = Field(
        default=True, description="Whether an address that a request has twice is worked on once."
    )
    ttl_s: Annotated[float, Field(ge=0)] = Field(
        24 * 3600.0,
        description="How long a tenant's results are used again for unchanged sources. 0: never.",
    )
