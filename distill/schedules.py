"""Numbers that change over a training."""

import math

from configs.objective import Schedule

Value = float | Schedule


def value(number: Value, progress: float) -> float:
    """Return a number at a point of the training, progress in [0, 1].

    A schedule stands at `start` until `begin` and at `end` from `finish` on; between them it moves in a straight line,
    or as half a cosine: slowly at both ends.
    """
    if not isinstance(number, Schedule):
        return float(number)
    if progress >= number.finish:
        return number.end
    if progress <= number.begin:
        return number.start
    part = (progress - number.begin) / (number.finish - number.begin)
    if number.kind == "cosine":
        part = (1.0 - math.cos(math.pi * part)) / 2.0
    return number.start + (number.end - number.start) * part


def describe(number: Value) -> str:
    """Return `0.5`, or `1 → 0 (linear, 0.25–1 of the training)`."""
    if not isinstance(number, Schedule):
        return f"{number:g}"
    span = f"{number.begin:g}–{number.finish:g}"
    return f"{number.start:g} → {number.end:g} ({number.kind}, {span} of the training)"
