"""What each strategy holds on a device: closed forms in bytes, from facts of the models and of a step.

P: fp32 bytes of the weights that learn · F: bytes of those that stay · N: devices. AdamW keeps 2 P of moments.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from configs.strategies import StrategyName
from distill.strategies.deepspeed_config import Keeping
from distill.strategies.tracing import Moment

TeacherKind = Literal["none", "live", "sharded"]
FP32 = 4
PREFETCHED = 50_000_000
"""DeepSpeed's `stage3_prefetch_bucket_size`: elements of a sharded teacher it gathers ahead of their use."""
SWAPPED = 5 * 100_000_000
"""DeepSpeed's `offload_param.buffer_count` × `buffer_size`: elements of weights between disk and device."""
KERNELS, KERNEL = 1024, 600_000
"""oneDNN keeps so many kernels of bf16 products, one for each shape of each product, of so many bytes each: measured
on a CPU with AVX-512 and AMX, 14 to 24 products a step and 60 lengths of rows. Of fp32 it keeps next to nothing."""
PROCESS = 8_000_000
"""Bytes a process on a CPU uses beside its tensors once it trains (Lightning, autograd, oneDNN): measured, 0 to 12 MB
for models of 10 to 200 MB. On GPUs torch's own count leaves it out."""


@dataclass(frozen=True)
class Learner:
    """The weights of a student and of what learns beside it."""

    trained: int
    """Elements that learn, in fp32."""
    frozen: int
    """Bytes of those that stay as they are, and of buffers."""
    largest: int
    """Bytes of its largest layer."""
    outside: int
    """Bytes outside of its layers: embeddings, head, projectors."""
    sizes: tuple[int, ...] = ()
    """Elements of each of its weights."""


@dataclass(frozen=True)
class TeacherWeights:
    """The weights of a teacher, in bytes."""

    whole: int
    small: int = 0
    """Of a sharded one: those each device keeps whole."""
    passing: int = 0
    """Of a sharded one: the most that is put together at a time."""


@dataclass(frozen=True)
class Layout:
    """How models are laid out over devices."""

    strategy: StrategyName
    devices: int
    gpu: bool
    offload: bool = False
    """The student's parts lie in the host's memory; on CPUs that is the same memory."""
    disk: bool = False
    """They lie on a disk instead, and pass through buffers in the host's memory."""
    accumulates: bool = False
    """A window is several micro-batches."""
    teacher: TeacherKind = "none"
    teacher_offload: bool = False
    kernels: int = 0
    """Products in bf16, of whatever shape, that a CPU compiles."""
    keeping: Keeping = field(default_factory=Keeping)
    """What DeepSpeed's own configuration of the training has it keep."""
    neighbours: int = 1
    """Processes of a host. What one of them takes there for all is planned as if each took its part."""


@dataclass(frozen=True)
class Need:
    """What a device needs at its fullest moment, in bytes; on GPUs `host` is what lies in the host's memory beside."""

    teacher: int = 0
    student: int = 0
    gradients: int = 0
    optimiser: int = 0
    activations: int = 0
    logits: int = 0
    process: int = 0
    """What the libraries take for themselves once they train."""
    host: int = 0

    @property
    def total(self) -> int:
        """All of one device."""
        return (
            self.teacher
            + self.student
            + self.gradients
            + self.optimiser
            + self.activations
            + self.logits
            + self.process
        )


def fullest(learner: Learner, teacher: TeacherWeights, moments: Iterable[Moment], layout: Layout) -> Need:
    """Return what a device needs at the moment it needs most, and what the host does at the moment that does."""
    needs = [*_law_of(layout)(learner, [*moments], layout)]
    on_device, on_host = _teacher(teacher, layout)
    on_host += max(need.host for need in needs)
    if layout.gpu:
        on_host += _copies(learner, layout) // layout.neighbours
    found = max(needs, key=lambda need: need.total)
    return replace(found, teacher=on_device, host=on_host, process=_process(layout))


def teaching(teacher: TeacherWeights, moment: Moment, layout: Layout) -> Need:
    """Return what a device needs that only teaches: the teacher whole, and its fullest moment."""
    return _need(moment, teacher=teacher.whole, process=_process(layout))


def _copies(learner: Learner, layout: Layout) -> int:
    """Return what rank 0 alone takes of its host's memory: for a checkpoint whole moments, and where weights are cut up
    those that learn; once it is over all weights. Other strategies write what is there.
    """
    p = learner.trained * FP32
    match layout.strategy:
        case "deepspeed_1" | "deepspeed_2":
            return 2 * p
        case "deepspeed_3" | "fsdp":
            return max(3 * p, p + learner.frozen)
        case _:
            return 0


def _process(layout: Layout) -> int:
    return 0 if layout.gpu else PROCESS + min(layout.kernels, KERNELS) * KERNEL


def _law_of(layout: Layout) -> Callable[[Learner, list[Moment], Layout], Iterator[Need]]:
    match layout.strategy:
        case "fsdp":
            return _fsdp
        case "deepspeed_1" | "deepspeed_2":
            return _zero
        case "deepspeed_3":
            return _zero_3
        case _:
            return _whole


def _whole(learner: Learner, moments: list[Moment], layout: Layout) -> Iterator[Need]:
    """One device, or DDP: all of it on each. Gradients of a step stay until the next one goes backward; DDP sums them
    in buckets of its own, a second copy.
    """
    p = learner.trained * FP32
    buckets = p if layout.devices > 1 else 0
    for moment in moments:
        gradients = moment.gradients if moment.phase == "backward" and not layout.accumulates else p
        yield _need(moment, student=p + learner.frozen, gradients=gradients + buckets, optimiser=2 * p)


def _zero(learner: Learner, moments: list[Moment], layout: Layout) -> Iterator[Need]:
    """ZeRO-1 and 2 (Rajbhandari et al. 2020) as DeepSpeed does them: weights whole; of the optimiser P/N of master
    weights beside the moments; gradients go through a bucket, which is whole from the first one on, into this device's
    part, which the step copies once more.
    """
    p, n = learner.trained * FP32, layout.devices
    part, keeping = p // n, layout.keeping
    first = layout.strategy == "deepspeed_1"
    held = {"student": p + learner.frozen, "optimiser": 0 if _on_host(layout) else 3 * part}
    host = 5 * part if _on_host(layout) else 0
    waiting = 0 if not layout.accumulates else p if first else part
    for moment in moments:
        gradients = waiting
        if moment.phase == "backward":
            gradients += _bucket(keeping, moment.gradients) + (moment.gradients if first else moment.gradients // n)
        yield _need(moment, gradients=gradients, host=host, **held)
    yield Need(gradients=(p if first else part) + _bucket(keeping, p), host=host, **held)  # the sum over devices
    yield Need(gradients=2 * part, host=host, **held)  # the step
    yield _between(learner, layout, gradients=_bucket(keeping, 0), host=host, **held)


def _bucket(keeping: Keeping, waiting: int) -> int:
    """Return the bytes of gradients on their way, of which `waiting` are there: in buffers as large as they may be, or
    as they came and once more end to end.
    """
    size = keeping.buckets * FP32
    return 2 * min(size, waiting) if keeping.scattered else size


def _zero_3(learner: Learner, moments: list[Moment], layout: Layout) -> Iterator[Need]:
    """ZeRO-3 as DeepSpeed does it: parts of weights, of master weights beside them, of gradients and moments, a bucket
    for gradients, and what is gathered (`_gathered`). It is given the weights whole, on the device. From a disk a group
    of master weights, moments and gradients passes through the host at a time; that, and ZeRO++'s second copy, are read
    in its source, not measured.
    """
    p, n, keeping = learner.trained * FP32, layout.devices, layout.keeping
    part, every = p // n, p + learner.frozen
    parts = every // n + (every // keeping.secondary if keeping.secondary > 1 else 0)
    own = 0 if _on_host(layout) else parts
    held = {"optimiser": 0 if _on_host(layout) else 3 * part}
    on_host = SWAPPED * FP32 + 4 * min(part, keeping.group * FP32) if layout.disk else parts + 4 * part
    host = on_host if _on_host(layout) else 0
    gradients, small = 0 if _on_host(layout) else part, _small(learner, keeping)
    whole = own + _gathered(learner, keeping)
    yield Need(student=every)
    for moment in moments:
        waiting = _bucket(keeping, moment.gradients)
        yield _need(moment, student=whole, gradients=gradients + waiting, host=host, **held)
    gradients += _bucket(keeping, 0)
    yield Need(student=own + small, gradients=gradients + part, host=host, **held)  # the step
    yield _between(learner, layout, student=own + small, gradients=gradients, host=host, **held)


def _gathered(learner: Learner, keeping: Keeping) -> int:
    """Return the bytes of weights that DeepSpeed has put together at most: small ones for good, others from the forward
    to the backward pass where all that is used between is less than `reused`, the one in use in any case. What is
    fetched ahead lies there twice, as it came and by weights.
    """
    every = learner.trained * FP32 + learner.frozen
    used = max(keeping.reused, max(learner.sizes, default=0)) * FP32
    return min(every, used + _small(learner, keeping)) + min(every, keeping.ahead * FP32)


def _small(learner: Learner, keeping: Keeping) -> int:
    return min(sum(size for size in learner.sizes if size <= keeping.small), keeping.all_small) * FP32


def _fsdp(learner: Learner, moments: list[Moment], layout: Layout) -> Iterator[Need]:
    """FSDP2 (Zhao et al. 2023): parts of all; gathered are what lies outside of layers, for the whole step, and two
    layers: one computes, the next one comes. Their gradients are whole until they are summed. It is given the weights
    whole, on the device.
    """
    p, n = learner.trained * FP32, layout.devices
    part, every = p // n, p + learner.frozen
    gathered = learner.outside + 2 * learner.largest
    away = _on_host(layout)
    held = {"optimiser": 0 if away else 2 * part, "host": every // n + 3 * part if away else 0}
    own, gradients = (0, 0) if away else (every // n, part)
    yield Need(student=every)
    for moment in moments:
        passing = learner.outside + learner.largest if moment.phase == "backward" else 0
        yield _need(moment, student=own + gathered, gradients=gradients + min(p, passing), **held)
    yield _between(learner, layout, student=own, gradients=gradients, **held)


def _between(learner: Learner, layout: Layout, *, optimiser: int, **held: int) -> Need:
    """Return what is there between two steps, or after the last: on a CPU beside what rank 0 alone takes."""
    return Need(optimiser=optimiser + (0 if layout.gpu else _copies(learner, layout)), **held)


def _need(moment: Moment, **held: int) -> Need:
    return Need(activations=moment.activations, logits=moment.logits, **held)


def _on_host(layout: Layout) -> bool:
    return layout.offload and layout.gpu


def _teacher(teacher: TeacherWeights, layout: Layout) -> tuple[int, int]:
    """Return the bytes of a teacher on the device, and beside it."""
    if layout.teacher != "sharded":
        return (teacher.whole if layout.teacher == "live" else 0), 0
    part = (teacher.whole - teacher.small) // layout.devices
    always = teacher.small + teacher.passing
    return (always, part) if layout.teacher_offload and layout.gpu else (always + part, 0)
