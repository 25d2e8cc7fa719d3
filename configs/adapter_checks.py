"""What a stage must be like that learns from adapters."""

from configs.origins import hint
from configs.references import Findings, Parts
from configs.stages import TrainStage
from configs.teachers import LiveTeacher, ShardedTeacher, bits_of

_IN = "`base`, the teacher model as given, or `student`, the student's own frozen model"


def check_adapters(parts: Parts, name: str, stage: TrainStage) -> Findings:
    """Check that each row has one adapter that teaches it, and that there is a model for them."""
    path = ("stages", name, "adapters")
    if stage.trains == "teacher" or stage.teacher not in ("base", "student"):
        yield path, f"these teach in a frozen model that `teacher` names; write {_IN}"
    elif stage.cache is not None:
        yield (
            path,
            f"stage `{stage.cache}` recorded what another teacher said; leave `cache` or `adapters` out",
        )
    elif stage.teacher == "base" and parts.teacher is not None:
        yield from _check_model(parts, path)
    for source in stage.adapters:
        if source not in stage.data:
            yield (*path, source), f"this stage learns from no source `{source}`{hint(source, stage.data)}"
    if lacking := [source for source in stage.data if source not in stage.adapters]:
        yield path, f"no adapter teaches the rows of {', '.join(lacking)}; name one for each source of `data`"


def _check_model(parts: Parts, path: tuple[str, ...]) -> Findings:
    match parts.teacher:
        case ShardedTeacher():
            yield path, "go into no teacher that is sharded (teacher.kind); take `kind: live`"
        case LiveTeacher() as given if bits_of(given) is not None:
            yield path, "go into no teacher that is quantised (teacher.quantise); take `quantise: none`"
