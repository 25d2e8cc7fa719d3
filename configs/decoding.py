"""How a teacher's text is searched for."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from configs.section import Section

Engine = Literal["auto", "ctranslate2", "huggingface"]


class Decoding(Section):
    """Beam search. What is none is as the model's own generation configuration has it."""

    beams: PositiveInt = 5
    """Hypotheses followed at a time; 1 is greedy."""
    hypotheses: PositiveInt = 1
    """Hypotheses kept of each row, the best first; at most `beams`."""
    length_penalty: float | None = None
    """α: hypotheses are ranked by Σ log p / length^α."""
    no_repeat_ngram: PositiveInt | None = None
    """No n-gram of this length comes twice in a text."""
    language: str | None = None
    """Special token each text starts with, where neither the model nor `task.target_language` says so."""
    max_tokens: PositiveInt | None = None
    """Bound on the tokens of a text; none: `length_factor` × tokens of the source + `length_extra`."""
    length_factor: Annotated[float, Field(gt=0.0)] = 1.6
    length_extra: PositiveInt = 10
    tokens_per_batch: PositiveInt = 1024
    """Padded source tokens decoded at a time."""

    @model_validator(mode="after")
    def _kept_are_searched(self) -> "Decoding":
        if self.hypotheses > self.beams:
            raise ValueError(f"`hypotheses` ({self.hypotheses}) is more than the `beams` ({self.beams}) they come from")
        return self
