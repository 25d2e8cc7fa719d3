"""A stage: reads its inputs, writes under its own folder, and is done or not."""

import json
import shutil
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from filelock import FileLock

from distill.errors import ModelError
from distill.files import digest_file, write_json

if TYPE_CHECKING:
    from pipelines.run import Run

MARKER = "stage.json"
Config = TypeVar("Config")


class Stage(ABC, Generic[Config]):
    """One unit of work of a run, final where implemented."""

    kind: str
    joint = False
    """Whether any number of processes may carry it out together."""
    scratch = ""
    """The folder of its own that is of use only until it is done; none if empty."""

    def __init__(self, run: "Run", name: str, config: Config, seed: int | None = None) -> None:
        """Take the run and the stage's own section; `seed` is the repeat it belongs to, none if all share it."""
        self.name = name
        self.seed = seed
        self._run = run
        self._config = config

    @property
    def in_step(self) -> bool:
        """Whether the ranks of one start have to carry it out at the same time, though others may join in."""
        return False

    @property
    def title(self) -> str:
        """Its name for the screen."""
        return self.name if self.seed is None else f"{self.name} · seed {self.seed}"

    def folder(self, run: Path) -> Path:
        """Where it writes: `stage/`, or `seed-n/stage/`."""
        return run / self.name if self.seed is None else run / f"seed-{self.seed}" / self.name

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of configuration and inputs: done under the same fingerprint is done."""

    @abstractmethod
    def run(self, output: Path) -> dict[str, Any]:
        """Do the work under `output`; return results that JSON can hold."""

    def help(self, output: Path) -> None:
        """Do what a rank beside rank 0 does for it: its share of a joint stage, of most others nothing."""
        if self.joint:
            self.run(output)


def is_done(stage: Stage[Any], run: Path) -> bool:
    """Whether the stage was finished with the same configuration and inputs, and its files are there."""
    marker = stage.folder(run) / MARKER
    try:
        written = json.loads(marker.read_text(encoding="utf-8"))
    except FileNotFoundError:  # not there yet, or taken away by who does it again
        return False
    present = all((marker.parent / name).is_file() for name in written["files"])
    return bool(written["fingerprint"] == stage.fingerprint() and present)


def carry_out(stage: Stage[Any], run: Path) -> dict[str, Any]:
    """Run the stage, then mark it done: what it wrote counts from that moment on. Of several processes that carry out a
    joint stage, the first to end marks it.
    """
    folder = stage.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(stage, folder):
        if not (stage.joint and is_done(stage, run)):
            (folder / MARKER).unlink(missing_ok=True)
    began = time.monotonic()
    results = stage.run(folder)
    seconds = round(time.monotonic() - began, 1)
    with _alone(stage, folder):
        if stage.joint and is_done(stage, run):
            return results_of(folder)
        done = {
            "kind": stage.kind,
            "seed": stage.seed,
            "fingerprint": stage.fingerprint(),
            "seconds": seconds,
            "results": results,
            "files": _digests(stage, folder),
        }
        write_json(folder / MARKER, done)
    tidy(stage, run)
    return done


def tidy(stage: Stage[Any], run: Path) -> None:
    """Take away what is of no more use once the stage is marked done; one that is cut before goes on from it."""
    if stage.scratch:
        shutil.rmtree(stage.folder(run) / stage.scratch, ignore_errors=True)


def _alone(stage: Stage[Any], folder: Path) -> AbstractContextManager[object]:
    """Keep others who carry out a joint stage from its mark."""
    return FileLock(folder / ".lock") if stage.joint else nullcontext()


def results_of(folder: Path) -> dict[str, Any]:
    """Return what a finished stage wrote down. Raise ModelError where it is not finished."""
    try:
        done: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"stages.{folder.name}: it is not done yet; `distill run` does it") from None
    return done


def _digests(stage: Stage[Any], folder: Path) -> dict[str, str]:
    """Digests of the files others read: models and tables, not logs."""
    kept = [path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".parquet", ".onnx")]
    named = [(path.relative_to(folder), path) for path in kept]
    return {str(name): digest_file(path) for name, path in named if name.parts[0] != stage.scratch}
