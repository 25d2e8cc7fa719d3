"""The order of classes."""

from dataclasses import replace

from torch import Tensor

from distill.types import Outputs


def in_order(outputs: Outputs, order: Tensor | None) -> Outputs:
    """Return outputs with the logits of the run's classes in the run's order; `order` lists, for each of them, the
    teacher's output that means it, none where they agree.
    """
    if outputs.logits is None or order is None:
        return outputs
    return replace(outputs, logits=outputs.logits.index_select(-1, order))
