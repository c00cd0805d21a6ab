"""Workers and budgets keep within what the container may use: laid out as the kernel does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgsvc.runtime import cgroups
from imgsvc.runtime.cgroups import Limits
from imgsvc.runtime.settings import Settings

GB = 1 << 30
V1_NONE = "9223372036854771712"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lay_out(root: Path, membership: str, **files: str) -> Path:
    """The files of a machine; names are paths under ``sys/fs/cgroup``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V2 = "0::/\n"
NESTED = "0::/kubepods.slice/pod1.slice/scope\n"
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
CASES = {
    "a container of version 2": (
        V2,
        {"cpu.max": "150000 100000", "memory.max": "536870912"},
        1.5,
        GB // 2,
    ),
    "no limit": (V2, {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
    "only one of them": (V2, {"memory.max": "1073741824"}, None, GB),
    "less than a core": (V2, {"cpu.max": "5000 100000"}, 0.05, None),
    "another period": (V2, {"cpu.max": "20000 10000"}, 2.0, None),
    "the group above allows less": (
        NESTED,
        {
            "kubepods.slice/pod1.slice/scope/cpu.max": "400000 100000",
            "kubepods.slice/pod1.slice/cpu.max": "200000 100000",
            "kubepods.slice/cpu.max": "max 100000",
            "kubepods.slice/pod1.slice/scope/memory.max": "max",
            "kubepods.slice/memory.max": "2147483648",
        },
        2.0,
        2 * GB,
    ),
    "the name outside of a container that sees itself as the root": (
        NESTED,
        {"cpu.max": "100000 100000", "memory.max": "1073741824"},
        1.0,
        GB,
    ),
    "a name above the container's root": (
        "0::/../../other\n",
        {"cpu.max": "100000 100000"},
        1.0,
        None,
    ),
    "version 1": (
        V1,
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": "536870912",
            "memory/memory.limit_in_bytes": V1_NONE,
        },
        2.5,
        GB // 2,
    ),
    "version 1, a container that sees itself as the root": (
        V1.replace("cpu,cpuacct", "cpuacct,cpu"),
        {
            "cpu/cpu.cfs_quota_us": "50000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "1073741824",
        },
        0.5,
        GB,
    ),
    "version 1 without limits": (
        V1,
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": V1_NONE,
        },
        None,
        None,
    ),
    "both versions side by side": (
        "3:memory:/a\n0::/a\n",
        {"memory/a/memory.limit_in_bytes": "1073741824", "unified/a/cpu.max": "300000 100000"},
        3.0,
        GB,
    ),
    "files that nobody understands": (
        V2,
        {"cpu.max": "many 0", "memory.max": "-5"},
        None,
        None,
    ),
    "a period of nothing": (V2, {"cpu.max": "100 0"}, None, None),
    "empty files": (V2, {"cpu.max": "", "memory.max": ""}, None, None),
    "a membership that nobody understands": ("nonsense\n\n:::\n", {}, None, None),
}


@pytest.mark.parametrize(
    ("membership", "files", "cpus", "memory_bytes"), CASES.values(), ids=CASES.keys()
)
def test_the_least_of_all_limits_is_found(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: float, memory_bytes: int
) -> None:
    root = lay_out(tmp_path, membership, **files)
    assert cgroups.read(root) == Limits(cpus, memory_bytes)


def test_without_any_such_files_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroups.read(tmp_path) == Limits(None, None)


def test_a_folder_in_place_of_a_file_is_no_limit(tmp_path: Path) -> None:
    root = lay_out(tmp_path, V2)
    (root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert cgroups.read(root) == Limits(None, None)


def test_this_machine_can_be_read() -> None:
    found = cgroups.read()
    assert found.cpus is None or found.cpus > 0
    assert found.memory_bytes is None or found.memory_bytes > 1 << 20


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [(None, CORES), (0.05, 1), (1.0, 1), (1.5, min(2, CORES)), (CORES + 7.5, CORES)],
)
def test_workers_are_as_many_as_cores_and_quota_allow(cpus: float | None, workers: int) -> None:
    assert cgroups.fit(Settings(), Limits(cpus=cpus)).codec.workers == workers


def test_a_number_of_workers_that_is_said_stays() -> None:
    settings = Settings.model_validate({"codec": {"workers": 7}})
    assert cgroups.fit(settings, Limits(cpus=1.0)).codec.workers == 7


@pytest.mark.parametrize(
    ("memory", "codec", "bodies"),
    [
        (None, 2 * GB, GB // 8),
        (64 * GB, 2 * GB, GB // 8),
        (GB, GB // 2, GB // 8),
        (GB // 2, GB // 4, GB // 16),
        (GB // 16, GB // 32, 16 << 20),  # one body always fits
    ],
)
def test_budgets_are_the_lesser_of_setting_and_limit(
    memory: int | None, codec: int, bodies: int
) -> None:
    fitted = cgroups.fit(Settings(), Limits(memory_bytes=memory))
    assert (fitted.codec.budget_bytes, fitted.http.intake_bytes) == (codec, bodies)


def test_a_budget_that_is_less_stays() -> None:
    settings = Settings.model_validate({"codec": {"budget_bytes": 1000}})
    assert cgroups.fit(settings, Limits(memory_bytes=GB)).codec.budget_bytes == 1000
