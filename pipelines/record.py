"""The record stage: the teacher's logits of every row, written once."""

from pathlib import Path
from typing import Any

import torch

from configs.stages import RecordStage
from distill.callbacks.progress import ProgressLine
from distill.files import digest
from pipelines.frozen_teacher import frozen_teacher
from pipelines.run import Run
from pipelines.stage import Stage
from teachers.record import write_record


class RecordTeacher(Stage[RecordStage]):
    """Writes logits in parts; a recording that was cut goes on at the next."""

    kind = "record"

    def fingerprint(self) -> str:
        """Depend on the teacher, the task and the rows."""
        run, config = self._run, self._config
        rows = [run.source_fingerprint(name) for name in config.data]
        teacher = run.teacher_fingerprint(config.teacher)
        return digest("record", config.model_dump_json(), run.config.task.model_dump_json(), teacher, *rows)

    def run(self, output: Path) -> dict[str, Any]:
        """Write the logits of all rows, in fp32."""
        run, config = self._run, self._config
        device = torch.device(run.device.torch_name)
        loaded = run.load_teacher(config.teacher)
        teacher = frozen_teacher(run, config.teacher, loaded)
        teacher.to(device)
        table = run.table(config.data, "teacher")
        with ProgressLine(run.console, self.title, "rows") as line:
            rows = write_record(
                teacher,
                table,
                output,
                pad_id=loaded.tokenizer.pad_token_id,
                device=device,
                top_k=kept(run, config),
                progress=line.advance,
            )
        return {"rows": rows}


def kept(run: Run, stage: RecordStage) -> int | None:
    """Return how many outputs are kept of each position, of words all; none where rows have one answer each."""
    match run.config.task.kind:
        case "generation":
            return stage.top_k
        case "tagging":
            return len(run.labels)
        case _:
            return None
