"""The record stage: the teacher's logits of every row, written once."""

from pathlib import Path
from typing import Any

import torch

from configs.stages import RecordStage
from distill.callbacks.progress import ProgressLine
from distill.files import digest
from distill.models import ModelSource, fingerprint
from distill.protocols import Teacher
from pipelines.frozen_teacher import frozen_teacher
from pipelines.generate import others, voices
from pipelines.meet import meet
from pipelines.place import job_of_array, own_device, share
from pipelines.run import Run
from pipelines.stage import Stage
from teachers.ensemble import EnsembleTeacher
from teachers.live import LiveTeacher
from teachers.recording import Recording, write_record


class RecordTeacher(Stage[RecordStage]):
    """Writes logits in parts; a recording that was cut goes on at the next, and any number of processes may take part.

    The ranks of a sharded teacher work as one: they share the rows of each part.
    """

    kind = "record"
    joint = True

    @property
    def in_step(self) -> bool:
        """Whether its teacher is asked by all ranks."""
        return self._run.teacher_is_sharded

    def fingerprint(self) -> str:
        """Depend on the teacher, the task and the rows."""
        run, config = self._run, self._config
        rows = [run.source_fingerprint(name) for name in config.data]
        teacher = voices(run, config)
        return digest("record", config.model_dump_json(), run.config.task.key(), teacher, *rows)

    def run(self, output: Path) -> dict[str, Any]:
        """Write the logits of all rows, in fp32."""
        run, config = self._run, self._config
        device = meet(run) if self.in_step else torch.device(own_device(run.device.torch_name))
        loaded = run.load_teacher(config.teacher)
        teacher = self._joined(frozen_teacher(run, config.teacher, loaded))
        teacher.to(device)
        table, pad = run.table(config.data, "teacher"), loaded.tokenizer.pad_token_id
        what = Recording(teacher, table, pad, device, kept(run, config))
        rank, ranks = job_of_array() if self.in_step else share()
        with ProgressLine(run.console, self.title, "parts") as line:
            rows = write_record(what, output, rank=rank, ranks=ranks, progress=line.advance)
        return {"rows": rows}

    def _joined(self, teacher: Teacher) -> Teacher:
        """Join the teacher with the other models of the stage."""
        run, config = self._run, self._config
        if not config.ensemble:
            return teacher
        named = zip(config.ensemble, others(run, config, f"stages.{self.name}"), strict=True)
        more = [LiveTeacher(one, run.config.task, fingerprint(ModelSource(path))) for path, one in named]
        return EnsembleTeacher([teacher, *more])


def kept(run: Run, stage: RecordStage) -> int | None:
    """Return how many outputs are kept of each position, of words all; none where rows have one answer each."""
    match run.config.task.kind:
        case "generation":
            return stage.top_k
        case "tagging":
            return len(run.labels)
        case _:
            return None
