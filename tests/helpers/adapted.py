"""Every method of adapting a model, what cannot be, and a student trained for a few steps through the real parts."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from pydantic import TypeAdapter
from torch import Tensor

from configs.adapters import Adapter, Bottleneck, Fusion
from configs.objective import Term
from distill import adapters
from distill.module import DistillModule, Recipe
from distill.objective import Objective
from distill.objective import build as build_objective
from distill.types import Batch, Needs
from students.adapters.build import build as build_adapter
from students.adapters.ranks import RankSchedule
from students.student import Student
from teachers.live import LiveTeacher
from tests.helpers import families

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"kind": "lora", "rank": 4},
    "LoRA on all matrices": {"kind": "lora", "rank": 2, "targets": "all"},
    "DoRA": {"kind": "lora", "rank": 4, "dora": True},
    "LoRA+": {"kind": "lora", "rank": 4, "b_rate": 16},
    "rsLoRA": {"kind": "lora", "rank": 4, "rslora": True},
    "PiSSA": {"kind": "lora", "rank": 4, "init": "pissa"},
    "AdaLoRA": {"kind": "adalora", "rank": 2, "initial_rank": 4},
    "(IA)³": {"kind": "ia3"},
    "LN tuning": {"kind": "norms"},
    "BitFit": {"kind": "bitfit"},
    "top layers": {"kind": "top_layers", "layers": 1},
    "prompt tuning": {"kind": "prompt", "tokens": 4},
    "P-tuning": {"kind": "p_tuning", "tokens": 4, "width": 8},
    "prefix": {"kind": "prefix", "tokens": 4, "width": 8},
    "prefix, flat": {"kind": "prefix", "tokens": 4, "width": None},
    "Houlsby": {"kind": "bottleneck", "size": 4},
    "Pfeiffer": {"kind": "bottleneck", "place": "pfeiffer", "size": 4},
    "Pfeiffer, invertible": {"kind": "bottleneck", "place": "pfeiffer", "size": 4, "invertible": 2},
    "Houlsby, invertible": {"kind": "bottleneck", "size": 4, "invertible": 2},
    "parallel": {"kind": "bottleneck", "place": "parallel", "size": 4},
    "parallel with norms": {"kind": "bottleneck", "place": "parallel", "size": 4, "norms": True},
    "Compacter": {"kind": "bottleneck", "size": 8, "kronecker": 2},
    "mix and match": {"kind": "mix_and_match", "size": 8, "tokens": 3, "width": 8},
    "AdapterDrop": {"kind": "bottleneck", "size": 4, "leave_out": [0]},
    "AdapterDrop while training": {"kind": "bottleneck", "size": 4, "drop": 1},
    "experts": {"kind": "experts", "experts": 2, "size": 4},
    "experts beside the original": {"kind": "experts", "experts": 2, "size": 4, "original": 0.5},
    "fusion": {"kind": "fusion", "of": {"first": "1", "second": "2"}},
    "stacked": {"kind": "bottleneck", "place": "pfeiffer", "size": 4, "on": ["1"]},
    "with embeddings": {"kind": "bottleneck", "place": "pfeiffer", "size": 4, "also": ["embeddings"]},
    "VeRA": {"kind": "peft", "method": "vera", "options": {"r": 4}},
    "OFT": {"kind": "peft", "method": "oft", "options": {"oft_block_size": 4}},
}
STANDS_ON_OTHERS = ("fusion", "stacked")
EMBEDDINGS = {
    **dict.fromkeys(families.ENCODERS, "word_embeddings"),
    **dict.fromkeys(families.BESIDE, "encoder.embed_tokens"),
    "gpt2": "wte",
    "llama": "embed_tokens",
}
"""The module that gives the embeddings, in each family."""
IMPOSSIBLE: dict[tuple[str, str], str] = {
    ("BitFit", "t5"): "t5 has no biases",
    ("BitFit", "llama"): "llama has no biases",
    ("OFT", "gpt2"): "Target module Conv1D",
}
"""What is refused at set-up, and the reason given."""
CELLS = [(method, kind) for method in METHODS for kind in families.FAMILIES if (method, kind) not in IMPOSSIBLE]
MERGEABLE = (
    "LoRA",
    "LoRA on all matrices",
    "DoRA",
    "LoRA+",
    "rsLoRA",
    "PiSSA",
    "AdaLoRA",
    "(IA)³",
    "LN tuning",
    "BitFit",
)
MERGEABLE = (*MERGEABLE, "top layers", "VeRA", "OFT")
CHANGES_THE_BASE = ("PiSSA",)
"""Methods whose frozen weights are not the base's any more: switched off, they are not the base."""
_LAST = {
    **dict.fromkeys(families.ENCODERS + families.CAUSAL, ("attention", "relations")),
    **dict.fromkeys(families.BESIDE, ("hidden", "attention", "relations")),
}
UNREACHED: dict[str, dict[str, tuple[str, ...]]] = {
    "experts": _LAST,
    "experts beside the original": _LAST,
    "top layers": dict.fromkeys(families.BESIDE, ("hidden", "attention", "relations")),
}
"""Kinds of objectives, of the encoder's inside, that nothing a method trains can change: refused at set-up."""
TERMS: dict[str, list[dict[str, Any]]] = {
    "logits": [{"kind": "logits"}],
    "hidden": [{"kind": "hidden"}],
    "attention": [{"kind": "attention"}],
    "relations": [{"kind": "relations", "layers": "last"}],
    "sequence": [{"kind": "task"}],
}
_SECTIONS: TypeAdapter[Adapter] = TypeAdapter(Adapter)
_TERM: TypeAdapter[Term] = TypeAdapter(Term)


def section(method: str) -> Adapter:
    """The section of a method."""
    return _SECTIONS.validate_python(METHODS[method])


def adapted(method: str, kind: str) -> Student:
    """A tiny student of a family in the adapter of a method, the same at every call."""
    loaded = families.loaded(kind)
    with TemporaryDirectory() as folder:
        asked = _placed(section(method), kind, Path(folder))
        torch.manual_seed(1)
        model = build_adapter(asked, loaded, families.task_of(kind))
    ranks = RankSchedule(model, asked) if asked.kind == "adalora" else None
    rates = {"lora_B": asked.b_rate} if asked.kind == "lora" else {}
    return Student(model, has_head=True, rates=rates, frozen_head=True, ranks=ranks)


def _placed(asked: Adapter, kind: str, folder: Path) -> Adapter:
    """Give a section what it names: adapters below or inside, and the embeddings of a family."""
    if isinstance(asked, Fusion):
        return asked.model_copy(update={"of": {name: _other(at, kind, folder) for name, at in asked.of.items()}})
    if isinstance(asked, Bottleneck) and asked.on:
        return asked.model_copy(update={"on": tuple(_other(at, kind, folder) for at in asked.on)})
    return asked.model_copy(update={"also": (EMBEDDINGS[kind],)}) if asked.also else asked


def _other(seed: str, kind: str, folder: Path) -> str:
    """Write an adapter that says something, and return where."""
    model = build_adapter(section("Pfeiffer"), families.loaded(kind), families.task_of(kind))
    torch.manual_seed(int(seed))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "modular" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapters.save(model, folder / seed)
    return str(folder / seed)


def full_batch(kind: str) -> Batch:
    """A batch of a family with the size of its window in every unit."""
    made: dict[str, Any] = dict(families.batch(kind))
    lengths = made["attention_mask"].sum(1).double()
    targets = (made["labels"] != -100).sum(-1).double() if made["labels"].ndim == 2 else torch.zeros(1).double()
    counts = {
        "examples": float(len(lengths)),
        "labelled": float(len(lengths)),
        "positions": float(lengths.sum()),
        "targets": float(targets.sum()),
        "weighted_targets": float(targets.sum()),
        "pairs": float((lengths**2).sum()),
        "causal_pairs": float((lengths * (lengths + 1)).sum() / 2),
        "target_pairs": float((targets * (targets + 1)).sum() / 2),
        "cross_pairs": float((targets * lengths).sum()) if len(targets) == len(lengths) else 1.0,
    }
    made |= {"example_ids": torch.arange(3), "window_counts": counts, "progress": 0.0, "step": 0}
    return cast(Batch, made)


@dataclass
class Trained:
    """A student with what it takes to train it further."""

    student: Student
    module: DistillModule
    optimiser: torch.optim.Optimizer
    batch: Batch
    teacher: LiveTeacher
    losses: list[float]

    def step(self) -> None:
        """Take one optimiser step, as the module's training step computes its loss."""
        torch.manual_seed(len(self.losses))  # as the module seeds every step
        taught = self.teacher(self.batch, self.module.objective.teacher_needs)
        own = self.student(self.batch, self.module.objective.student_needs)
        totals = self.module.objective(own, taught, self.batch)
        units = self.module.objective.units
        loss = sum(total / self.batch["window_counts"][units[name]] for name, total in totals.items())
        assert isinstance(loss, Tensor)
        penalty = self.student.penalty()
        loss = loss if penalty is None else loss + penalty
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses.append(float(loss.detach()))
        for ranks in self.schedules:
            ranks.share_out(len(self.losses))

    @property
    def schedules(self) -> list[RankSchedule]:
        """What shares out ranks after every step."""
        return [one for one in self.student.callbacks() if isinstance(one, RankSchedule)]


def begin(method: str, kind: str, terms: str, after: Trained | None = None) -> Trained:
    """Pair a student with a teacher of the same family and other weights under one kind of objective; or go on with
    those of another training.
    """
    task, batch = families.task_of(kind), full_batch(kind)
    student = adapted(method, kind) if after is None else after.student
    teacher = LiveTeacher(families.loaded(kind, seed=5, strength=0.5), task, "") if after is None else after.teacher
    asked = [_TERM.validate_python(term) for term in TERMS[terms]]
    torch.manual_seed(2)
    objective: Objective = build_objective(
        asked, student=student.shape, student_offers=student.offers, teacher=teacher, task=task
    )
    student.freeze_unused(batch, objective.student_needs)
    student.train()
    recipe = Recipe(training=None, steps=8, seed=0, fingerprint="")  # type: ignore[arg-type]
    module = DistillModule(student, teacher, objective, recipe)
    groups = [*student.parameter_groups(1e-2, 0.0), {"params": list(objective.parameters())}]
    made = Trained(student, module, torch.optim.AdamW(groups, lr=1e-2), batch, teacher, [])
    for ranks in made.schedules:
        ranks.begin(recipe.steps)
    return made


def logits(student: Student, batch: Batch) -> Tensor:
    """What the student says, without dropout."""
    student.train(False)
    with torch.no_grad():
        said = student(batch, Needs(logits=True)).logits
    assert said is not None
    return said


def table() -> str:
    """The table of `docs/adapters.md`: what works where, and why not where not."""
    head = ["method", *families.FAMILIES, "merges"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    notes = list(dict.fromkeys([*IMPOSSIBLE.values(), *(_unreached(method) for method in UNREACHED)]))
    for method in METHODS:
        cells = [_cell(method, kind, notes) for kind in families.FAMILIES]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {'yes' if method in MERGEABLE else '–'} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _cell(method: str, kind: str, notes: list[str]) -> str:
    if (method, kind) in IMPOSSIBLE:
        return f"– ({notes.index(IMPOSSIBLE[method, kind]) + 1})"
    unreached = kind in UNREACHED.get(method, {})
    return f"yes ({notes.index(_unreached(method)) + 1})" if unreached else "yes"


def _unreached(method: str) -> str:
    """Say which objectives nothing in a method can change."""
    found = {kind: ", ".join(terms) for kind, terms in UNREACHED[method].items()}
    return f"{method}: not under {'; '.join(dict.fromkeys(found.values()))} of the encoder, which lie below what learns"
