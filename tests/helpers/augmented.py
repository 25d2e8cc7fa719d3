"""Augment rows as the ranks of one start do, in parts small enough to be many.

python -m tests.helpers.augmented RUN.yaml OUTPUT     writes OUTPUT/made-RANK.json, the parts this rank made
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.load import load
from distill.data import augmented
from pipelines.augment import Augment
from pipelines.machine import prepare
from pipelines.place import is_helper
from pipelines.run import Run

ROWS_A_PART = 8
PATIENCE = 20.0
"""Seconds a rank waits, after its first part, for another rank to make one too."""


def main() -> None:
    """Augment; each rank goes on once every rank has made a part."""
    path, output = sys.argv[1], Path(sys.argv[2])
    ranks, made = int(os.environ.get("WORLD_SIZE", "1")), []
    augmented.ROWS_A_PART = ROWS_A_PART
    write = augmented._write

    def noted(part: Any, place: Path, *rest: Any) -> None:
        write(part, place, *rest)
        made.append(place.name)
        until = time.monotonic() + PATIENCE
        while len(list(output.glob("part-*"))) < ranks and time.monotonic() < until:
            time.sleep(0.02)

    augmented._write = noted
    pipeline = load(path).pipeline
    stage = Augment(
        Run(pipeline, prepare(pipeline.machine), Console(quiet=True)), "augment", pipeline.stages["augment"]
    )
    if is_helper():
        stage.help(output)
    else:
        (output / "results.json").write_text(json.dumps(stage.run(output)))
    (output / f"made-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(made))


if __name__ == "__main__":
    main()
