"""Carry out a run in the processes of torch's launcher, and write down what each of them loads and holds.

python -m tests.helpers.counted RUN.yaml OUTPUT [OVERRIDE …]     writes rank-N.json into OUTPUT
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.load import load
from pipelines import runner
from pipelines.machine import prepare
from pipelines.place import is_helper
from pipelines.run import Run
from teachers import sharded
from tests.helpers import warm
from tests.helpers.shards import private
from tests.helpers.training import Train


def carry_out(run: Path, output: Path, *overrides: str, processes: int = 2) -> list[dict[str, Any]]:
    """Carry a run out; return how often each rank dealt a teacher out, and the bytes it held after each training."""
    output.mkdir(parents=True, exist_ok=True)
    given = [str(run), str(output), f"machine.devices={processes}", *overrides]
    done = warm.run("tests.helpers.counted", *given, processes=processes)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def main() -> None:
    """Carry out a run, and count."""
    loaded = load(sys.argv[1], sys.argv[3:])
    deal_out, train = sharded._load, Train.run
    found: dict[str, Any] = {"loads": 0, "held": []}

    def counted(*given: Any) -> Any:
        found["loads"] += 1
        return deal_out(*given)

    def weighed(self: Train, output: Path) -> dict[str, Any]:
        results = train(self, output)
        gc.collect()
        found["held"].append(private())
        return results

    sharded._load, Train.run = counted, weighed  # type: ignore[method-assign]
    run = Run(loaded.pipeline, prepare(loaded.pipeline.machine), Console(quiet=is_helper()))
    runner.walk(run, loaded)
    (Path(sys.argv[2]) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
