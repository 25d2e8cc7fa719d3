"""What a strategy cannot do, said before anything is trained."""

from dataclasses import dataclass

from configs.errors import UserError
from configs.strategies import StrategyName
from configs.training import Machine

_CUTS_WEIGHTS = ("deepspeed_3", "fsdp")


@dataclass(frozen=True)
class Facts:
    """What a strategy has to know of a training."""

    gpu: bool
    devices: int
    """Processes of all hosts."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    trained: int
    """Weights that learn."""
    leaves_out: bool
    """Whether a step leaves out some of them."""
    looks_at_weights: bool
    """Whether the student looks at weights outside the layers that hold them, as AdapterFusion's regulariser does."""
    edits_weights: bool
    """Whether something but the optimiser changes weights, as AdaLoRA does."""
    lends_weights: bool = False
    """Whether the student's frozen weights are a teacher's as well, in adapters of its own."""
    writes: bool = False
    """Whether the student writes texts between its steps."""
    chooses: bool = False
    """Whether some batches take a pass more than others: those with wrong answers."""


def check(name: StrategyName, machine: Machine, facts: Facts, where: str) -> None:
    """Raise UserError where a strategy does not go together with a training or with the machine."""
    if name in _CUTS_WEIGHTS and facts.looks_at_weights:
        raise UserError(
            f"{where}: {name} cuts up the weights, and this student's adapter adds a loss on whole ones; "
            "Choices: auto, ddp, deepspeed_1, deepspeed_2"
        )
    if name in _CUTS_WEIGHTS and facts.lends_weights:
        raise UserError(
            f"{where}: {name} cuts up the weights, and the adapters that teach stand around the student's frozen ones "
            "(teacher: student); Choices: auto, ddp, deepspeed_1, deepspeed_2, or teacher: base"
        )
    if name in _CUTS_WEIGHTS and (facts.writes or facts.chooses):
        what = "training.validate_texts" if facts.writes else "rows with wrong answers"
        raise UserError(
            f"{where}: {name} puts weights together for all processes at once, and {what} take as many passes as each "
            "process has texts; Choices: auto, ddp, deepspeed_1, deepspeed_2"
        )
    if (name.startswith("deepspeed") or name == "fsdp") and facts.leaves_out:
        raise UserError(
            f"{where}: {name} expects a gradient of every weight in every step, and student.adapter.drop leaves some "
            "out; Choices: auto, ddp"
        )
    if name.startswith("deepspeed") and facts.precision == "fp16":
        raise UserError(
            f"{where}: {name} clips gradients that are still scaled for fp16 (DeepSpeed 0.19); Choices: auto, ddp, "
            "fsdp, or training.precision: bf16, fp32"
        )
    if facts.precision == "fp16" and facts.edits_weights:
        raise UserError(
            f"{where}: AdaLoRA adds up what gradients weigh, and one that overflows in fp16 counts for good; Choices: "
            "training.precision: bf16, fp32"
        )
    if name.startswith("deepspeed") and facts.edits_weights:
        raise UserError(
            f"{where}: {name} keeps weights of its own, and this student's adapter (adalora) changes them between "
            "steps; Choices: auto, ddp"
        )
    if name.startswith("deepspeed"):
        _check_options(name, machine, facts)


def _check_options(name: StrategyName, machine: Machine, facts: Facts) -> None:
    options, where = machine.deepspeed, "machine.deepspeed"
    if options.is_plus_plus and (name != "deepspeed_3" or not facts.gpu):
        raise UserError(f"{where}: ZeRO++ (secondary_partition, quantised_…) is for deepspeed_3 on GPUs")
    if options.quantised_weights and facts.precision != "fp32":
        raise UserError(
            f"{where}.quantised_weights: DeepSpeed gathers in 8 bits without autocast alone; training.precision: "
            f"{facts.precision} is autocast, fp32 is not"
        )
    if facts.devices % options.secondary_partition:
        raise UserError(
            f"{where}.secondary_partition: {facts.devices} devices do not divide by {options.secondary_partition}"
        )
    if options.offload == "nvme" and name != "deepspeed_3":
        raise UserError(f"{where}.offload: nvme is for deepspeed_3; Choices here: cpu, none")
