"""How a training is spread over devices, once it is known that it can be."""

from pathlib import Path

from configs.stages import TrainStage
from configs.strategies import StrategyName
from configs.training import Machine
from distill import adapted_model
from distill.files import digest
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
    facts = facts_of(run, stage, student, objective)
    return chosen(run.config.machine, name, stage, facts), facts


def chosen(machine: Machine, name: str, stage: TrainStage, facts: Facts) -> StrategyName:
    """Return the strategy a stage asks for. Raise UserError where it does not go together with the facts."""
    strategy = stage.training.strategy or machine.strategy
    check(strategy, machine, facts, f"stages.{name}.training.strategy")
    if strategy.startswith("deepspeed"):
        deepspeed_config(int(strategy[-1]), stage.training, machine.deepspeed, facts)
    return strategy


def own_disk(run: Run) -> Machine:
    """Return the run's machine, with a part of its disk that no other run writes to: DeepSpeed calls its files the same
    in each.
    """
    machine = run.config.machine
    if machine.deepspeed.nvme is None:
        return machine
    folder = Path(machine.deepspeed.nvme) / f"distill-{digest(str(run.folder.resolve()))[:16]}"
    return machine.model_copy(update={"deepspeed": machine.deepspeed.model_copy(update={"nvme": str(folder)})})


def facts_of(run: Run, stage: TrainStage, student: Student | None, objective: Objective | None) -> Facts:
    """Return what a strategy has to know of a stage."""
    learns = [weight for part in (student, objective) if part is not None for weight in part.parameters()]
    return Facts(
        gpu=run.device.accelerator == "gpu",
        devices=run.device.trainers,
        precision=run.device.precision(stage.training.precision),
        trained=sum(weight.numel() for weight in learns if weight.requires_grad) or 1,
        leaves_out=student is not None and adapted_model.leaves_out(student.model),
        looks_at_weights=student is not None and student.penalty() is not None,
        edits_weights=student is not None and bool(student.callbacks()),
        lends_weights=stage.teacher == "student" and bool(stage.adapters),
        writes=stage.training.validate_texts > 0,
        chooses=run.config.task.ranks or (objective is not None and objective.student_needs.choices),
    )
