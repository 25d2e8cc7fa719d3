"""Writing that is whole or not there, and digests of what was written."""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill.errors import DiskError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE = 1 << 20
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: Path, write: Callable[[Path], None], *, shared: bool = False) -> None:
    """Let `write` fill a sibling file, then put it in place of `path`: at any moment one of both is there, whole.

    The sibling of a writer that was killed is filled anew by the next. Where several processes may write the same file
    at a time (`shared`) each fills a sibling of its own. Raise DiskError where the disk takes no more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{platform.node()}-{os.getpid()}" if shared else ""
    partial = path.with_name(f".{path.name}{mine}.partial")
    try:
        write(partial)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
    except Exception as error:
        reason = no_room(error) or _no_room_beside(partial)
        with suppress(OSError):  # a full disk is no fuller for having been tried
            os.truncate(partial, 0)  # the error may hold the file open, which would keep its blocks
            partial.unlink(missing_ok=True)
        if reason:
            raise DiskError(
                f"{path}: {reason}; what was saved before is whole: make room, and the same command goes on from there"
            ) from error
        raise
    partial.replace(path)
    _sync_folder(path.parent)


def open_to_others(folder: Path) -> None:
    """Give all of a folder the access that the user's umask leaves to others: safetensors writes weights for their
    owner alone, and so are temporary folders made.
    """
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_UMASK)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a sibling folder to fill; put it in place of `folder` if nothing is raised, else leave nothing of it."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        open_to_others(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def no_room(error: BaseException) -> str:
    """Return what a disk said that takes no more, where that is why something failed; else nothing."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    text = os.strerror(errno.ENOSPC)  # libraries that write by themselves hand on the words alone
    return text if text in str(error) else ""


def want_of_room(error: BaseException) -> str:
    """Return what to tell a user whose disk takes no more, where that is why something failed; else nothing."""
    where = getattr(error, "filename", None) or "a file of the run"
    return f"{where}: {reason}; make room, and the same command goes on" if (reason := no_room(error)) else ""


def _no_room_beside(partial: Path) -> str:
    """Try to write a little more: torch's writer says nothing of why it failed."""
    try:
        with partial.open("ab") as handle:
            handle.write(bytes(_PROBE))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        return no_room(error)
    return ""


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda partial: _ignore(partial.write_text(text, encoding="utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, so that equal values are equal files."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def digest(*parts: str | bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 over the parts, each preceded by its length."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "little"))
        total.update(raw)
    return total.hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_input(path: Path) -> str:
    """Return the SHA-256 of a file that is only read, computed again where its size or time has changed: who waits for
    others asks every second, and a model has many gigabytes.
    """
    found = path.stat()
    return _digest_of_version(path.absolute(), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of_version(path: Path, *version: int) -> str:
    return digest_file(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ignore(_: object) -> None:
    return None
