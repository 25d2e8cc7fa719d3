"""Where torch and DeepSpeed build their C++ extensions: a folder for each host and environment.

They guard a build by a lock that a killed process leaves behind, and on which every later one waits for ever.
"""

import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil

from distill.files import digest

VARIABLE = "TORCH_EXTENSIONS_DIR"
_LOCK = "lock"
_PAUSE = 0.2
"""Between two looks at a lock: its holder closes it a moment before it removes it."""


def settle() -> Path:
    """Return the folder, made and set for this process and its children; a folder of the user's stays as it is.

    In one of ours, locks whose holders are dead are removed.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    environment = digest(sys.prefix, platform.python_version(), version("torch"))
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = home / "distill" / "extensions" / f"{platform.node()}-{environment}"
    os.environ[VARIABLE] = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for lock in stale(folder):
        lock.unlink(missing_ok=True)
    return folder


def stale(folder: Path) -> list[Path]:
    """Return the locks that no process of this host holds."""
    found = set(_unheld(folder))
    if not found:
        return []
    time.sleep(_PAUSE)
    return [lock for lock, number in _unheld(folder) if (lock, number) in found]


def _unheld(folder: Path) -> Iterator[tuple[Path, int]]:
    locks = [lock for lock in folder.glob(f"*/{_LOCK}") if lock.is_file()]
    held = _open_files() if locks else set()
    yield from ((lock, lock.stat().st_ino) for lock in locks if lock.exists() and str(lock.resolve()) not in held)


def _open_files() -> set[str]:
    found: set[str] = set()
    for process in psutil.process_iter():
        try:
            found.update(file.path for file in process.open_files())
        except psutil.Error:  # another user's, or gone
            continue
    return found
