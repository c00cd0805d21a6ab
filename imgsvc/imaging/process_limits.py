"""Limits that a worker process puts on itself: memory, CPU time, size of files, and niceness."""

from __future__ import annotations

import contextlib
import os
import resource
import time

_NICE = 5  # below the service, which also feeds the workers, and below servers beside it


def limit_process(memory_bytes: int, max_output_bytes: int) -> None:
    """Set the limits that hold for the life of the process, in a session of its own.

    Args:
        memory_bytes: address space.
        max_output_bytes: size of a file that it writes.
    """
    os.nice(_NICE)
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # Writing more fails with EFBIG: Python ignores the signal that would kill.
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_output_bytes, max_output_bytes))


def limit_cpu_time(task_s: float) -> None:
    """Have the kernel kill the process if the next task takes twice its time on the CPU.

    The limit counts from the start of the process. The default action of SIGXCPU kills at once,
    where a handler in Python would wait for the decoder to return.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + task_s * 2) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


def open_autogroup() -> int | None:
    """A descriptor for ``set_autogroup_niceness``; None if the kernel has no such thing."""
    try:
        return os.open("/proc/self/autogroup", os.O_WRONLY)
    except OSError:
        return None


def set_autogroup_niceness(descriptor: int) -> None:
    """Make the session of this process as nice as the process; this may wait for a second.

    Where the kernel shares its processors among sessions (autogroup, see sched(7)), the niceness of
    a process counts within its session only. So each worker has a session, and that is nice too.
    """
    done = False
    with contextlib.suppress(OSError), os.fdopen(descriptor, "wb", 0) as group:
        while not done:
            # The kernel takes ten of these a second from all users together.
            try:
                done = bool(group.write(str(_NICE).encode()))
            except BlockingIOError:
                time.sleep(0.1)
