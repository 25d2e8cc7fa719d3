"""Which teacher layer each student layer learns from.

Blocks count from 1; 0 is the output of the embeddings. M is the number of the student's layers, N of the teacher's.
"""

from collections.abc import Mapping

from configs.errors import suggest
from distill.errors import UnmetNeeds

RULES = ("uniform", "last", "top", "bottom", "skip")


def resolve(
    rule: str | Mapping[int, int],
    student: int,
    teacher: int,
    *,
    embeddings: bool = False,
    where: str = "layers",
) -> dict[int, int]:
    """Return {student layer: teacher layer}, by student layer, for models of so many layers.

    - uniform: m → m·N/M, to the nearest layer (halves up) where M does not divide N (TinyBERT's g(m) = 3m for 4 of 12)
    - last: M → N, for models of any depth (MiniLM)
    - top: m → N − M + m
    - bottom: m → m
    - skip: m → m·k with k = ⌊N/M⌋ for m = 1 … M − 1: every k-th layer without the last (BERT-PKD's PKD-skip)

    A mapping is taken as it is, once its layers exist; 0 is allowed in it where `embeddings` says so.

    Raises UnmetNeeds, beginning with `where`, for layers that do not exist, a student deeper than its teacher and an
    empty map.
    """
    sizes = f"the student has {student} layers, the teacher {teacher}"
    if isinstance(rule, Mapping):
        return _checked(rule, (student, teacher), 0 if embeddings else 1, f"{where}: ", sizes)
    if rule not in RULES:
        raise UnmetNeeds(f"{where}: `{rule}` is no rule for pairing layers{suggest(rule, RULES)}")
    if student > teacher and rule != "last":
        raise UnmetNeeds(
            f"{where}: `{rule}` pairs every student layer with its own teacher layer, but {sizes}; "
            "use `last`, or a mapping {student layer: teacher layer}"
        )
    pairs = _by_rule(rule, student, teacher)
    if not pairs:
        raise UnmetNeeds(f"{where}: `{rule}` leaves out the last layer, and nothing is left: {sizes}; use `last`")
    return pairs


def describe(pairs: Mapping[int, int]) -> str:
    """Return a line like `1→3 2→6 3→9 4→12`."""
    return " ".join(f"{own}→{taught}" for own, taught in pairs.items())


def _by_rule(rule: str, student: int, teacher: int) -> dict[int, int]:
    layers = range(1, student + 1)
    match rule:
        case "uniform":
            return {m: (2 * m * teacher + student) // (2 * student) for m in layers}
        case "last":
            return {student: teacher}
        case "top":
            return {m: teacher - student + m for m in layers}
        case "skip":
            return {m: m * (teacher // student) for m in layers[:-1]}
        case _:
            return {m: m for m in layers}


def _checked(pairs: Mapping[int, int], depths: tuple[int, int], lowest: int, where: str, sizes: str) -> dict[int, int]:
    if not pairs:
        raise UnmetNeeds(f"{where}the map of layers is empty; name at least one pair {{student layer: teacher layer}}")
    for side, depth, layers in (("student", depths[0], pairs.keys()), ("teacher", depths[1], pairs.values())):
        missing = sorted(layer for layer in layers if not lowest <= layer <= depth)
        if missing:
            listed = ", ".join(str(layer) for layer in missing)
            first = "0 (embeddings)" if lowest == 0 else "1"
            raise UnmetNeeds(f"{where}{side} layer {listed} does not exist: {sizes}; layers count from {first}")
    return dict(sorted(pairs.items()))
