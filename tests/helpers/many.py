"""Run train stages one after the other in one process, or in the processes torch's launcher starts: starting takes
longer than training does here.

python -m tests.helpers.many JOBS.json     where the file lists [run file, output, overrides] of each
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers import warm
from tests.helpers.training import stage

Job = tuple[Path, Path, Sequence[str]]
"""A run file, a folder to train in, and overrides."""


def listed(jobs: Sequence[Job], folder: Path, *overrides: str) -> Path:
    """Write down jobs, each with some more overrides, for `main`."""
    path = folder / f"jobs-{len(list(folder.glob('jobs-*')))}.json"
    path.write_text(json.dumps([(str(run), str(output), [*given, *overrides]) for run, output, given in jobs]))
    return path


def train_all(jobs: Sequence[Job], folder: Path, processes: int = 1) -> None:
    """Train the stage `student` of each job, on processes of its own."""
    every = listed(jobs, folder, *([f"machine.devices={processes}"] if processes > 1 else []))
    done = warm.run("tests.helpers.many", str(every), processes=processes if processes > 1 else None, timeout=900)
    assert done.returncode == 0, done.stderr[done.stderr.find("Traceback") :][:5000]


def main() -> None:
    """Train what the file lists."""
    for run, output, overrides in json.loads(Path(sys.argv[1]).read_text()):
        Path(output).mkdir(parents=True, exist_ok=True)
        print(f"{output} {overrides}", file=sys.stderr)
        stage(run, "student", tuple(overrides)).run(Path(output))


if __name__ == "__main__":
    main()
