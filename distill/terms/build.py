"""Which function makes the term of a section."""

from configs.objective import (
    AttentionTerm,
    CustomTerm,
    EmbeddingsTerm,
    HiddenTerm,
    LengthNormalisedTerm,
    LogitsTerm,
    RelationsTerm,
    TaskTerm,
    Term,
    UnlikelihoodTerm,
)
from distill.errors import UnmetNeeds
from distill.losses.choices import LengthNormalised, Unlikelihood
from distill.protocols import LossTerm
from distill.terms.custom import custom_term
from distill.terms.layers import attention_term, hidden_term, relations_term
from distill.terms.sides import Sides
from distill.terms.targets import logits_term, task_term


def make(section: Term, sides: Sides, where: str) -> LossTerm:
    """Return the term a section asks for.

    Raises UnmetNeeds where the models do not fit it and ConfigError where the section contradicts itself; both begin
    with `where`.
    """
    match section:
        case TaskTerm():
            return task_term(section, sides, where)
        case UnlikelihoodTerm():
            return Unlikelihood()
        case LengthNormalisedTerm():
            return LengthNormalised()
        case CustomTerm():
            return custom_term(section, sides, where)
    if sides.teacher is None:
        raise UnmetNeeds(
            f"{where} needs a teacher, and this stage has none; set its `teacher` to `task` or `base`, "
            "or take the term out"
        )
    match section:
        case LogitsTerm():
            return logits_term(section, sides, sides.teacher, where)
        case HiddenTerm() | EmbeddingsTerm():
            return hidden_term(section, sides.student, sides.teacher, where)
        case AttentionTerm():
            return attention_term(section, sides.student, sides.teacher, where)
        case RelationsTerm():
            return relations_term(section, sides.student, sides.teacher, where)
