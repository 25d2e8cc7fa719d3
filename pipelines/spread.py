"""What a strategy has to know of a training."""

from torch import nn

from distill import adapters
from distill.strategies.limits import Facts
from pipelines.machine import Device
from students.student import Student


def facts_of(device: Device, precision: str, student: Student, *beside: nn.Module) -> Facts:
    """Return the facts of training a student, and what learns beside it, on a device."""
    learns = (weight for part in (student, *beside) for weight in part.parameters() if weight.requires_grad)
    return Facts(
        gpu=device.accelerator == "gpu",
        devices=device.trainers,
        precision=precision,
        trained=sum(weight.numel() for weight in learns),
        leaves_out=adapters.leaves_out(student.model),
        looks_at_weights=student.penalty() is not None,
        edits_weights=bool(student.callbacks()),
    )
