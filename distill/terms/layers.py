"""Terms about what lies inside a model: hidden states, attention, relations of layers that a map pairs."""

import math

from configs.objective import AttentionTerm, EmbeddingsTerm, HiddenTerm, RelationsTerm
from distill import layer_map
from distill.errors import UnmetNeeds
from distill.losses.attention import (
    Attention,
    attention_probability_kl,
    attention_score_huawei,
    attention_score_mse,
)
from distill.losses.hidden import Hidden, Projection, hidden_cosine, hidden_mse
from distill.losses.relation import Relations
from distill.protocols import LossTerm
from distill.terms.sides import huawei_is_for
from distill.types import Shape, Side, Unit


def hidden_term(section: HiddenTerm | EmbeddingsTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
    """Return a term that compares hidden states. Raises UnmetNeeds where layers or widths do not fit."""
    huawei = section.reduction == "huawei"
    huawei_is_for("distance: mse", not huawei or section.distance == "mse", where)
    side = section.side if isinstance(section, HiddenTerm) else "encoder"
    huawei_is_for("side: encoder", not huawei or side == "encoder", where)
    return Hidden(
        section.kind,
        {0: 0} if isinstance(section, EmbeddingsTerm) else _layers(section, student, teacher, where),
        hidden_mse if section.distance == "mse" else hidden_cosine,
        "padded_positions" if huawei else "positions" if side == "encoder" else "targets",
        _projection(section, student, teacher, where),
        side,
    )


def _projection(section: HiddenTerm | EmbeddingsTerm, student: Shape, teacher: Shape, where: str) -> Projection | None:
    own, taught = student.hidden_size, teacher.hidden_size
    shared = isinstance(section, HiddenTerm) and section.shared
    match section.projector:
        case "auto":
            return None if own == taught else Projection("linear", own, taught, shared)
        case "none" if own != taught:
            raise UnmetNeeds(f"{where}: the student is {own} wide, the teacher {taught}; use `projector: auto`")
        case "none":
            return None
        case kind:
            return Projection(kind, own, taught, shared)


def attention_term(section: AttentionTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
    """Return a term that compares attention, head by head. Raises UnmetNeeds where heads or layers do not fit."""
    if student.heads != teacher.heads:
        heads = math.gcd(_width(student), _width(teacher), teacher.heads)
        raise UnmetNeeds(
            f"{where}: the student has {student.heads} heads, the teacher {teacher.heads}, and attention is compared "
            f"head by head; use `kind: relations` with `heads: {heads}`, or a student with {teacher.heads} heads"
        )
    layers = _layers(section, student, teacher, where)
    if section.reduction == "huawei":
        huawei_is_for("target: scores", section.target == "scores", where)
        huawei_is_for("side: encoder", section.side == "encoder", where)
        return Attention(layers, attention_score_huawei, "padded_pairs")
    causal = section.side == "decoder" or (section.side == "encoder" and student.causal)
    if section.target == "scores":
        return Attention(
            layers, attention_score_mse, _pair_unit(section.side, causal=causal), section.side, causal=causal
        )
    unit: Unit = "positions" if section.side == "encoder" else "targets"
    return Attention(layers, attention_probability_kl, unit, section.side, causal=causal)


def _pair_unit(side: Side, *, causal: bool) -> Unit:
    """Return what attention scores of a side are counted by."""
    match side:
        case "decoder":
            return "target_pairs"
        case "cross":
            return "cross_pairs"
        case "encoder":
            return "causal_pairs" if causal else "pairs"


def relations_term(section: RelationsTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
    """Return a term that compares relations between positions. Raises UnmetNeeds where widths do not fit the heads."""
    own, taught = _width(student), _width(teacher)
    if section.heads is None and student.heads != teacher.heads:
        raise UnmetNeeds(
            f"{where}: the student has {student.heads} heads, the teacher {teacher.heads}; set `heads`, the number of "
            f"relation heads both are cut into, to a divisor of {math.gcd(own, taught)}"
        )
    if section.heads and math.gcd(own, taught) % section.heads:
        raise UnmetNeeds(
            f"{where}: {section.heads} relation heads do not divide the widths of student ({own}) and teacher "
            f"({taught}); set `heads` to a divisor of {math.gcd(own, taught)}"
        )
    return Relations(_layers(section, student, teacher, where), section.pairs, section.heads, section.side)


def _width(shape: Shape) -> int:
    return shape.heads * shape.head_size


def _layers(
    section: HiddenTerm | AttentionTerm | RelationsTerm, student: Shape, teacher: Shape, where: str
) -> dict[int, int]:
    embeddings = isinstance(section, HiddenTerm)  # layer 0 has hidden states but no attention
    own, taught = student.depth(section.side), teacher.depth(section.side)
    if not own or not taught:
        who = "the student" if not own else "the teacher"
        raise UnmetNeeds(f"{where}: side: {who} has no decoder beside an encoder; leave `side` out")
    return layer_map.resolve(section.layers, own, taught, embeddings=embeddings, where=f"{where}: layers")
