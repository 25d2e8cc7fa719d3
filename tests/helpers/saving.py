"""Train as `tests.helpers.training` does, with a fault in the write of one checkpoint.

The fault is data, {"step": 8, "kind": "kill"}, in the variable SAVING: `kill` ends the process with half of the file
written, `full` is a disk that takes half of it, `signal` asks the training to stop while the file is written slowly.
"""

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from distill.callbacks import checkpoint_io
from tests.helpers import training


def main() -> None:
    """Train, with the fault."""
    fault = json.loads(os.environ.get("SAVING", "{}"))
    save = torch.save

    def faulty(checkpoint: dict[str, Any], partial: Path) -> None:
        if checkpoint["global_step"] != fault.get("step"):
            save(checkpoint, partial)
            return
        whole = io.BytesIO()
        save(checkpoint, whole)
        partial.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        match fault["kind"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "full":
                raise OSError(28, "No space left on device")
            case "signal":
                fault.clear()  # a training that stops at once saves this step again, and a second signal would end it
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
                partial.write_bytes(whole.getvalue())

    if fault:
        checkpoint_io.torch.save = faulty  # type: ignore[attr-defined]
    training.main()


if __name__ == "__main__":
    main()
