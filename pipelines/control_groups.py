"""What the control groups of this process leave to it: containers and schedulers set them."""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_MEMORY = ("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
"""Files of limit and use, and what names in `memory.stat` begin with: of version 2, and of version 1."""


def cores() -> int | None:
    """Return the cores that the tightest limit allows, one at least; none where there is no limit (or version 1)."""
    found = [_text(folder / "cpu.max").split() for folder in _folders("cpu")]
    limits = [int(limit[0]) / int(limit[1]) for limit in found if len(limit) == 2 and limit[0] != "max"]
    return max(1, math.floor(min(limits))) if limits else None


def memory() -> int | None:
    """Return the bytes that the tightest limit leaves; none where there is no limit. Files that are kept to be read
    again count as free: the kernel drops them first.
    """
    left = []
    for folder in _folders("memory"):
        for limit_file, used_file, prefix in _MEMORY:
            limit, used = (_text(folder / name) for name in (limit_file, used_file))
            if limit.isdigit() and used.isdigit():
                stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
                kept = sum(int(stat.get(f"{prefix}{age}_file", 0)) for age in ("inactive", "active"))
                left.append(max(0, int(limit) - int(used) + kept))
    return min(left, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the groups of this process, the closest first. Inside of a container names may be those of its host; there
    the uppermost group that is seen is the container's.
    """
    for line in _text(OWN).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = ROOT / controllers
        group = top / name.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top) and folder.is_dir())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # not there, or not ours to read
        return ""
