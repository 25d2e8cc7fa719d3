"""What a student is asked to match: a list of weighted loss terms."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from configs.section import Section

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Schedule(Section):
    """A number that moves from `start` to `end` over the given part of the training."""

    kind: Literal["linear", "cosine"] = "linear"
    """How it moves."""
    start: NonNegativeFloat
    """Value until `begin`."""
    end: NonNegativeFloat
    """Value from `finish` on."""
    begin: Unit = 0.0
    """Fraction of the training at which it starts to move."""
    finish: Unit = 1.0
    """Fraction of the training at which it stands still again."""

    @model_validator(mode="after")
    def _in_order(self) -> "Schedule":
        if self.begin >= self.finish:
            raise ValueError(f"`begin` ({self.begin:g}) must lie before `finish` ({self.finish:g})")
        return self


def _counts(weight: NonNegativeFloat | Schedule) -> NonNegativeFloat | Schedule:
    if not (max(weight.start, weight.end) if isinstance(weight, Schedule) else weight):
        raise ValueError("a term whose weight is 0 throughout trains nothing; take it out")
    return weight


LayerRule = Literal["uniform", "last", "top", "bottom", "skip"]
LayerMap = LayerRule | dict[NonNegativeInt, NonNegativeInt]
Weight = Annotated[NonNegativeFloat | Schedule, AfterValidator(_counts)]
Temperature = PositiveFloat | Schedule
Distance = Literal["mse", "cosine"]
Projector = Literal["auto", "none", "linear", "mlp"]
Reduction = Literal["window", "huawei"]


class TaskTerm(Section):
    """The task's own loss on gold labels; rows without a label do not count."""

    kind: Literal["task"]
    weight: Weight = 1.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Mass moved from the gold class to all classes (classification only)."""


class UnlikelihoodTerm(Section):
    """Answers that are wrong are made unlikely, token by token (T-Few; Liu et al. 2022)."""

    kind: Literal["unlikelihood"]
    weight: Weight = 1.0


class LengthNormalisedTerm(Section):
    """The right answer is made likelier, by its mean of log p over its tokens, than the wrong ones (T-Few)."""

    kind: Literal["length_normalised"]
    weight: Weight = 1.0


class LogitsTerm(Section):
    """Divergence between the class distributions of teacher and student."""

    kind: Literal["logits"]
    weight: Weight = 1.0
    divergence: Literal["ce", "kl", "rkl", "jsd", "mse"] = "kl"
    """ce and kl: teacher‖student; rkl: student‖teacher; jsd: between both; mse: on raw logits or scores."""
    temperature: Temperature = 1.0
    """Softens both sides; the loss carries the factor T²."""
    beta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Weight of the teacher in the mixture of `jsd`."""
    reduction: Reduction = "window"
    """`window` divides by rows of the optimiser window; `huawei` as TinyBERT's released code does."""


class HiddenTerm(Section):
    """Distance between hidden states of paired layers, the student's through a learned projector."""

    kind: Literal["hidden"]
    weight: Weight = 1.0
    layers: LayerMap = "uniform"
    """Which teacher layer each student layer learns from; layer 0 is the embeddings' output."""
    side: Literal["encoder", "decoder"] = "encoder"
    """Of an encoder-decoder: which stack. Of other models `encoder` is the one they have."""
    distance: Distance = "mse"
    projector: Projector = "auto"
    """`auto` is `linear` where widths differ and `none` where they agree."""
    shared: bool = False
    """One projector for all layers instead of one each."""
    reduction: Reduction = "window"


class EmbeddingsTerm(Section):
    """Distance between the outputs of the embedding layers (layer 0)."""

    kind: Literal["embeddings"]
    weight: Weight = 1.0
    distance: Distance = "mse"
    projector: Projector = "auto"
    reduction: Reduction = "window"


class AttentionTerm(Section):
    """Distance between attention maps of paired layers with the same number of heads."""

    kind: Literal["attention"]
    weight: Weight = 1.0
    layers: LayerMap = "uniform"
    side: Literal["encoder", "decoder", "cross"] = "encoder"
    """Of an encoder-decoder: the encoder, the decoder's looks at itself, or at the encoder."""
    target: Literal["scores", "probabilities"] = "scores"
    """`scores`: MSE before the softmax (TinyBERT); `probabilities`: KL after it (MiniLM)."""
    reduction: Reduction = "window"


class RelationsTerm(Section):
    """KL between self-attention relations (Q–Q, K–K, V–V) of paired layers; any numbers of heads and widths."""

    kind: Literal["relations"]
    weight: Weight = 1.0
    layers: LayerMap = "last"
    side: Literal["encoder", "decoder"] = "encoder"
    """Of an encoder-decoder: which stack."""
    pairs: tuple[Literal["qq", "kk", "vv", "qk"], ...] = ("qq", "kk", "vv")
    """`qk` is plain attention (MiniLM uses qk and vv of the last layer)."""
    heads: PositiveInt | None = None
    """Relation heads both sides are re-cut into; none keeps the heads of the models, which must then agree."""


class CustomTerm(Section):
    """A term of the user's own; its code runs only under --allow-code."""

    kind: Literal["custom"]
    weight: Weight = 1.0
    factory: str
    """`package.module:function`, called with `options`; returns a `distill.protocols.LossTerm`."""
    options: dict[str, str | int | float | bool] = {}


Term = Annotated[
    TaskTerm
    | UnlikelihoodTerm
    | LengthNormalisedTerm
    | LogitsTerm
    | HiddenTerm
    | EmbeddingsTerm
    | AttentionTerm
    | RelationsTerm
    | CustomTerm,
    Field(discriminator="kind"),
]
LABEL_TERMS = (TaskTerm, UnlikelihoodTerm, LengthNormalisedTerm, CustomTerm)
"""Terms that need no teacher."""
PADDED_TERMS = (HiddenTerm, EmbeddingsTerm, AttentionTerm)
"""Terms whose `huawei` reduction counts padding."""
