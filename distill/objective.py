"""What a student is asked to match: weighted loss terms, and the union of what they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from torch import Tensor, nn

from configs.data import Task
from configs.objective import Term
from distill import layer_map, schedules
from distill.losses.attention import Attention
from distill.losses.hidden import Hidden
from distill.losses.relation import Relations
from distill.only_hidden import as_said
from distill.protocols import LossTerm, Teacher
from distill.schedules import Value
from distill.terms import Sides, check_offers, make
from distill.types import Batch, Layers, Needs, Outputs, Shape, Unit


@dataclass(frozen=True)
class Row:
    """A term, as the table before a run shows it."""

    name: str
    weight: str
    unit: Unit
    layers: str
    """`1→3 2→6`; empty for terms without layers."""


class Objective(nn.Module):
    """Weighted terms; what it learns and saves are the terms' projectors."""

    def __init__(self, terms: Sequence[tuple[LossTerm, Value]]) -> None:
        """Take terms with their weights; a second term named `hidden` becomes `hidden_2`."""
        super().__init__()
        self.terms = nn.ModuleDict()
        self.weights: dict[str, Value] = {}
        for term, weight in terms:
            name = _free_name(term.name, self.weights)
            self.terms[name] = term
            self.weights[name] = weight
        parts = [term for term, _ in terms]
        self.units: dict[str, Unit] = {name: term.unit for name, term in zip(self.weights, parts, strict=True)}
        self.student_needs = reduce(or_, (term.student_needs for term in parts), Needs())
        self.teacher_needs = reduce(or_, (term.teacher_needs for term in parts), Needs())

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return each term's weighted SUM over its unit, fp32 scalars, at the weights of this point of the training.

        That of a spare row is 0, and so are its gradients: ranks take the same passes, whatever rows they have.
        """
        batch = as_said(batch)
        counts = 0.0 if batch.get("spare", False) else 1.0
        return {
            name: term(student, teacher, batch) * (counts * schedules.value(self.weights[name], batch["progress"]))
            for name, term in self.terms.items()
        }

    def describe(self) -> list[Row]:
        """Return a row per term."""
        return [
            Row(name, schedules.describe(self.weights[name]), self.units[name], _layers(term))
            for name, term in self.terms.items()
        ]


def build(
    terms: Sequence[Term],
    *,
    student: Shape,
    teacher: Teacher,
    task: Task,
    where: str = "stage",
    allow_code: bool = False,
    student_offers: Needs | None = None,
) -> Objective:
    """Return the objective a stage asks for, checked against both models before anything runs.

    `student_offers` is the most the student can be asked for; None takes it from its sizes.

    Raises UnmetNeeds where a model does not fit or does not offer what a term needs, and ConfigError where a term
    contradicts itself; both name the term by its place, as `stages.task.objective[2] (attention)`.
    """
    sides = Sides(student, teacher.shape, task.kind, allow_code)
    offered = _from_sizes(student) if student_offers is None else student_offers
    made: list[tuple[LossTerm, Value]] = []
    for place, section in enumerate(terms):
        here = f"{where}.objective[{place}] ({section.kind})"
        term = make(section, sides, here)
        check_offers(here, "teacher", teacher.describe(), term.teacher_needs, teacher.offers)
        check_offers(here, "student", "the student", term.student_needs, offered)
        made.append((term, section.weight))
    return Objective(made)


def _from_sizes(shape: Shape) -> Needs:
    blocks, written = (frozenset(range(1, depth + 1)) for depth in (shape.layers, shape.decoder_layers))
    decoder = Layers(written | {0}, written, written) if written else Layers()
    writes = shape.outputs > 0 and (shape.causal or shape.decoder_layers > 0)
    return Needs(shape.outputs > 0, blocks | {0}, blocks, blocks, decoder, Layers(attentions=written), writes)


def _free_name(name: str, taken: Mapping[str, Value]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _layers(term: nn.Module) -> str:
    match term:
        case Hidden() | Attention() | Relations():
            return layer_map.describe(term.layers)
        case _:
            return ""
