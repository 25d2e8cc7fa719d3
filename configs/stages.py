"""The stages a run walks through."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from configs.decoding import Decoding, Engine
from configs.endpoint import Endpoint
from configs.filters import Filters
from configs.objective import Term
from configs.section import Section
from configs.training import Training

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class TrainStage(Section):
    """Train a model: the student under a teacher, the student alone, or the teacher itself on the task."""

    kind: Literal["train"]
    trains: Literal["student", "teacher"] = "student"
    """`teacher` fine-tunes the run's teacher model; later stages then learn from the result. A head it comes with is
    trained on where its classes are the run's, in whatever order; one whose outputs have no names (`LABEL_0` …) gives
    way to a new one, and one for other classes is refused."""
    teacher: Literal["task", "base", "student", "none"] = "task"
    """`task`: the fine-tuned teacher; `base`: the teacher model as given; `student`: the student's own frozen model,
    its adapter off, which takes no memory of its own; `none`: no teacher."""
    adapters: dict[str, str] = {}
    """For each source of `data` the folder of an adapter that teaches its rows, all in the one frozen model that
    `teacher` names: `base`, or `student`, whose own adapter they are not."""
    cache: str | None = None
    """Record stage whose logits are read back instead of running the teacher in every step."""
    top_k: PositiveInt | None = None
    """Learn from the teacher's so many most likely outputs at every target position, and not from all its logits, as
    from a record: for `generation`, `tagging` and `masked_lm`."""
    start: str = "fresh"
    """`fresh` builds the model as configured; a stage's name goes on from what that stage trained."""
    data: tuple[str, ...]
    """Names of the sources, read one after the other."""
    validation: str | None = None
    """Name of the source to validate on."""
    objective: Annotated[tuple[Term, ...], Field(min_length=1)]
    training: Training
    once: bool = False
    """Run under the first seed only and share the result among all repeats."""

    @property
    def runs_teacher(self) -> bool:
        """Whether a teacher model, and not the student's own, runs in every step."""
        return self.trains == "student" and self.teacher in ("task", "base") and self.cache is None


class AugmentStage(Section):
    """TinyBERT's data augmentation (Jiao et al. 2020, section 3.3 and algorithm 1)."""

    kind: Literal["augment"]
    data: str
    """Name of the source to augment; the rows written hold the originals too."""
    masked_model: str | None = None
    """Masked language model that proposes words for single-piece words; none takes the teacher model if it has that
    head, and without one the embeddings propose for all words."""
    embeddings: str | None = None
    """GloVe text file, or encoder whose embedding matrix proposes words by nearness; none takes the teacher's.
    A matrix of pieces knows the words that are one piece; GloVe knows the others too."""
    copies: PositiveInt = 20
    """New rows per row (N_a); for pairs per side, with the other side as it was."""
    candidates: PositiveInt = 15
    """Proposals per word (K)."""
    probability: Fraction = 0.4
    """Chance that a word is replaced (p_t)."""
    labels: Literal["drop", "keep"] = "drop"
    """`drop`: the teacher alone labels the new rows."""


class RecordStage(Section):
    """Write down the teacher's logits of every row once, for train stages that see the rows many times; of a generation
    its most likely tokens at every target position."""

    kind: Literal["record"]
    teacher: Literal["task", "base"] = "task"
    """`task`: the fine-tuned teacher; `base`: the teacher model as given."""
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the sources."""
    top_k: PositiveInt = 16
    """`generation` only: tokens kept of each target position."""
    ensemble: tuple[str, ...] = ()
    """`generation` only: further models, as of a `generate` stage, whose probabilities are averaged with the
    teacher's."""


class GenerateStage(Section):
    """Have the teacher write a text for every source, once (Kim and Rush 2016), in shards that outlive any kill."""

    kind: Literal["generate"]
    teacher: Literal["task", "base"] = "task"
    """`task`: the trained teacher; `base`: the teacher model as given."""
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the sources; of rows with one source text the teacher writes for one."""
    decoding: Decoding = Decoding()
    long_sources: Literal["error", "leave_out"] = "error"
    """For sources longer than the teacher's positions: none is ever cut, and what is left out is counted."""
    ensemble: tuple[str, ...] = ()
    """Further models, folders or names on the hub, that write with the teacher as one: by the mean of their
    probabilities. They have its vocabulary; `transformers` decodes."""
    endpoint: Endpoint | None = None
    """Ask a model behind an API instead of the run's teacher; of `decoding` it takes the number of hypotheses. Students
    then have the vocabulary of `teacher.model`, which writes nothing, or with `student.vocabulary` one of their own."""
    engine: Engine = "auto"
    """What decodes. `auto`: CTranslate2 where it can run the model and gives its log-probabilities, else transformers
    under a beam search of our own."""
    compute_type: Literal["float32", "int8"] = "float32"
    """What CTranslate2 computes in; `int8` is faster and writes some texts otherwise."""
    shard_characters: PositiveInt = 100_000
    """Characters of source a shard holds: what is lost at most when a process is killed."""

    @model_validator(mode="after")
    def _ensembles_run_here(self) -> "GenerateStage":
        if self.ensemble and self.endpoint is not None:
            raise ValueError("`ensemble` and `endpoint` exclude each other: no probabilities come from an API")
        if self.ensemble and self.engine == "ctranslate2":
            raise ValueError("`ensemble` and `engine: ctranslate2` exclude each other: it runs one model")
        return self


class RecordedStage(Section):
    """Take texts that somebody else wrote, in the place of a `generate` stage; who that was is kept and reported."""

    kind: Literal["recorded"]
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the sources whose targets are the texts; those for one source text are its hypotheses, in their order.
    """
    data: tuple[str, ...] = ()
    """Names of the sources the texts are for, where those have more rows, or targets of their own; rows are matched by
    their whole text, and by `columns.id` where it is set. None: the sources of `texts`."""
    provenance: Annotated[str, Field(min_length=1)]
    """Who or what wrote the texts, when, how: shown in the report."""
    licence: str | None = None
    """Terms they may be used under."""


class SelectStage(Section):
    """Choose among the texts of a generate or recorded stage what students learn from; nothing is deleted, reasons are
    kept."""

    kind: Literal["select"]
    generated: str
    """Generate or recorded stage whose texts are chosen from."""
    by: Literal["score", "bleu", "chrf"] = "score"
    """`score`: the text the teacher prefers; `bleu`, `chrf`: the one most like the row's own target (sequence-level
    interpolation; Kim and Rush 2016, section 3.3)."""
    hypotheses: PositiveInt = 1
    """`by: score` only: texts kept of a source. Of several each counts by its weight, softmax of
    (score / `temperature`) over those kept: the teacher's distribution, cut to its K-best."""
    temperature: PositiveFloat = 1.0
    """`hypotheses` > 1 only: high, all of a source count the same; low, the best alone."""
    filters: Filters | None = Filters()
    """What makes a text be left out; none keeps all but empty ones."""
    reverse: str | None = None
    """Model of the reverse direction, a folder or a name on the hub: an encoder-decoder. `filters.worst` goes by how
    likely it finds the source, given the text; where one of the two is longer than its positions it says nothing."""

    @model_validator(mode="after")
    def _judged_by_a_model(self) -> "SelectStage":
        if (self.reverse is None) != (self.filters is None or self.filters.worst is None):
            raise ValueError("`reverse` and `filters.worst` go together: a model, and the part of the texts it marks")
        return self

    @model_validator(mode="after")
    def _weighted_by_scores(self) -> "SelectStage":
        if self.hypotheses > 1 and self.by != "score":
            raise ValueError(
                f"several `hypotheses` are weighted by the teacher's scores; write `by: score`, not `{self.by}`"
            )
        if "temperature" in self.model_fields_set and self.hypotheses == 1:
            raise ValueError(
                "`temperature` weighs several `hypotheses` against each other, and 1 is kept; leave it out"
            )
        return self


class EvaluateStage(Section):
    """Compare the models of a run on one data set."""

    kind: Literal["evaluate"]
    data: str
    """Name of the source to score on."""
    student: str
    """Train stage whose student is the result."""
    baseline: str | None = None
    """Train stage that trained the same student without a teacher."""
    others: tuple[str, ...] = ()
    """`generation` only: further train stages whose students are shown beside."""
    decoding: Decoding = Decoding()
    """`generation` only: how texts are searched for; they are written greedily too."""
    below: str | None = None
    """Folder of an adapter that takes the place of the lowest one under the student's (`student.adapter.on`): a task
    learnt over one language is done in another (MAD-X). `none` leaves that place empty; without, all is as trained."""
    latency: bool = True
    """Measure p50 and p95 at batch 1 and 32."""


class ExportStage(Section):
    """Write the student for use elsewhere, each form checked against the trained student."""

    kind: Literal["export"]
    student: str
    """Train stage whose student is exported; of several repeats, the best on its validation rows."""
    data: str
    """Source whose rows the parity is checked on."""
    formats: tuple[Literal["adapter", "transformers", "onnx", "onnx_int8", "ctranslate2", "ctranslate2_int8"], ...] = (
        "transformers",
    )
    """`adapter` is the adapter alone, in peft's format; the others hold the whole model: with the adapter taken into
    its weights, but for ONNX of a method that cannot be, where it stands in the graph."""


Stage = Annotated[
    TrainStage | AugmentStage | RecordStage | GenerateStage | RecordedStage | SelectStage | EvaluateStage | ExportStage,
    Field(discriminator="kind"),
]
