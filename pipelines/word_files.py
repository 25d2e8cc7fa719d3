"""The words of processes in files of a folder that all of them see."""

import json
from dataclasses import asdict
from pathlib import Path

from pipelines.blame import Word


def changed(path: Path) -> int:
    """Return when a file was written last; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:  # not there yet, or no more
        return 0


def write(path: Path, word: Word) -> None:
    """Write a word down as a whole, if it can be."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)  # a run that begins beside processes that joined it drops it
        partial.write_text(json.dumps(asdict(word)), encoding="utf-8")
        partial.replace(path)
    except OSError:  # a full disk, or a folder that is gone: these are only words
        return


def read(path: Path) -> Word | None:
    """Return the word in a file; none where there is none that can be read."""
    try:
        return Word(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
