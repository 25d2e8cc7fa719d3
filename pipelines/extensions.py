"""Where torch and DeepSpeed build their C++ extensions: a folder for each host, container and environment.

They guard a build by a lock that a killed process leaves behind, and on which every later one waits for ever. Whether a
lock is held is seen only among the processes of one container: none may share its folder with another.
"""

import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

from distill.errors import ModelError
from distill.files import digest
from pipelines.processes import space

VARIABLE = "TORCH_EXTENSIONS_DIR"
_LOCK = "lock"
_NVME = "machine.deepspeed.offload: nvme"
_PAUSE = 0.2
"""Between two looks at a lock: its holder closes it a moment before it removes it."""


def settle() -> Path:
    """Return the folder, made and set for this process and its children; a folder of the user's stays as it is.

    In one of ours, locks whose holders are dead are removed.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    environment = digest(sys.prefix, platform.python_version(), version("torch"), space())
    folder = _made(Path("distill") / "extensions" / f"{platform.node()}-{environment}")
    os.environ[VARIABLE] = str(folder)
    for lock in stale(folder):
        with suppress(OSError):
            lock.unlink()
    return folder


def build_for_disks(say: Callable[[str], None]) -> None:
    """Have DeepSpeed's extension that reads and writes disks ready, which without word of it would look like a training
    that hangs. Raise ModelError where it cannot be built.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    builder = AsyncIOBuilder()
    if not builder.is_compatible():
        raise ModelError(f"{_NVME} needs libaio and its headers (libaio-dev), which are not here")
    folder = settle() / builder.name
    if not (folder / f"{builder.name}.so").is_file():
        say(f"DeepSpeed builds its extension for disks in {folder}, once: this takes up to 15 minutes")
    try:
        builder.load(verbose=False)
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{_NVME} needs DeepSpeed's {builder.name}: {reason}") from error


def _made(name: Path) -> Path:
    """Return a folder of this name, made under the user's cache, or in the temporary folder where there is none that
    can be written to, as in a container under another user's number.
    """
    with suppress(OSError, RuntimeError):  # the latter: a user without a home
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    folder = _temporary() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _temporary() -> Path:
    """Return a folder of this user's in the temporary one. What lies in it is run: nobody else may write there."""
    folder = Path(tempfile.gettempdir()) / f"distill-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if mine else Path(tempfile.mkdtemp(prefix="distill-"))


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
    for lock in locks:
        with suppress(FileNotFoundError):  # its holder is done
            if str(lock.resolve()) not in held:
                yield lock, lock.stat().st_ino


def _open_files() -> set[str]:
    found: set[str] = set()
    for process in psutil.process_iter():
        try:
            found.update(file.path for file in process.open_files())
        except psutil.Error:  # another user's, or gone
            continue
    return found
