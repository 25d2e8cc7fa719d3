"""Files of checkpoints, whole or not there, written in the training's own time or beside it."""

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from distill.errors import ResumeError
from distill.files import write_atomically

_NAME = re.compile(r"step-(\d+)\.ckpt")
KEPT = 2
"""Checkpoints that stay: the newest ones."""


class AtomicIO(TorchCheckpointIO):
    """Write to a sibling file, sync, rename, then drop all but the newest files: Lightning's own way goes through
    TMPDIR and can leave half a file.

    In the background a step waits for a copy in the host's memory alone; one thread writes it. Lightning's own
    (`AsyncCheckpointIO`) copies on the device, lets any number of copies wait for the disk, and tells of an error one
    checkpoint late.
    """

    def __init__(self, *, background: bool = False) -> None:
        """Write in the `background`, or before the training goes on."""
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or begin to; the one before is written by then. Raise what went wrong with that one."""
        self.wait()
        if self._thread is None:
            _write(checkpoint, Path(path))
        else:
            self._writing = self._thread.submit(_write, on_host(checkpoint), Path(path))

    def look(self) -> None:
        """Raise what went wrong in the background, if anything has; wait for nothing."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Return once everything is written. Raise what went wrong."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def teardown(self) -> None:
        """Wait, however the training ends."""
        self.wait()


def on_host(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint whose tensors are copies in the host's memory; what is one tensor there stays one."""
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if key not in copies or not tensor.numel():
            copies[key] = tensor.detach().to("cpu", copy=True)
        return copies[key]

    found: dict[str, Any] = apply_to_collection(checkpoint, Tensor, copy)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first; half-written files are none."""
    found = [(int(match[1]), path) for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def newest(folder: Path, tell: Callable[[str], object]) -> Path | None:
    """Return the newest checkpoint that is whole, if there is any; `tell` of later ones that a disk has damaged. Raise
    ResumeError where all are: who has trained for days does not begin again unasked.
    """
    damaged: list[Path] = []
    for path in reversed(checkpoints(folder)):
        if is_whole(path):
            for bad in damaged:
                tell(f"{bad}: damaged since it was written; the training goes on from {path.name}")
            return path
        damaged.append(path)
    if damaged:
        names = " and ".join(path.name for path in reversed(damaged))
        raise ResumeError(
            f"{folder}: damaged since written: {names}, and there is no other checkpoint; put back a copy, or delete "
            "the folder and the training begins again"
        )
    return None


def is_whole(path: Path) -> bool:
    """Whether every part of a file has the checksum that torch wrote beside it."""
    try:
        with ZipFile(path) as parts:
            return parts.testzip() is None
    except (BadZipFile, EOFError):
        return False


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    write_atomically(path, lambda partial: torch.save(checkpoint, partial))
    for old in checkpoints(path.parent)[:-KEPT]:
        old.unlink()
