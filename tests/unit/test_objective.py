"""The objective: weighted sums, united needs, and refusals that name both sides."""

import sys
from types import ModuleType

import pytest
import torch

from configs.data import Task
from configs.errors import ConfigError
from configs.objective import (
    AttentionTerm,
    CustomTerm,
    EmbeddingsTerm,
    HiddenTerm,
    LogitsTerm,
    RelationsTerm,
    Schedule,
    TaskTerm,
)
from distill.errors import UnmetNeeds
from distill.objective import Objective, Row, build
from distill.protocols import LossTerm
from distill.types import Batch, Needs, Outputs, Shape
from tests.helpers import reference
from tests.helpers.losses import Taught, batch_of, everything, outputs_of

SMALL = Shape(layers=4, hidden_size=312, heads=12, head_size=26, outputs=2)
BIG = Shape(layers=12, hidden_size=768, heads=12, head_size=64, outputs=2)
TINY, TINY_TEACHER = Shape(2, 6, 2, 3, 3), Shape(4, 8, 2, 4, 3)
TASK = Task()
TINYBERT = (
    EmbeddingsTerm(kind="embeddings"),
    HiddenTerm(kind="hidden"),
    AttentionTerm(kind="attention", weight=Schedule(start=1.0, end=0.0)),
    LogitsTerm(kind="logits", temperature=2.0),
    TaskTerm(kind="task", weight=0.5),
)


def refused(error: type[Exception], *sections, student=SMALL, teacher=BIG, offers=None, task=TASK, **options) -> str:
    with pytest.raises(error) as caught:
        build(sections, student=student, teacher=Taught(teacher, offers), task=task, where="stages.task", **options)
    return str(caught.value)


def test_the_table_of_a_run():
    objective = build(TINYBERT, student=SMALL, teacher=Taught(BIG), task=TASK)
    assert objective.describe() == [
        Row("embeddings", "1", "positions", "0→0"),
        Row("hidden", "1", "positions", "1→3 2→6 3→9 4→12"),
        Row("attention", "1 → 0 (linear, 0–1 of the training)", "pairs", "1→3 2→6 3→9 4→12"),
        Row("logits", "1", "examples", ""),
        Row("task", "0.5", "labelled", ""),
    ]
    assert objective.units == {row.name: row.unit for row in objective.describe()}


def test_needs_are_united():
    objective = build(TINYBERT, student=SMALL, teacher=Taught(BIG), task=TASK)
    own, taught = frozenset({1, 2, 3, 4}), frozenset({3, 6, 9, 12})
    assert objective.student_needs == Needs(True, own | {0}, own)
    assert objective.teacher_needs == Needs(True, taught | {0}, taught)


def test_terms_of_one_kind_are_numbered():
    sections = (HiddenTerm(kind="hidden"), TaskTerm(kind="task"), HiddenTerm(kind="hidden"), HiddenTerm(kind="hidden"))
    objective = build(sections, student=SMALL, teacher=Taught(BIG), task=TASK)
    assert list(objective.units) == ["hidden", "task", "hidden_2", "hidden_3"]


def test_forward_gives_each_term_s_weighted_sum():
    sections = (
        LogitsTerm(kind="logits", weight=0.25),
        AttentionTerm(kind="attention", weight=Schedule(start=2.0, end=0.0, begin=0.5)),
    )
    objective = build(sections, student=TINY, teacher=Taught(TINY_TEACHER), task=TASK)
    batch = batch_of()
    own = outputs_of(TINY, objective.student_needs, batch, seed=1)
    taught = outputs_of(TINY_TEACHER, objective.teacher_needs, batch, seed=2)
    assert own.logits is not None and taught.logits is not None
    rows = zip(own.logits.double(), taught.logits.double(), strict=True)
    divergence = reference.total([reference.kl(s.unbind(), t.unbind()) for s, t in rows]).item()
    mask = batch["attention_mask"]
    maps = [(own.attentions[s], taught.attentions[t]) for s, t in ((1, 2), (2, 4))]
    distance = sum(reference.attention_score_mse(s, t, mask).item() for s, t in maps)
    for progress, weight in ((0.0, 2.0), (0.75, 1.0), (1.0, 0.0)):
        batch["progress"] = progress
        totals = objective(own, taught, batch)
        assert {name: total.item() for name, total in totals.items()} == pytest.approx(
            {"logits": 0.25 * divergence, "attention": weight * distance}, rel=1e-5
        )
        assert all(total.dtype == torch.float32 and total.shape == () for total in totals.values())


def test_it_saves_projectors_and_nothing_else():
    objective = build(TINYBERT, student=SMALL, teacher=Taught(BIG), task=TASK)
    projectors = ["embeddings.projectors.0", *(f"hidden.projectors.{layer}" for layer in range(1, 5))]
    assert set(objective.state_dict()) == {f"terms.{name}.{part}" for name in projectors for part in ("weight", "bias")}


def test_a_stage_without_a_teacher_learns_from_labels():
    objective = build([TaskTerm(kind="task")], student=SMALL, teacher=Taught(None), task=TASK)
    assert objective.teacher_needs == Needs()
    assert refused(UnmetNeeds, TaskTerm(kind="task"), LogitsTerm(kind="logits"), teacher=None) == (
        "stages.task.objective[1] (logits) needs a teacher, and this stage has none; "
        "set its `teacher` to `task` or `base`, or take the term out"
    )


def test_a_teacher_that_offers_too_little_is_named_with_what_it_offers():
    offers = Needs(logits=True, hidden_states=frozenset({0, 1, 2, 3, 12}))
    assert refused(
        UnmetNeeds, HiddenTerm(kind="hidden", layers="last"), AttentionTerm(kind="attention"), offers=offers
    ) == (
        "stages.task.objective[1] (attention) needs attention scores of teacher layers 3, 6, 9, 12; "
        "the live teacher at big offers logits, hidden states of layers 0–3, 12"
    )
    message = refused(UnmetNeeds, HiddenTerm(kind="hidden"), offers=offers)
    assert message.startswith("stages.task.objective[0] (hidden) needs hidden states of teacher layers 6, 9;")
    message = refused(UnmetNeeds, RelationsTerm(kind="relations"), offers=Needs())
    assert message.endswith("queries, keys and values of teacher layer 12; the live teacher at big offers nothing")
    headless = Shape(12, 768, 12, 64)
    message = refused(UnmetNeeds, LogitsTerm(kind="logits"), teacher=headless)
    assert "(logits) needs teacher logits; the live teacher at big offers hidden states of layers 0–12, " in message
    assert message.endswith("; logits come from a head that is trained on the task")


def test_a_student_that_offers_too_little_is_named():
    headless = Shape(4, 312, 12, 26)
    for section in (LogitsTerm(kind="logits"), TaskTerm(kind="task")):
        assert " needs student logits; the student offers hidden states" in refused(
            UnmetNeeds, section, student=headless
        )
    offers = Needs(logits=True, hidden_states=frozenset(range(5)))
    message = refused(UnmetNeeds, AttentionTerm(kind="attention"), student_offers=offers)
    assert "needs attention scores of student layers 1–4; the student offers logits, hidden states" in message
    build([HiddenTerm(kind="hidden")], student=SMALL, teacher=Taught(BIG), task=TASK, student_offers=offers)


def test_attention_of_other_head_counts_points_to_relations():
    student = Shape(layers=4, hidden_size=256, heads=4, head_size=64, outputs=2)
    assert refused(UnmetNeeds, AttentionTerm(kind="attention"), student=student) == (
        "stages.task.objective[0] (attention): the student has 4 heads, the teacher 12, and attention is compared head "
        "by head; use `kind: relations` with `heads: 4`, or a student with 12 heads"
    )
    build([RelationsTerm(kind="relations", heads=4)], student=student, teacher=Taught(BIG), task=TASK)


def test_relation_heads_must_divide_both_widths():
    assert refused(UnmetNeeds, RelationsTerm(kind="relations", heads=48)) == (
        "stages.task.objective[0] (relations): 48 relation heads do not divide the widths of student (312) and teacher "
        "(768); set `heads` to a divisor of 24"
    )
    student = Shape(layers=4, hidden_size=256, heads=4, head_size=64, outputs=2)
    assert refused(UnmetNeeds, RelationsTerm(kind="relations"), student=student) == (
        "stages.task.objective[0] (relations): the student has 4 heads, the teacher 12; set `heads`, the number of "
        "relation heads both are cut into, to a divisor of 256"
    )


def test_classes_must_agree():
    student = Shape(4, 312, 12, 26, outputs=3)
    assert refused(UnmetNeeds, LogitsTerm(kind="logits"), student=student) == (
        "stages.task.objective[0] (logits): the student has 3 outputs, the teacher 2"
    )


def test_widths_without_a_projector_must_agree():
    for section in (HiddenTerm(kind="hidden", projector="none"), EmbeddingsTerm(kind="embeddings", projector="none")):
        assert refused(UnmetNeeds, section).endswith(
            f"({section.kind}): the student is 312 wide, the teacher 768; use `projector: auto`"
        )


def test_layers_that_cannot_be_paired_are_named_with_their_place():
    deep = Shape(24, 768, 12, 64, 2)
    assert refused(UnmetNeeds, HiddenTerm(kind="hidden"), student=deep).startswith(
        "stages.task.objective[0] (hidden): layers: `uniform` pairs every student layer"
    )
    assert "student layer 0 does not exist" in refused(UnmetNeeds, AttentionTerm(kind="attention", layers={0: 0}))


def test_the_task_decides_which_labels_there_are():
    text = Task(kind="text")
    assert refused(UnmetNeeds, TaskTerm(kind="task"), task=text) == (
        "stages.task.objective[0] (task) needs gold labels, and a run whose task is `text` has none; take the term out"
    )
    scores, one = Task(kind="regression"), Shape(4, 312, 12, 26, 1)
    message = refused(ConfigError, TaskTerm(kind="task", label_smoothing=0.1), task=scores, student=one)
    assert message.endswith("`label_smoothing` is for classes, and the run's task is a regression")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (LogitsTerm(kind="logits", reduction="huawei"), "goes with `divergence: ce` only"),
        (HiddenTerm(kind="hidden", distance="cosine", reduction="huawei"), "goes with `distance: mse` only"),
        (EmbeddingsTerm(kind="embeddings", distance="cosine", reduction="huawei"), "goes with `distance: mse` only"),
        (
            AttentionTerm(kind="attention", target="probabilities", reduction="huawei"),
            "goes with `target: scores` only",
        ),
        (LogitsTerm(kind="logits", beta=0.3), "`beta` belongs to `divergence: jsd`, not to `kl`"),
        (LogitsTerm(kind="logits", temperature=Schedule(start=4.0, end=0.0)), "a temperature stays above 0"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(section, message):
    found = refused(ConfigError, section)
    assert found.startswith(f"stages.task.objective[0] ({section.kind}): ") and message in found


def test_a_softmax_over_one_score_is_refused():
    one = Shape(4, 312, 12, 26, 1)
    assert "use `divergence: mse`" in refused(ConfigError, LogitsTerm(kind="logits"), student=one, teacher=one)


class Norm(LossTerm):
    """A term of a user's own: the squared norm of the student's logits."""

    name = "norm"
    unit = "examples"
    student_needs = Needs(logits=True)
    teacher_needs = Needs()

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> torch.Tensor:
        assert student.logits is not None
        return self.scale * student.logits.square().sum()


@pytest.fixture
def own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's, importable as `own_terms`."""
    module = ModuleType("own_terms")
    module.norm = lambda options: Norm(options["scale"])  # type: ignore[attr-defined]
    module.number = lambda options: 3  # type: ignore[attr-defined]
    module.constant = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_terms", module)


def custom(factory: str) -> CustomTerm:
    return CustomTerm(kind="custom", factory=factory, options={"scale": 2.0})


@pytest.mark.usefixtures("own_code")
def test_code_of_one_s_own_runs_only_when_allowed():
    message = refused(ConfigError, custom("own_terms:norm"))
    assert message.endswith("`own_terms:norm` is code of your own; it runs only under --allow-code")
    objective = build([custom("own_terms:norm")], student=SMALL, teacher=Taught(None), task=TASK, allow_code=True)
    assert list(objective.units) == ["norm"] and objective.student_needs == Needs(logits=True)
    totals = objective(Outputs(logits=torch.ones(4, 2)), Outputs(), batch_of())
    assert totals["norm"].item() == 16.0


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:norm", "cannot find `no_such_module:norm`; it is written package.module:function"),
        ("own_terms:missing", "cannot find `own_terms:missing`"),
        ("own_terms", "cannot find `own_terms`"),
        (":norm", "cannot find `:norm`"),
        ("own_terms:constant", "`own_terms:constant` is no function"),
        ("own_terms:number", "`own_terms:number` returned `int`, no LossTerm"),
    ],
)
def test_code_that_is_no_term_is_refused(factory, message):
    assert message in refused(ConfigError, custom(factory), allow_code=True)


@pytest.mark.usefixtures("own_code")
def test_own_terms_are_checked_against_offers_too():
    headless = Shape(4, 312, 12, 26)
    message = refused(UnmetNeeds, custom("own_terms:norm"), student=headless, allow_code=True)
    assert message.startswith("stages.task.objective[0] (custom) needs student logits; the student offers")


def test_an_objective_takes_any_terms():
    objective = Objective([(Norm(1.0), 1.0), (Norm(2.0), 0.5)])
    totals = objective(Outputs(logits=torch.ones(1, 2)), Outputs(), batch_of((1,)))
    assert {name: total.item() for name, total in totals.items()} == {"norm": 2.0, "norm_2": 2.0}
    assert everything(None) == objective.teacher_needs
