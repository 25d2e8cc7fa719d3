"""What must be there for rows whose answers are chosen among few: terms about wrong ones, and scores by ranking."""

from configs.data import Embedded, Files
from configs.objective import LengthNormalisedTerm, UnlikelihoodTerm
from configs.references import Findings, Parts, held_chain
from configs.stages import EvaluateStage, TrainStage
from configs.students import SizedStudent
from configs.teachers import AbsentTeacher

_GIVE = "name them in `task.choices`, or their column in `columns.choices` of the source"


def check_choices(parts: Parts) -> Findings:
    """Check that wrong answers are there where they are learnt from or ranked."""
    task = parts.task
    if task is None:
        return
    if task.choices is not None and task.kind != "generation":
        yield ("task", "choices"), f"is for a generation, and `task.kind` is `{task.kind}`; leave it out"
        return
    if task.ranks:
        yield from _check_words(parts)
    for name, stage in parts.stages.items():
        match stage:
            case TrainStage():
                yield from _check_terms(parts, name, stage)
                if task.ranks:
                    yield from _check_ranked_training(parts, name, stage)
            case EvaluateStage() if task.ranks:
                yield from _check_ranked(parts, ("stages", name, "data"), stage.data)
                for key in ("others", "decoding"):
                    if getattr(stage, key) != EvaluateStage.model_fields[key].default:
                        yield ("stages", name, key), "is for texts, and answers are ranked (task.metric); leave it out"


def _check_words(parts: Parts) -> Findings:
    """Check that whoever ranks the same rows reads them in the same tokens."""
    scored = any(isinstance(stage, EvaluateStage) for stage in parts.stages.values())
    own = isinstance(parts.student, SizedStudent) and parts.student.vocabulary is not None
    if scored and own and parts.teacher is not None and not isinstance(parts.teacher, AbsentTeacher):
        what = "would have the teacher rank answers (task.metric) in tokens that are the student's; leave it out"
        yield ("student", "vocabulary"), what


def _check_terms(parts: Parts, name: str, stage: TrainStage) -> Findings:
    for place, term in enumerate(stage.objective):
        if not isinstance(term, UnlikelihoodTerm | LengthNormalisedTerm):
            continue
        path = ("stages", name, "objective", str(place), "kind")
        if parts.task is not None and parts.task.kind != "generation":
            yield path, f"`{term.kind}` needs wrong answers of a generation, and `task.kind` is `{parts.task.kind}`"
        elif not any(_has_choices(parts, source) for source in stage.data):
            yield path, f"`{term.kind}` needs wrong answers, and no source of this stage has any; {_GIVE}"


def _check_ranked_training(parts: Parts, name: str, stage: TrainStage) -> Findings:
    if stage.validation is not None:
        yield from _check_ranked(parts, ("stages", name, "validation"), stage.validation)
    if stage.training.validate_texts:
        what = "writes texts, and the task is scored by ranking answers (task.metric); leave it out"
        yield ("stages", name, "training", "validate_texts"), what


def _check_ranked(parts: Parts, path: tuple[str, ...], source: str) -> Findings:
    if source in parts.data and not _has_choices(parts, source):
        yield path, f"answers are ranked (task.metric), and source `{source}` has none to choose from; {_GIVE}"


def _has_choices(parts: Parts, name: str) -> bool:
    """Whether rows of a source have answers to choose from; one that is itself not valid yet may."""
    source, task = parts.data.get(held_chain(parts, name)[-1]), parts.task
    match source:
        case Files(columns=columns):
            fixed = task is not None and task.choices is not None
            return columns.target is not None and (fixed or columns.choices is not None)
        case Embedded():
            return task is not None and task.choices is not None
        case other:
            return other is None
