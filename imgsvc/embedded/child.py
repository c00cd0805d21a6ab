"""Runs one server, and sees to it that the server never outlives its owner.

``python -I -S child.py COMMAND ARG...``, standard input being a pipe whose other end
the owner holds. Each byte that arrives is the number of a signal for the server. End of file
means that the owner is gone, however it went: the kernel closes a pipe even after ``kill -9``.
Then the whole process group dies. A pipe is all this needs, so it works on every POSIX system;
Linux's parent-death signal would not (and it fires when the forking *thread* ends).

Exits as the server does, 128 + n for a server killed by signal n. Uses only the standard
library and is run by path, so that starting it costs milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> None:
    """Runs ``command`` until it exits or the pipe on standard input closes.

    Args:
        command: the program and its arguments.
    """
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command
    threading.Thread(target=_exit_like, args=(server,), daemon=True).start()
    while order := os.read(sys.stdin.fileno(), 1):
        server.send_signal(order[0])
    os.kill(0, signal.SIGKILL)  # 0 is the group: the server, its forks and this process


def _exit_like(server: subprocess.Popen[bytes]) -> None:
    code = server.wait()
    os._exit(code if code >= 0 else 128 - code)  # the main thread is busy reading


if __name__ == "__main__":
    main(sys.argv[1:])
