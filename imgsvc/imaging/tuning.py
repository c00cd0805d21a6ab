"""Tune Pillow for a worker process, which does one image after the other."""

from __future__ import annotations

from PIL import AvifImagePlugin, Image


def prepare_process() -> None:
    """Tune Pillow; call this once, in the worker process.

    Keeping freed 16 MB blocks instead of returning them avoids page faults: 40 % of the CPU.
    """
    Image.core.set_blocks_max(16)  # type: ignore[attr-defined]
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the pool has a process per core


def release_memory() -> None:
    """Return the memory that a very large image leaves behind; call this after each image.

    A photograph of 12 megapixels leaves 9 blocks, which stay for the next one.
    """
    if Image.core.get_stats()["blocks_cached"] > 9:  # type: ignore[attr-defined]  # noqa: PLR2004
        Image.core.clear_cache()  # type: ignore[attr-defined]
