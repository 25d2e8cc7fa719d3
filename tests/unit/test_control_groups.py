"""What containers and schedulers leave to a process, as the kernel's files tell it."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipelines import control_groups
from pipelines.machine import Device, usable_cores
from pipelines.room import free_for

GB = 10**9


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(control_groups, "ROOT", tmp_path / "fs")
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
    return tmp_path


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def _version_2(root: Path) -> None:
    """A step of a job that may have 8 GB, of which 3 are used, one of them by files that are kept."""
    (root / "own").write_text("0::/job/step\n", encoding="utf-8")
    _group(root / "fs", **{"cgroup.controllers": "cpu memory"})
    stat = f"anon {2 * GB}\ninactive_file {GB // 2}\nactive_file {GB // 2}"
    _group(
        root / "fs/job",
        **{"memory.max": 8 * GB, "memory.current": 3 * GB, "memory.stat": stat, "cpu.max": "150000 100000"},
    )
    _group(
        root / "fs/job/step", **{"memory.max": "max", "memory.current": GB, "memory.stat": "", "cpu.max": "max 100000"}
    )


def _version_1(root: Path) -> None:
    """A container whose groups have names of the host; the same numbers."""
    (root / "own").write_text("5:cpu,cpuacct:/docker/a1\n4:memory:/docker/a1\n1:name=systemd:/\n", encoding="utf-8")
    stat = f"inactive_file 0\nactive_file 0\ntotal_inactive_file {GB // 2}\ntotal_active_file {GB // 2}"
    files = {"memory.limit_in_bytes": 8 * GB, "memory.usage_in_bytes": 3 * GB, "memory.stat": stat}
    _group(root / "fs/memory", **files)


@pytest.mark.parametrize("groups", [_version_2, _version_1])
def test_memory_is_what_the_tightest_limit_leaves(root, groups):
    groups(root)
    assert control_groups.memory() == 6 * GB


def test_a_process_without_limits_has_none(root):
    (root / "own").write_text("0::/\n", encoding="utf-8")
    _group(root / "fs", **{"cgroup.controllers": "cpu memory"})
    assert control_groups.memory() is None and control_groups.cores() is None


def test_cores_are_those_of_the_tightest_limit(root):
    _version_2(root)
    assert control_groups.cores() == usable_cores() == 1


@pytest.mark.parametrize(("kind", "part"), [("cpu", "device"), ("gpu", "host")])
def test_what_is_free_for_a_run_stays_within_the_limit(root, monkeypatch, kind, part):
    (root / "own").write_text("0::/\n", encoding="utf-8")
    there = psutil.virtual_memory().available
    _group(root / "fs", **{"memory.max": there // 2, "memory.current": there // 4, "memory.stat": ""})
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (GB, GB))
    run = SimpleNamespace(device=Device(kind, 2, 1, fast_fp32=False))
    assert getattr(free_for(run), part) == (there // 2 - there // 4) // 2
