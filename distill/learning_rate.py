"""The course of the learning rate."""

import math

from configs.training import Training


def factor_at(step: int, training: Training, steps: int) -> float:
    """Return the factor on the learning rate at a step: a rise from 0 over the warm-up, then the schedule."""
    warm = round(training.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    rest = (step - warm) / max(1, steps - warm)
    match training.schedule:
        case "linear":
            return max(0.0, 1.0 - rest)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, rest)))
        case "constant":
            return 1.0
        case "inverse_sqrt":
            return math.sqrt(max(1, warm) / max(1, step))
