"""Where rows come from and what their columns mean."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from configs import template
from configs.section import Section

Metric = Literal[
    "accuracy",
    "f1",
    "f1_macro",
    "mcc",
    "pearson",
    "spearman",
    "entity_f1",
    "masked_accuracy",
    "log_prob",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
]
TaskKind = Literal["classification", "regression", "tagging", "masked_lm", "generation", "text"]


class Task(Section):
    """What the model is for."""

    kind: TaskKind = "classification"
    """`tagging`: a class for every word of a sentence (parts of speech, names); `masked_lm`: words hidden in plain text
    are to be found; `generation`: text in, text out (translation, summaries, answers); `text`: no task; a body
    distilled on plain text."""
    labels: tuple[str, ...] | None = None
    """Class names in the order of the outputs; none reads them from the training data, sorted."""
    max_length: PositiveInt = 128
    """Tokens kept of a row, special tokens included. Training rows of a generation that are longer are left out,
    sentences to be tagged are split."""
    max_target_length: PositiveInt = 128
    """`generation` only: tokens a target may have, special tokens included; training rows with more are left out."""
    source_language: str | None = None
    """`generation` with a model of many languages: that of the sources, as `de_DE` of mBART, `de` of M2M100 or
    `deu_Latn` of NLLB."""
    target_language: str | None = None
    """That of the targets."""
    choices: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """`generation` only: all answers there are, where they are few. The targets are those, or codes for them that
    `label_names` of their source tells; models are scored by ranking the answers."""
    metric: Metric | None = None
    """The number that decides; none is accuracy, spearman for a regression, masked_accuracy for a masked_lm, bleu for a
    generation without `choices`. `entity_f1` is of whole names in IOB2 tags. `accuracy` of a generation: how often the
    right one of a row's answers has the highest mean of log p over its tokens."""

    @property
    def ranks(self) -> bool:
        """Whether models that write are scored by which of a row's answers they find likeliest."""
        decides = self.metric or ("accuracy" if self.choices is not None else None)
        return self.kind == "generation" and decides == "accuracy"

    @model_validator(mode="after")
    def _languages_are_two(self) -> "Task":
        if (self.source_language is None) != (self.target_language is None):
            raise ValueError("`source_language` and `target_language` go together")
        if self.source_language is not None and self.kind != "generation":
            raise ValueError(f"`source_language` and `target_language` are for a generation, not for {self.kind}")
        return self

    @model_validator(mode="after")
    def _choices_differ(self) -> "Task":
        if len(set(self.choices or ())) < len(self.choices or ()):
            raise ValueError("`choices` holds an answer twice")
        return self

    def key(self) -> str:
        """Return what of it decides a result. Languages count where they are said: what was made before there were
        such keys is still good.
        """
        unsaid = set() if self.source_language is not None else {"source_language", "target_language"}
        return self.model_dump_json(exclude=unsaid)

    @property
    def has_classes(self) -> bool:
        """Whether each output of a model is a class with a name."""
        return self.kind in ("classification", "tagging")

    @property
    def by_token(self) -> bool:
        """Whether there is something to be said at many positions of a row."""
        return self.kind in ("tagging", "masked_lm", "generation")

    @property
    def is_plain_text(self) -> bool:
        """Whether all rows are running text, to be packed."""
        return self.kind in ("masked_lm", "text")


class Columns(Section):
    """Which of the source's columns hold what."""

    text: str = "text"
    """A list of sentences is joined by spaces. Several columns are put into a text by their names in braces, as
    `"{premise} Question: {hypothesis}"`; one that may be empty has a question mark, `{input?}`, and a line whose
    columns are all empty is left out. `{{` and `}}` are braces."""
    pair: str | None = None
    """Second text of a pair; a column, or several as in `text`."""
    target: str | None = "target"
    """`generation` only: the text to be written. A list of texts makes a row of each: all are learnt from, and all are
    references where texts are compared. None: the rows have sources alone."""
    choices: str | None = None
    """`generation` only: the list of answers to choose from, the target among them; none: `task.choices`, if any."""
    label: str | None = "label"
    """None: the rows carry no labels."""
    words: str = "words"
    """`tagging` only: the list of a sentence's words."""
    tags: str = "tags"
    """`tagging` only: the list of their classes."""
    id: str | None = None
    """A column of unique row ids; none derives ids from the content."""

    @model_validator(mode="after")
    def _braces_belong_to_columns(self) -> "Columns":
        for text in filter(None, (self.text, self.pair)):
            if template.stray(text):
                raise ValueError(f"`{text}` has a brace that belongs to no `{{column}}`; one in the text is doubled")
        return self


class Files(Section):
    """A file, a glob of files, a folder written by `datasets`, or a data set on the hub."""

    kind: Literal["files"] = "files"
    path: str
    name: str | None = None
    """Configuration of a data set on the hub."""
    split: str | None = None
    """Split of a hub data set or `datasets` folder."""
    revision: str | None = None
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "lines", "conllu", "conll", "folder", "hub"] = "auto"
    """`lines`: one text a line; `jsonl`: an object a line, or a list of objects; `conllu`, `conll`: one word a line
    with its classes in columns, a blank line after each sentence; the columns of `conllu` are id, form, lemma, upos,
    xpos, feats, head, deprel, deps, misc. `auto` goes by the ending, .gz included."""
    header: tuple[str, ...] | None = None
    """Column names of a CSV or TSV file that has no header line; of `conll` those of the first columns (none: the first
    is `words`, the last `tags`)."""
    quoting: bool = True
    """Whether quotes in CSV and TSV files delimit fields (GLUE's MRPC: they do not)."""
    pattern: str | None = None
    """`lines` only: a regular expression whose named groups are the columns."""
    target_path: str | None = None
    """`lines` and `generation` only: the file whose line n is the target of line n of `path`."""
    pack: bool = False
    """Running text: the lines of a document are joined into rows of the task's `max_length`, without labels."""
    columns: Columns = Columns()
    label_names: dict[str, str] = {}
    """Raw label → class name, or target → one of `task.choices`, where the file holds codes."""
    bad_rows: Literal["error", "drop"] = "error"
    """What to do with rows that cannot be read; dropped rows are counted in the report."""
    limit: PositiveInt | None = None
    """Keep this many rows, chosen by a hash of their content."""

    @model_validator(mode="after")
    def _targets_are_lines(self) -> "Files":
        if self.target_path is not None and (self.format != "lines" or self.pattern is not None or self.pack):
            raise ValueError("`target_path` goes with `format: lines`, without `pattern` and `pack`")
        return self


class Embedded(Section):
    """A data set that comes with this package: support requests to be sorted, or dates, times, numbers and prices to be
    translated, with all good translations of each in its `test` part."""

    kind: Literal["embedded"]
    name: Literal["support-desk", "dates-en-de"]
    part: Literal["train", "validation", "test", "transfer"]
    limit: PositiveInt | None = None


class Held(Section):
    """A part of another source, held out by a hash of the rows' content: same rows in any order of reading."""

    kind: Literal["held_out"]
    of: str
    """Name of the source; the rows held out leave it."""
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1


class StageData(Section):
    """The rows another stage wrote."""

    kind: Literal["stage"]
    stage: str


Source = Annotated[Files | Embedded | Held | StageData, Field(discriminator="kind")]
