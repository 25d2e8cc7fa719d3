"""From a section of the configuration to a loss term, checked against the models it is for."""

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from configs.errors import ConfigError
from configs.objective import (
    AttentionTerm,
    CustomTerm,
    EmbeddingsTerm,
    HiddenTerm,
    LogitsTerm,
    RelationsTerm,
    Schedule,
    TaskTerm,
    Term,
)
from distill import layer_map
from distill.errors import UnmetNeeds
from distill.losses import divergences
from distill.losses.attention import (
    Attention,
    attention_probability_kl,
    attention_score_huawei,
    attention_score_mse,
)
from distill.losses.hidden import Hidden, Projection, hidden_cosine, hidden_mse
from distill.losses.logits import Divergence, Logits, TokenLogits, TopKDivergence
from distill.losses.relation import Relations
from distill.losses.task import CrossEntropy, Regression
from distill.losses.top_k import top_k_ce, top_k_kl
from distill.protocols import LossTerm
from distill.types import Layers, Needs, Shape, Side, Unit

_TOP_K: dict[str, TopKDivergence] = {"kl": top_k_kl, "ce": top_k_ce}
"""What can be told from a teacher's most likely tokens alone."""


@dataclass(frozen=True)
class Sides:
    """What a term is made for."""

    student: Shape
    teacher: Shape | None
    """None where the stage has no teacher."""
    task: Literal["classification", "regression", "tagging", "masked_lm", "generation", "text"]
    allow_code: bool = False


def make(section: Term, sides: Sides, where: str) -> LossTerm:
    """Return the term a section asks for.

    Raises UnmetNeeds where the models do not fit it and ConfigError where the section contradicts itself; both begin
    with `where`.
    """
    match section:
        case TaskTerm():
            return _task(section, sides, where)
        case CustomTerm():
            return _custom(section, sides, where)
    if sides.teacher is None:
        raise UnmetNeeds(
            f"{where} needs a teacher, and this stage has none; set its `teacher` to `task` or `base`, "
            "or take the term out"
        )
    match section:
        case LogitsTerm():
            return _logits(section, sides, sides.teacher, where)
        case HiddenTerm() | EmbeddingsTerm():
            return _hidden(section, sides.student, sides.teacher, where)
        case AttentionTerm():
            return _attention(section, sides.student, sides.teacher, where)
        case RelationsTerm():
            return _relations(section, sides.student, sides.teacher, where)


def check_offers(where: str, side: str, who: str, needs: Needs, offers: Needs) -> None:
    """Raise UnmetNeeds, naming both, where a side (`student` or `teacher`, called `who`) lacks what a term needs."""
    missing = needs - offers
    if missing == Needs():
        return
    hint = "; logits come from a head that is trained on the task" if missing.logits else ""
    raise UnmetNeeds(f"{where} needs {say(missing, side)}; {who} offers {say(offers)}{hint}")


def say(needs: Needs, side: str = "") -> str:
    """Return `logits, hidden states of layers 0–4, 6`, or `nothing`; with a side, `… of teacher layers 0–4, 6`."""
    prefix = f"{side} " if side else ""
    said = [f"{prefix}logits"] if needs.logits else []
    said += _say_layers(needs.on("encoder"), prefix)
    said += _say_layers(needs.decoder, f"{prefix}decoder ")
    said += [what.replace("scores", "scores to the encoder") for what in _say_layers(needs.cross, f"{prefix}decoder ")]
    return ", ".join(said) or "nothing"


def _say_layers(asked: Layers, prefix: str) -> list[str]:
    layered = {
        "hidden states": asked.hidden_states,
        "attention scores": asked.attentions,
        "queries, keys and values": asked.relations,
    }
    return [
        f"{what} of {prefix}layer{'s' if len(layers) > 1 else ''} {_ranges(layers)}"
        for what, layers in layered.items()
        if layers
    ]


def _ranges(layers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(parts)


def _task(section: TaskTerm, sides: Sides, where: str) -> LossTerm:
    match sides.task:
        case "classification":
            return CrossEntropy("labelled", section.label_smoothing)
        case "generation" | "tagging" | "masked_lm":
            return CrossEntropy("targets", section.label_smoothing)
        case "regression" if section.label_smoothing:
            raise ConfigError([f"{where}: `label_smoothing` is for classes, and the run's task is a regression"])
        case "regression":
            return Regression()
        case "text":
            raise UnmetNeeds(f"{where} needs gold labels, and a run whose task is `text` has none; take the term out")


def _logits(section: LogitsTerm, sides: Sides, teacher: Shape, where: str) -> LossTerm:
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
            f"{where}: `{section.divergence}` needs all of the teacher's logits, and the {teacher.kept} most likely "
            f"tokens were recorded; use {' or '.join(f'`{name}`' for name in _TOP_K)}, or a live teacher"
        )
    return TokenLogits(_divergence(section, where), section.temperature, _TOP_K.get(section.divergence))


def _divergence(section: LogitsTerm, where: str) -> Divergence:
    if section.reduction == "huawei":
        _huawei_is_for("divergence: ce", section.divergence == "ce", where)
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


def _hidden(section: HiddenTerm | EmbeddingsTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
    huawei = section.reduction == "huawei"
    _huawei_is_for("distance: mse", not huawei or section.distance == "mse", where)
    side = section.side if isinstance(section, HiddenTerm) else "encoder"
    _huawei_is_for("side: encoder", not huawei or side == "encoder", where)
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


def _attention(section: AttentionTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
    if student.heads != teacher.heads:
        heads = math.gcd(_width(student), _width(teacher), teacher.heads)
        raise UnmetNeeds(
            f"{where}: the student has {student.heads} heads, the teacher {teacher.heads}, and attention is compared "
            f"head by head; use `kind: relations` with `heads: {heads}`, or a student with {teacher.heads} heads"
        )
    layers = _layers(section, student, teacher, where)
    if section.reduction == "huawei":
        _huawei_is_for("target: scores", section.target == "scores", where)
        _huawei_is_for("side: encoder", section.side == "encoder", where)
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


def _relations(section: RelationsTerm, student: Shape, teacher: Shape, where: str) -> LossTerm:
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


def _huawei_is_for(choice: str, fits: bool, where: str) -> None:
    if not fits:
        raise ConfigError([f"{where}: `reduction: huawei` is TinyBERT's released loss and goes with `{choice}` only"])


def _custom(section: CustomTerm, sides: Sides, where: str) -> LossTerm:
    if not sides.allow_code:
        raise ConfigError([f"{where}: `{section.factory}` is code of your own; it runs only under --allow-code"])
    term = _factory(section.factory, where)(section.options)
    if not isinstance(term, LossTerm):
        raise ConfigError([f"{where}: `{section.factory}` returned `{type(term).__name__}`, no LossTerm"])
    return term


def _factory(path: str, where: str) -> Callable[[dict[str, str | int | float | bool]], object]:
    module, _, name = path.partition(":")
    try:
        factory = vars(importlib.import_module(module))[name]
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(
            [f"{where}: cannot find `{path}`; it is written package.module:function ({error})"]
        ) from error
    if not callable(factory):
        raise ConfigError([f"{where}: `{path}` is no function"])
    found: Callable[[dict[str, str | int | float | bool]], object] = factory
    return found
