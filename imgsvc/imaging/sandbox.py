"""Confine codec workers by means of the kernel, in case a file takes over a decoder.

A worker can open files in its own folder and in those of the libraries, and nowhere else (landlock).
It can make no socket, start no program and touch no other process (seccomp). It can gain no rights
(no new privileges). Nobody else can read the memory and environment of the service that it works for
(not dumpable).

Kernels and containers differ: each protection is used where it exists, and ``in_force`` tells which
are. Numbers and structures are those of the kernel's headers: linux/landlock.h, linux/seccomp.h,
linux/filter.h, linux/audit.h, linux/prctl.h and asm/unistd.h; see landlock(7), seccomp(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_GET_SECCOMP, _PR_SET_SECCOMP = 21, 22
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_SECCOMP_MODE_FILTER = 2

# System calls with the same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE_FILE | _MAKE_REG
_KNOWN = {
    1: 1 << 13,
    2: 1 << 14,
    3: 1 << 15,
    5: 1 << 16,
}  # version: all rights below this one are known


class _Calls(NamedTuple):
    """The numbers of system calls on one architecture.

    Attributes:
        architecture: its own number, as audit counts.
        network: socket socketpair bind listen accept accept4 connect sendto sendmsg.
        processes: execve execveat ptrace process_vm_readv process_vm_writev kcmp process_madvise
            pidfd_open pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo.
        kernel: io_uring_setup bpf perf_event_open userfaultfd open_by_handle_at keyctl add_key
            request_key unshare setns mount umount2 chroot pivot_root.
        own: kill tgkill; allowed if the first argument is this process.
        limits: prlimit64; allowed if the first argument is 0, which means this process.
    """

    architecture: int
    network: tuple[int, ...]
    processes: tuple[int, ...]
    kernel: tuple[int, ...]
    own: tuple[int, ...]
    limits: int


_CALLS = {
    "x86_64": _Calls(
        architecture=0xC000003E,
        network=(41, 53, 49, 50, 43, 288, 42, 44, 46),
        processes=(59, 322, 101, 310, 311, 312, 440, 434, 438, 424, 200, 129, 297),
        kernel=(425, 321, 298, 323, 304, 250, 248, 249, 272, 308, 165, 166, 161, 155),
        own=(62, 234),
        limits=302,
    ),
    "aarch64": _Calls(
        architecture=0xC00000B7,
        network=(198, 199, 200, 201, 202, 242, 203, 206, 211),
        processes=(221, 281, 117, 270, 271, 272, 440, 434, 438, 424, 130, 138, 240),
        kernel=(425, 280, 241, 282, 265, 219, 217, 218, 97, 268, 40, 39, 51, 41),
        own=(129, 131),
        limits=261,
    ),
}
_X32 = 0x40000000  # on x86_64: another numbering of the same calls
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of the classic Berkeley packet filter
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16

_PROBE = "/etc/passwd"  # everybody may read it, except in a sandbox


def hide() -> None:
    """Hide the memory and environment of this process from others of the same user, if possible.

    They cannot dump or trace it either; root still can. Programs that it starts are not hidden.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def is_hidden() -> bool:
    """Whether this process is hidden."""
    return _prctl(_PR_GET_DUMPABLE) == 0


def confine(folder: Path | None) -> None:
    """Confine this process and its future threads; it must have one thread when this is called.

    Args:
        folder: where it reads and writes files; None: files are not restricted.
    """
    if sys.platform != "linux":
        return
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) < 0:
        return  # the other protections need it
    if folder:
        _restrict_files(folder)
    _restrict_calls()


def in_force() -> tuple[str, ...]:
    """The protections that this process has."""
    found = []
    if _prctl(_PR_GET_NO_NEW_PRIVS) == 1:
        found.append("no_new_privileges")
    if _prctl(_PR_GET_SECCOMP) == _SECCOMP_MODE_FILTER:
        found.append("calls")
    if not _can_read(_PROBE):
        found.append("files")
    return tuple(found)


def _can_read(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    except OSError:  # which proves nothing
        return True
    return True


def _prctl(what: int, value: int | ctypes.Array[ctypes.c_char] = 0, more: object = 0) -> int:
    """What prctl answers; -1 if there is no such call or option."""
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return -1
    return int(call(what, value, more, 0, 0))


def _restrict_files(folder: Path) -> None:
    """Landlock: only files in the folder and the libraries can be opened."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return
    known = max(below for since, below in _KNOWN.items() if since <= version) - 1
    attributes = ctypes.create_string_buffer(struct.pack("=Q", known), 8)
    rules = call(_CREATE_RULESET, attributes, 8, 0)
    if rules < 0:
        return
    try:
        _allow(call, rules, [folder], known & (_READ | _WRITE | _TRUNCATE))
        _allow(call, rules, _libraries(), known & _READ)
        call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(call: object, rules: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # it may not exist
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
            granted = rights if path.is_dir() else rights & ~(_READ_DIR | _REMOVE_FILE | _MAKE_REG)
            rule = ctypes.create_string_buffer(struct.pack("=Qi", granted, at), 12)
            try:
                call(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)  # type: ignore[operator]
            finally:
                os.close(at)


def _libraries() -> list[Path]:
    """Where modules and shared libraries are that may still be loaded."""
    python = [Path(each) for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
    ours = [Path(__file__).parents[1], Path(os.__file__).parent, Path(sys.base_prefix) / "lib"]
    return [*ours, *python, *map(Path, system), Path(os.devnull)]


def _restrict_calls() -> None:
    """Seccomp: system calls that no decoder needs fail with EPERM."""
    calls = _CALLS.get(platform.machine())
    if not calls:
        return
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, calls.architecture)]
    program += [_answer(_REFUSE)]
    program += [(_LOAD, 0, 0, _NUMBER_AT)]
    program += [(_AT_LEAST, 0, 1, _X32), _answer(_REFUSE)]
    for number in (*calls.network, *calls.processes, *calls.kernel):
        program += [(_EQUAL, 0, 1, number), _answer(_REFUSE)]
    for number, who in [*((number, os.getpid()) for number in calls.own), (calls.limits, 0)]:
        program += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
        program += [(_EQUAL, 0, 1, who), _answer(_ALLOW), _answer(_REFUSE)]
    program += [_answer(_ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
    _prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(pointer, len(pointer))
    )


def _answer(what: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, what
