"""What runs in a worker process: it limits itself, then encodes one file after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging import process_limits, sandbox
from imgsvc.imaging.tasks import Answer, NeedsMemory, Refusal, Result, Task
from imgsvc.runtime.settings import Codec


def introduce() -> tuple[int, tuple[str, ...]]:
    """The process' id, and the protections that are in force."""
    return os.getpid(), sandbox.in_force()


def prepare(settings: Codec, folder: Path | None) -> None:
    """Limit and confine this process; call it once, before the first task.

    Args:
        settings: the limits.
        folder: where it reads and writes files; None: files are not restricted.
    """
    from imgsvc.imaging import tuning  # noqa: PLC0415 - the service itself never loads Pillow

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    process_limits.limit_process(settings.memory_bytes, settings.max_output_bytes)
    tuning.prepare_process()
    _discard_output()
    autogroup = process_limits.open_autogroup()
    sandbox.confine(folder)
    # Only now: a thread that runs already would not be confined.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if autogroup is not None:
        threading.Thread(
            target=process_limits.set_autogroup_niceness, args=(autogroup,), daemon=True
        ).start()


def _discard_output() -> None:
    # Decoders' libraries print what is wrong with a file, in words that the file may choose.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - needs its descriptor
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _die_with_parent() -> None:
    # The executor's queue never reports its end: each worker holds its writing side too.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def encode(task: Task, settings: Codec, memory_bytes: int | None) -> Answer:
    """Encode one file.

    Args:
        task: which.
        settings: limits of one image.
        memory_bytes: estimated memory that it may take; None for no bound.

    Raises:
        FileNotFoundError: the source is gone.
        OSError: the target cannot be written.
    """
    from imgsvc.imaging import admit, codec, tuning  # noqa: PLC0415

    started = time.monotonic()
    process_limits.limit_cpu_time(settings.task_s)
    limits = admit.Limits(
        max_pixels=settings.max_pixels,
        max_frames=settings.max_frames,
        max_total_pixels=settings.max_total_pixels,
        max_jpeg_scans=settings.max_jpeg_scans,
        memory_bytes=memory_bytes,
    )
    try:
        encoded = codec.encode(task.source.read_bytes(), task.recipe, limits)
    except admit.NeedsMemoryError as error:
        return NeedsMemory(error.needed_bytes)
    except ServiceError as error:
        return Refusal(error.code.name, error.detail)
    finally:
        tuning.release_memory()
    if len(encoded.data) > settings.max_output_bytes:
        return Refusal(
            ErrorCode.TOO_LARGE.name,
            f"The result has more than {settings.max_output_bytes:,} bytes; ask for another format.",
        )
    task.target.write_bytes(encoded.data)
    return Result(
        bytes_out=len(encoded.data),
        format=encoded.format,
        width=encoded.width,
        height=encoded.height,
        note=encoded.note,
        ms=round((time.monotonic() - started) * 1000),
    )
