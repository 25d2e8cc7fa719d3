"""Random batches and outputs for losses, and the laws every loss term has to keep."""

from collections.abc import Callable

import torch
from torch import Tensor

from configs.data import Task
from configs.objective import (
    AttentionTerm,
    EmbeddingsTerm,
    HiddenTerm,
    LogitsTerm,
    RelationsTerm,
    TaskTerm,
    Term,
)
from distill.protocols import LossTerm, Teacher
from distill.terms import Sides, make
from distill.types import IGNORED, Batch, Heads, Needs, Outputs, Shape

LENGTHS = (4, 2, 5, 4)
SMALL = Shape(layers=2, hidden_size=6, heads=2, head_size=3, outputs=3)
BIG = Shape(layers=4, hidden_size=8, heads=2, head_size=4, outputs=3)
CLASSES, SCORES = Task(), Task(kind="regression")
TERMS = {
    "task": TaskTerm(kind="task"),
    "task smoothed": TaskTerm(kind="task", label_smoothing=0.1),
    "logits": LogitsTerm(kind="logits", temperature=2.0),
    "logits ce": LogitsTerm(kind="logits", divergence="ce"),
    "logits rkl": LogitsTerm(kind="logits", divergence="rkl"),
    "logits jsd": LogitsTerm(kind="logits", divergence="jsd", beta=0.3),
    "logits mse": LogitsTerm(kind="logits", divergence="mse"),
    "logits huawei": LogitsTerm(kind="logits", divergence="ce", reduction="huawei"),
    "hidden": HiddenTerm(kind="hidden"),
    "hidden with embeddings": HiddenTerm(kind="hidden", layers={0: 0, 2: 3}, shared=True),
    "hidden mlp": HiddenTerm(kind="hidden", projector="mlp"),
    "hidden cosine": HiddenTerm(kind="hidden", distance="cosine"),
    "hidden huawei": HiddenTerm(kind="hidden", reduction="huawei"),
    "embeddings": EmbeddingsTerm(kind="embeddings"),
    "attention": AttentionTerm(kind="attention"),
    "attention probabilities": AttentionTerm(kind="attention", target="probabilities"),
    "attention huawei": AttentionTerm(kind="attention", reduction="huawei"),
    "relations": RelationsTerm(kind="relations"),
    "relations recut": RelationsTerm(kind="relations", layers="uniform", pairs=("qk", "vv"), heads=1),
}


def term_of(section: Term, task: Task = CLASSES, student: Shape = SMALL, teacher: Shape = BIG) -> LossTerm:
    torch.manual_seed(0)
    return make(section, Sides(student, teacher, task.kind), "objective[0]")


def given_to(term: LossTerm, batch: Batch) -> tuple[Outputs, Outputs]:
    own = outputs_of(SMALL, term.student_needs, batch, seed=1)
    return own, outputs_of(BIG, term.teacher_needs, batch, seed=2)


class Taught(Teacher):
    """A teacher of given sizes that is only asked what it offers."""

    def __init__(self, shape: Shape | None, offers: Needs | None = None) -> None:
        self.shape = shape
        self.offers = everything(shape) if offers is None else offers
        self.fingerprint = "taught"

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        raise NotImplementedError

    def to(self, device: torch.device) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        return "no teacher" if self.shape is None else "the live teacher at big"


def everything(shape: Shape | None) -> Needs:
    if shape is None:
        return Needs()
    blocks = frozenset(range(1, shape.layers + 1))
    return Needs(shape.outputs > 0, blocks | {0}, blocks, blocks)


def batch_of(lengths: tuple[int, ...] = LENGTHS, task: Task | None = None, seed: int = 0) -> Batch:
    """Rows of these lengths, padded on the right; the last row has no label."""
    draw = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    if task is not None and task.kind == "regression":
        labels = torch.randn(rows, generator=draw)
        labels[-1] = float("nan")
    else:
        labels = torch.randint(0, 3, (rows,), generator=draw)
        labels[-1] = IGNORED
    return Batch(
        input_ids=torch.ones(rows, width, dtype=torch.int64),
        attention_mask=mask,
        labels=labels,
        example_ids=torch.arange(rows),
        window_counts={},
        progress=0.0,
        step=0,
    )


def outputs_of(shape: Shape, needs: Needs, batch: Batch, *, seed: int, dtype: torch.dtype = torch.float32) -> Outputs:
    """Random outputs with just what is needed; leaves that take gradients."""
    draw = torch.Generator().manual_seed(seed)
    rows, width = batch["attention_mask"].shape

    def leaf(*sizes: int) -> Tensor:
        return (2.0 * torch.randn(*sizes, generator=draw)).to(dtype).requires_grad_()

    def heads() -> Heads:
        states = [leaf(rows, shape.heads, width, shape.head_size) for _ in range(3)]
        return Heads(*states)

    return Outputs(
        logits=leaf(rows, shape.outputs) if needs.logits else None,
        hidden_states={layer: leaf(rows, width, shape.hidden_size) for layer in sorted(needs.hidden_states)},
        attentions={layer: leaf(rows, shape.heads, width, width) for layer in sorted(needs.attentions)},
        relations={layer: heads() for layer in sorted(needs.relations)},
    )


def leaves(outputs: Outputs) -> list[Tensor]:
    tensors = [] if outputs.logits is None else [outputs.logits]
    tensors += [*outputs.hidden_states.values(), *outputs.attentions.values()]
    return tensors + [t for heads in outputs.relations.values() for t in (heads.query, heads.key, heads.value)]


Change = Callable[[str, Tensor], Tensor]
"""A change of one tensor of a kind: logits [B V], hidden [B T D], attention [B H T T] or heads [B H T A]."""


def mapped(outputs: Outputs, change: Change) -> Outputs:
    """Change every tensor; the results are leaves of their own."""

    def new(kind: str, tensor: Tensor) -> Tensor:
        return change(kind, tensor.detach()).clone().requires_grad_()

    return Outputs(
        logits=None if outputs.logits is None else new("logits", outputs.logits),
        hidden_states={layer: new("hidden", t) for layer, t in outputs.hidden_states.items()},
        attentions={layer: new("attention", t) for layer, t in outputs.attentions.items()},
        relations={
            layer: Heads(new("heads", h.query), new("heads", h.key), new("heads", h.value))
            for layer, h in outputs.relations.items()
        },
    )


def kept(rows: slice) -> Change:
    return lambda _, tensor: tensor[rows]


def cast(dtype: torch.dtype) -> Change:
    return lambda _, tensor: tensor.to(dtype)


def lengthened(extra: int, filler: float) -> Change:
    """Add positions at the end, filled with anything."""

    def change(kind: str, tensor: Tensor) -> Tensor:
        sides = {"logits": (), "hidden": (0, 0, 0, extra), "heads": (0, 0, 0, extra), "attention": (0, extra, 0, extra)}
        return torch.nn.functional.pad(tensor, sides[kind], value=filler)

    return change


def rows_of(batch: Batch, rows: slice) -> Batch:
    part = batch.copy()
    part["input_ids"], part["attention_mask"] = batch["input_ids"][rows], batch["attention_mask"][rows]
    part["labels"], part["example_ids"] = batch["labels"][rows], batch["example_ids"][rows]
    return part


def padded(batch: Batch, extra: int) -> Batch:
    wider = batch.copy()
    wider["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, extra))
    wider["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, extra))
    return wider


def value_and_gradients(
    term: LossTerm, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, list[Tensor]]:
    """The sum, and its gradients at the student's outputs and at the term's own weights."""
    loss = term(student, teacher, batch)
    inputs = [*leaves(student), *term.parameters()]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return loss.detach(), [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)]


def check_term(term: LossTerm, sides: tuple[Shape, Shape], batch: Batch, seed: int, dtype: torch.dtype) -> None:
    """Check the laws of loss terms: a sum in fp32 that is finite, is split at will and never sees padding.

    Half types are given under autocast, as training gives them.
    """
    own = outputs_of(sides[0], term.student_needs, batch, seed=seed, dtype=dtype)
    taught = outputs_of(sides[1], term.teacher_needs, batch, seed=seed + 1, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss, gradients = value_and_gradients(term, own, taught, batch)
        assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite() and loss >= 0
        assert all(gradient.isfinite().all() for gradient in gradients)
        _check_split(term, own, taught, batch)
        if not term.unit.startswith("padded"):
            _check_padding(term, own, taught, batch)


def _alike(found: Tensor, right: Tensor, own: Outputs) -> None:
    """Equal up to the rounding of the type the student's outputs have, measured against the largest number."""
    rounding = 2e-2 if leaves(own)[0].dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(found, right, rtol=rounding, atol=rounding * max(1e-3, float(right.abs().max())))


def _check_split(term: LossTerm, own: Outputs, taught: Outputs, batch: Batch) -> None:
    """Whatever rows are taken together, sums and gradients add up."""
    loss, gradients = value_and_gradients(term, own, taught, batch)
    for place in range(1, len(batch["labels"])):
        parts = [
            value_and_gradients(term, mapped(own, kept(rows)), mapped(taught, kept(rows)), rows_of(batch, rows))
            for rows in (slice(0, place), slice(place, None))
        ]
        _alike(parts[0][0] + parts[1][0], loss, own)
        for whole, first, second in zip(gradients, parts[0][1], parts[1][1], strict=True):
            shared = first.shape == second.shape == whole.shape  # a weight of the term itself
            again = first + second if shared else torch.cat((first, second))
            _alike(again, whole, own)


def _check_padding(term: LossTerm, own: Outputs, taught: Outputs, batch: Batch) -> None:
    """Whatever stands in padding, however long it is: the same loss and gradient, and none at the padding."""
    loss, gradients = value_and_gradients(term, own, taught, batch)
    for filler in (7.0, float("nan"), float("-inf")):
        wide_own, wide_taught = mapped(own, lengthened(3, filler)), mapped(taught, lengthened(3, filler))
        wide_loss, wide_gradients = value_and_gradients(term, wide_own, wide_taught, padded(batch, 3))
        _alike(wide_loss, loss, own)
        for narrow, wide in zip(gradients, wide_gradients, strict=True):
            inside = wide[tuple(slice(0, size) for size in narrow.shape)]
            _alike(inside, narrow, own)
            assert wide.isfinite().all() and wide.count_nonzero() == inside.count_nonzero()
