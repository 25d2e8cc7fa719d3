"""What a run must be like whose student has a vocabulary of its own, or which has no teacher model."""

from configs.data import StageData
from configs.references import Findings, Parts, stages_before
from configs.stages import AugmentStage, GenerateStage, RecordStage, TrainStage
from configs.students import FolderStudent, LayersStudent, SizedStudent
from configs.teachers import AbsentTeacher


def check_vocabulary(parts: Parts) -> Findings:
    """Check that a student with other tokens is compared with its teacher's nowhere, and can learn them in time."""
    if isinstance(parts.teacher, AbsentTeacher):
        yield from _check_absent(parts)
    if not isinstance(parts.student, SizedStudent) or parts.student.vocabulary is None:
        return
    if parts.task is not None and parts.task.kind != "generation":
        what = f"is for models that write, and `task.kind` is `{parts.task.kind}`; leave it out"
        yield ("student", "vocabulary"), what
    stages = [(name, stage) for name, stage in parts.stages.items() if isinstance(stage, TrainStage)]
    trained = [(name, stage) for name, stage in stages if stage.trains == "student"]
    for name, stage in trained:
        if stage.teacher != "none":
            what = "the student's vocabulary is its own, and its tokens are not the teacher's; write `teacher: none`"
            yield ("stages", name, "teacher"), what
    first = next((name for name, _ in trained), "")
    for source in dict.fromkeys(source for _, stage in trained for source in stage.data):
        written = parts.data.get(source)
        if isinstance(written, StageData) and written.stage not in stages_before(parts, first):
            what = f"the student's vocabulary is learnt from `{source}` too: let `{written.stage}` come before"
            yield ("stages", first), what


def _check_absent(parts: Parts) -> Findings:
    if parts.task is not None and parts.task.kind != "generation":
        what = f"without a teacher model students learn from texts, and `task.kind` is `{parts.task.kind}`"
        yield ("teacher", "kind"), what
    match parts.student:
        case SizedStudent(vocabulary=None):
            yield ("student", "vocabulary"), "there is no teacher to take one from; give its size, as 8000"
        case LayersStudent():
            yield ("student", "kind"), "there is no teacher to take layers from; Choices: folder, sizes"
        case SizedStudent() | FolderStudent() | None:
            pass
    for name, stage in parts.stages.items():
        match stage:
            case TrainStage(trains="student", teacher="none"):
                continue
            case TrainStage(trains="student"):
                yield ("stages", name, "teacher"), "the run has none (`teacher.kind: none`); write `teacher: none`"
            case TrainStage() | RecordStage() | AugmentStage():
                yield ("stages", name), "needs a teacher model, and `teacher.kind` is `none`"
            case GenerateStage(endpoint=None):
                yield ("stages", name, "endpoint"), "needed where no model writes (`teacher.kind: none`)"
