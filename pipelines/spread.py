"""How a training is spread over devices, once it is known that it can be."""

from configs.stages import TrainStage
from configs.strategies import StrategyName
from distill import adapters
from distill.objective import Objective
from distill.strategies.deepspeed_config import deepspeed_config
from distill.strategies.limits import Facts, check
from pipelines.run import Run
from students.student import Student


def strategy_of(
    run: Run, name: str, stage: TrainStage, student: Student | None, objective: Objective | None
) -> tuple[StrategyName, Facts]:
    """Return a stage's strategy, and what that has to know. Raise UserError where the two do not go together.

    `student` and `objective` are those of the training, none where they are still to be made, of plain weights.
    """
    training, machine = stage.training, run.config.machine
    facts = facts_of(run, stage, student, objective)
    chosen = training.strategy or machine.strategy
    check(chosen, machine, facts, f"stages.{name}.training.strategy")
    if chosen.startswith("deepspeed"):
        deepspeed_config(int(chosen[-1]), training, machine.deepspeed, facts)
    return chosen, facts


def facts_of(run: Run, stage: TrainStage, student: Student | None, objective: Objective | None) -> Facts:
    """Return what a strategy has to know of a stage."""
    learns = [weight for part in (student, objective) if part is not None for weight in part.parameters()]
    return Facts(
        gpu=run.device.accelerator == "gpu",
        devices=run.device.trainers,
        precision=run.device.precision(stage.training.precision),
        trained=sum(weight.numel() for weight in learns if weight.requires_grad) or 1,
        leaves_out=student is not None and adapters.leaves_out(student.model),
        looks_at_weights=student is not None and student.penalty() is not None,
        edits_weights=student is not None and bool(student.callbacks()),
        writes=stage.training.validate_texts > 0,
        chooses=run.config.task.ranks or (objective is not None and objective.student_needs.choices),
    )
