"""What a train stage will hold, found out before anything is loaded: its step is run over models without weights."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from configs.stages import RecordStage, TrainStage
from configs.students import BaseStudent
from configs.teachers import WHOLE_BELOW, ShardedTeacher, bits_of
from distill import adapted_model, adapters
from distill.data.collate import Inputs
from distill.data.largest import Shapes
from distill.few_shapes import rounded, use_few_shapes
from distill.frozen_model import untouched
from distill.models import Loaded
from distill.module import DistillModule, Recipe
from distill.objective import build as build_objective
from distill.protocols import Teacher
from distill.quantised import footprint
from distill.shells import outline
from distill.strategies.fsdp import blocks
from distill.strategies.limits import Facts
from distill.strategies.memory_laws import PREFETCHED, Learner, TeacherKind, TeacherWeights
from distill.strategies.precision import AUTOCAST
from distill.strategies.tracing import BY_WEIGHTS, CUDA_BLOCK, Ledger, Moment, Product, Tracer
from distill.types import Batch, Needs
from pipelines.memory_batches import Asked, Batches, Cut
from pipelines.own_teacher import own_teacher
from pipelines.record import kept
from pipelines.spread import facts_of
from pipelines.stage_teacher import cut_down
from students.build import build, build_alone
from students.student import Student
from teachers.live import LiveTeacher
from teachers.none import NoTeacher
from teachers.own import OwnTeacher
from teachers.shaped import ShapedTeacher


@dataclass(frozen=True)
class Teaching:
    """What a device takes that only teaches."""

    weights: TeacherWeights
    size: int
    """Weights of the teacher."""
    fullest: Moment
    kernels: int


@dataclass(frozen=True)
class Traced:
    """The facts of a train stage."""

    learner: Learner
    teacher: TeacherWeights
    teacher_kind: TeacherKind
    teacher_size: int
    """Weights of the teacher that runs in every step beside the student."""
    frozen_size: int
    """Weights of the student that stay as they are."""
    moments: tuple[Moment, ...]
    rows: int
    """Rows of its largest micro-batch."""
    positions: int
    """Tokens its longest row is padded to."""
    assumed: bool
    """Whether rows are taken to be as long as they may be, for want of a look at them."""
    cut: Cut
    """How many micro-batches a window is."""
    kernels: int
    """Products in bf16 that a training sees, of whatever shape."""
    facts: Facts
    """What strategies have to know."""
    teaching: Teaching | None
    """Where the teacher runs on devices of its own."""


def trace(asked: Asked) -> Traced:
    """Run a step of a stage without weights. Raise UserError for models and objectives that do not fit."""
    run, stage = asked.run, asked.stage
    tracer = Tracer.on(asked.kernels, AUTOCAST[run.device.precision(stage.training.precision)])
    loaded = _outline(asked)
    with torch.device("meta"):
        student = _student(asked, loaded)
    student.keep(stage.training.freeze, f"stages.{asked.name}.training.freeze")
    teacher, kind = _teacher(asked, loaded, student)
    objective = build_objective(
        stage.objective,
        student=student.shape,
        student_offers=student.offers,
        teacher=teacher,
        task=run.config.task,
        where=f"stages.{asked.name}",
        allow_code=run.allow_code,
    )
    apart = _is_apart(asked, loaded)
    if loaded is not None and (kind == "live" or apart):
        _settle(loaded.model, tracer.autocast)
    weights = TeacherWeights(0) if loaded is None or kind == "none" else _weights(asked, loaded.model)
    module = DistillModule(student, teacher, objective, Recipe(stage.training, 1, 0, ""))
    held = [module] if loaded is None else [module, loaded.model]
    for part in held:
        tracer.take(part)
    batches = Batches.of(asked, adapted_model.transformer(student.model).config)
    with tracer.running():
        student.freeze_unused(tracer.batch(batches.probe()), objective.student_needs)
    ledger = Ledger(student.shape.outputs or -1, CUDA_BLOCK if tracer.device.type == "cuda" else 1)
    student.train()
    largest_batch = tracer.batch(batches.largest())
    tracer.step(lambda: _loss(module, largest_batch), held, ledger, again=batches.cut().accumulates)
    scored = _validate(tracer, student, ledger, batches)
    rows, positions = largest_batch["input_ids"].shape
    return Traced(
        learner=_learner(module, _adapters(stage) if stage.teacher == "student" else 0),
        teacher=weights,
        teacher_kind=kind,
        teacher_size=0 if loaded is None or kind == "none" else _count(loaded.model.parameters()),
        frozen_size=_count(weight for weight in module.parameters() if not weight.requires_grad),
        moments=tuple(ledger.moments),
        rows=rows,
        positions=positions,
        assumed=batches.assumed,
        cut=batches.cut(),
        kernels=_kernels(ledger, batches, largest_batch, scored),
        facts=replace(facts_of(run, stage, student, objective), devices=asked.devices),
        teaching=_teaching(asked, loaded, module, (tracer, batches, largest_batch)),
    )


def _is_apart(asked: Asked, loaded: Loaded | None) -> bool:
    return loaded is not None and asked.run.device.teachers > 0 and asked.stage.runs_teacher


def _teaching(
    asked: Asked, loaded: Loaded | None, module: DistillModule, pass_of: tuple[Tracer, Batches, Batch]
) -> Teaching | None:
    """Run what a device that only teaches is asked for: one micro-batch at a time."""
    if loaded is None or not _is_apart(asked, loaded):
        return None
    tracer, batches, batch = pass_of
    ledger = Ledger(module.student.shape.outputs or -1, CUDA_BLOCK if tracer.device.type == "cuda" else 1)
    ledger.pass_over([*loaded.model.parameters(), *loaded.model.buffers()])
    with tracer.running(ledger), torch.no_grad():
        module.teacher(batch, module.objective.teacher_needs)
    kernels = _moving(ledger.products, batch, batches.shapes())
    weights, size = _weights(asked, loaded.model), _count(loaded.model.parameters())
    return Teaching(weights, size, max(ledger.moments, key=lambda moment: moment.passing), kernels)


def _kernels(ledger: Ledger, batches: Batches, learnt: Batch, scored: Inputs | None) -> int:
    """Return how many kernels products in bf16 need, over the shapes of all batches."""
    training = [product for product in ledger.products if product.phase != "validation"]
    validating = [product for product in ledger.products if product.phase == "validation"]
    found = _moving(training, learnt, batches.shapes())
    return found if scored is None else found + _moving(validating, scored, batches.validation_shapes())


def _moving(products: Iterable[Product], batch: Batch | Inputs, shapes: Shapes) -> int:
    """Return how many kernels the products need that have other shapes where rows or targets are longer or shorter."""
    rows, *lengths = (*batch["input_ids"].shape, *batch["labels"].shape[1:])
    sizes = {size for length in lengths for size in (length, length - 1)}
    positions = {rows * size for size in sizes}
    few = {rounded(count) for count in positions}
    found = 0
    for _, name, given in {product[1:] for product in products}:
        dimensions = {size for shape in given for size in shape}
        if name in BY_WEIGHTS and dimensions & few:
            found += shapes.positions
        elif dimensions & (positions if name in BY_WEIGHTS else sizes):
            found += shapes.batches
    return found


def _loss(module: DistillModule, batch: Batch) -> torch.Tensor:
    losses = [*module.losses(batch).values()]
    penalty = module.student.penalty()
    return torch.stack([*losses, *([] if penalty is None else [penalty])]).sum()


def _validate(tracer: Tracer, student: Student, ledger: Ledger, batches: Batches) -> Inputs | None:
    """Score the largest validation batch, where there is one, and return it."""
    inputs = batches.validation()
    if inputs is None:
        return None
    ledger.phase = "validation"
    student.eval()
    with tracer.running(ledger), torch.no_grad():
        student(tracer.batch(inputs), Needs(logits=True, choices="choices" in inputs))
    return inputs


def _outline(asked: Asked) -> Loaded | None:
    run, stage = asked.run, asked.stage
    if not run.has_teacher or (stage.trains == "student" and run.student_is_alone):
        return None
    dtype = torch.float32 if stage.trains == "teacher" else run.dtype
    return run.to_train(outline(run.base, run.config.task, run.labels, "teacher.model", dtype))


def _student(asked: Asked, loaded: Loaded | None) -> Student:
    run, config = asked.run, asked.run.config
    given = (config.student, config.task, run.labels)
    if loaded is None:
        return build_alone(*given, run.student_words.config, config.seed, outline)
    if asked.stage.trains == "teacher":
        return Student(loaded.model, has_head=config.task.kind != "text")
    if isinstance(config.student, BaseStudent):  # in fp32, to be trained
        base = run.to_train(outline(run.base, config.task, run.labels, "teacher.model"))
        return build(*given, base, config.seed, outline)
    return build(*given, loaded, config.seed, outline)


def _teacher(asked: Asked, loaded: Loaded | None, student: Student) -> tuple[Teacher, TeacherKind]:
    run, stage = asked.run, asked.stage
    if loaded is None or stage.trains == "teacher" or stage.teacher == "none":
        return NoTeacher(), "none"
    if stage.teacher == "student" and stage.adapters:  # which bring heads of their own
        return OwnTeacher(student, student.shape, student.offers, ""), "none"
    if stage.teacher == "student":
        return own_teacher(student, "", "student.adapter"), "none"
    trained = loaded.trained_head or bool(stage.adapters) or (stage.teacher == "task" and run.teacher_stage is not None)
    live = LiveTeacher(replace(loaded, trained_head=trained), run.config.task, "")
    if _is_apart(asked, loaded):  # on devices of its own
        return cut_down(live, stage), "none"
    if stage.cache is None or live.shape is None:
        return live, "sharded" if run.teacher_is_sharded else "live"
    record = run.config.stages[stage.cache]
    return ShapedTeacher(live.shape, kept(run, record) if isinstance(record, RecordStage) else None), "none"


def _settle(model: nn.Module, autocast: torch.dtype | None) -> None:
    """Hold products' weights in the type they are computed in, as a live teacher does (`teachers.packed`)."""
    for *_, layer in untouched(model):
        if autocast is not None and type(layer) is nn.Linear:
            layer.to(autocast)
    use_few_shapes(model)


def _learner(module: DistillModule, lent: int) -> Learner:
    """Count what learns and what is frozen; `lent` are bytes around its frozen weights."""
    every = [*module.parameters()]
    learning = _count(weight for weight in every if weight.requires_grad)
    frozen = _bytes(weight for weight in every if not weight.requires_grad) + _bytes(module.buffers())
    layers = [_bytes(block.parameters()) for block in blocks(module.student)]
    sizes = tuple(weight.numel() for weight in every)
    return Learner(learning, frozen + lent, max(layers, default=0), _bytes(every) - sum(layers), sizes)


def _adapters(stage: TrainStage) -> int:
    """Return the bytes of the adapters that teach."""
    return sum(4 * (adapters.own_parameters(Path(folder).expanduser()) or 0) for folder in stage.adapters.values())


def _weights(asked: Asked, model: PreTrainedModel) -> TeacherWeights:
    choice = asked.run.config.teacher
    bits = bits_of(choice)
    if bits is not None:
        size = footprint(model, bits)
        return TeacherWeights(size.held + size.passing)
    whole_below = choice.whole_below if isinstance(choice, ShardedTeacher) else WHOLE_BELOW
    found = dealt_out(model, whole_below)
    return replace(found, whole=found.whole + _adapters(asked.stage))


def dealt_out(model: nn.Module, whole_below: int) -> TeacherWeights:
    """Return what a teacher in parts needs. At a time a module's own weights are put together, and those that are
    fetched ahead: weights until there are `PREFETCHED` elements. Several that come together lie there twice, as they
    came and by weights.
    """
    whole = _bytes(model.parameters()) + _bytes(model.buffers())
    small = _bytes(weight for weight in model.parameters() if weight.numel() < whole_below) + _bytes(model.buffers())
    own = [[w for w in part.parameters(recurse=False) if w.numel() >= whole_below] for part in model.modules()]
    return TeacherWeights(whole, small, max(_passing([weights for weights in own if weights]), default=0))


def _passing(modules: list[list[nn.Parameter]]) -> Iterator[int]:
    for place, weights in enumerate(modules):
        ahead: list[nn.Parameter] = []
        for weight in (weight for later in modules[place + 1 :] for weight in later):
            if sum(fetched.numel() for fetched in ahead) >= PREFETCHED:
                break
            ahead.append(weight)
        yield _bytes(weights) + _bytes(ahead) * (2 if len(ahead) > 1 else 1)


def _count(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)
