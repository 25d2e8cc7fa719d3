"""Terms about what a model puts out: the task's own loss, and the teacher's logits."""

from functools import partial

from configs.errors import ConfigError
from configs.objective import LogitsTerm, Schedule, TaskTerm
from distill.errors import UnmetNeeds
from distill.losses import divergences
from distill.losses.logits import Divergence, Logits, TokenLogits, TopKDivergence
from distill.losses.task import CrossEntropy, Regression
from distill.losses.top_k import top_k_ce, top_k_kl
from distill.protocols import LossTerm
from distill.terms.sides import Sides, huawei_is_for
from distill.types import Shape

_TOP_K: dict[str, TopKDivergence] = {"kl": top_k_kl, "ce": top_k_ce}
"""What can be told from a teacher's most likely tokens alone."""


def task_term(section: TaskTerm, sides: Sides, where: str) -> LossTerm:
    """Return the loss on gold labels. Raises UnmetNeeds where there are none."""
    match sides.task:
        case "classification":
            return CrossEntropy("labelled", section.label_smoothing)
        case "generation" | "tagging" | "masked_lm":
            return CrossEntropy("weighted_targets", section.label_smoothing)
        case "regression" if section.label_smoothing:
            raise ConfigError([f"{where}: `label_smoothing` is for classes, and the run's task is a regression"])
        case "regression":
            return Regression()
        case "text":
            raise UnmetNeeds(f"{where} needs gold labels, and a run whose task is `text` has none; take the term out")


def logits_term(section: LogitsTerm, sides: Sides, teacher: Shape, where: str) -> LossTerm:
    """Return a term that compares logits. Raises as `make` does."""
    student = sides.student
    if "beta" in section.model_fields_set and section.divergence != "jsd":
        raise ConfigError([f"{where}: `beta` belongs to `divergence: jsd`, not to `{section.divergence}`"])
    if isinstance(section.temperature, Schedule) and min(section.temperature.start, section.temperature.end) <= 0:
        raise ConfigError([f"{where}: a temperature stays above 0, also at the ends of its schedule"])
    if student.outputs == 1 and section.divergence != "mse":
        raise ConfigError([f"{where}: a softmax over one score is always 1; use `divergence: mse` for a regression"])
    if student.outputs and teacher.outputs and student.outputs != teacher.outputs:
        raise UnmetNeeds(f"{where}: the student has {student.outputs} outputs, the teacher {teacher.outputs}")
    if sides.task not in ("generation", "tagging", "masked_lm"):
        return Logits(_divergence(section, where), section.temperature)
    if section.reduction == "huawei":
        raise ConfigError([f"{where}: `reduction: huawei` is a classifier's, and the run's task is a {sides.task}"])
    if teacher.kept is not None and section.divergence not in _TOP_K:
        raise UnmetNeeds(
            f"{where}: `{section.divergence}` needs all of the teacher's logits, and it gives the {teacher.kept} most "
            f"likely; use {' or '.join(f'`{name}`' for name in _TOP_K)}, or a live teacher without `top_k`"
        )
    return TokenLogits(_divergence(section, where), section.temperature, _TOP_K.get(section.divergence))


def _divergence(section: LogitsTerm, where: str) -> Divergence:
    if section.reduction == "huawei":
        huawei_is_for("divergence: ce", section.divergence == "ce", where)
        return divergences.huawei_ce
    match section.divergence:
        case "ce":
            return divergences.ce
        case "kl":
            return divergences.kl
        case "rkl":
            return divergences.rkl
        case "mse":
            return divergences.mse
        case "jsd":
            return partial(divergences.jsd, beta=section.beta)
