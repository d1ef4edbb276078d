"""Free memory: what the machine, control groups and resource limits leave to this process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

import fastrsx
from fastrsx.system import memory

MB = 2**20


def group(folder, limit, use, stat):
    """The folder of a control group: its limit and use, each with the name of its file, and memory.stat."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (limit, use):
        (folder / name).write_text(f"{content}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in stat.items()))


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A machine whose control groups are files that a test writes; returns their root, and a function that puts this process into some of them."""
    monkeypatch.setattr(memory, "MOUNT", tmp_path)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")

    def member_of(*lines):
        (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    return tmp_path, member_of


def test_a_group_of_version_2_has_its_limit_minus_its_use(cgroups):
    root, member_of = cgroups
    member_of("0::/jobs/mine")
    group(
        root / "jobs/mine",
        ("memory.max", 900 * MB),
        ("memory.current", 800 * MB),
        {"anon": 300 * MB, "active_file": 200 * MB, "inactive_file": 300 * MB},
    )
    assert memory.free() == 600 * MB  # the page cache is reclaimed when memory is needed


def test_the_tightest_group_above_counts(cgroups):
    root, member_of = cgroups
    member_of("0::/jobs/mine")
    group(root / "jobs/mine", ("memory.max", "max"), ("memory.current", 10 * MB), {})
    group(root / "jobs", ("memory.max", 500 * MB), ("memory.current", 450 * MB), {"inactive_file": 0, "slab_reclaimable": 5 * MB})
    assert memory.free() == 55 * MB


def test_a_group_of_version_1(cgroups):
    root, member_of = cgroups
    member_of("5:cpu,cpuacct:/docker/x", "4:memory:/docker/x", "0::/")
    names = {"total_active_file": 20 * MB, "total_inactive_file": 30 * MB, "active_file": 7, "total_rss": 50 * MB}
    # In a container the group itself is mounted.
    group(root / "memory", ("memory.limit_in_bytes", 200 * MB), ("memory.usage_in_bytes", 100 * MB), names)
    assert memory.free() == 150 * MB


def test_a_full_group_has_nothing_left(cgroups):
    root, member_of = cgroups
    member_of("0::/")
    group(root, ("memory.max", 100 * MB), ("memory.current", 101 * MB), {"inactive_file": 0})
    assert memory.free() == 0


def test_without_limits_the_machine_decides(cgroups):
    _, member_of = cgroups
    member_of("0::/nowhere", "1:name=systemd:/")
    assert 0 < memory.free() <= psutil.virtual_memory().total + psutil.swap_memory().total


def test_what_a_group_uses_is_not_promised_again(cgroups):
    """The check before an allocation, and the choice to stream, use the memory that is left, not the limit."""
    root, member_of = cgroups
    member_of("0::/")
    group(root, ("memory.max", 900 * MB), ("memory.current", 700 * MB), {"anon": 700 * MB})
    with pytest.raises(MemoryError, match=r"the thing needs 0.419 GB, and 0.21 GB are free"), memory.room_for("the thing", 50 * MB):
        pass


def test_a_map_is_streamed_by_what_is_left(cgroups, tmp_path):
    root, member_of = cgroups
    member_of("0::/")
    A = np.memmap(tmp_path / "A.bin", mode="w+", dtype=float, shape=(300 * MB // 8, 1))  # a sparse file
    group(root, ("memory.max", 900 * MB), ("memory.current", 100 * MB), {"anon": 100 * MB})
    assert fastrsx.plan(A).loader == "in place"
    group(root, ("memory.max", 900 * MB), ("memory.current", 600 * MB), {"anon": 600 * MB})
    assert fastrsx.plan(A).loader == "stream"
    group(root, ("memory.max", 900 * MB), ("memory.current", 600 * MB), {"anon": 100 * MB, "inactive_file": 500 * MB})
    assert fastrsx.plan(A).loader == "in place"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
@pytest.mark.parametrize("limit", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_a_resource_limit_counts_minus_what_is_used(limit):
    code = (
        f"import resource, psutil; from fastrsx.system import memory; resource.setrlimit(resource.{limit}, (2**33, 2**33)); "
        "used = psutil.Process().memory_info(); left = memory.free(); "
        f"used = used.data if '{limit}' == 'RLIMIT_DATA' else used.vms; print(left - (2**33 - used))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path.home())
    assert abs(int(run.stdout)) <= 16 * MB
