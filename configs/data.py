"""Where rows come from and what their columns mean."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from configs.section import Section


class Task(Section):
    """What the model is for."""

    kind: Literal["classification", "regression", "text"] = "classification"
    """`text`: no task; a body distilled on plain text."""
    labels: tuple[str, ...] | None = None
    """Class names in the order of the outputs; none reads them from the training data, sorted."""
    max_length: PositiveInt = 128
    """Tokens kept of a row, special tokens included."""
    metric: Literal["accuracy", "f1", "f1_macro", "mcc", "pearson", "spearman"] | None = None
    """The number that decides; none is accuracy, or spearman for regression."""


class Columns(Section):
    """Which of the source's columns hold what."""

    text: str = "text"
    pair: str | None = None
    """Second text of a pair."""
    label: str | None = "label"
    """None: the rows carry no labels."""
    id: str | None = None
    """A column of unique row ids; none derives ids from the content."""


class Files(Section):
    """A file, a glob of files, a folder written by `datasets`, or a data set on the hub."""

    kind: Literal["files"] = "files"
    path: str
    name: str | None = None
    """Configuration of a data set on the hub."""
    split: str | None = None
    """Split of a hub data set or `datasets` folder."""
    revision: str | None = None
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "lines", "folder", "hub"] = "auto"
    """`lines`: one text a line. `auto` goes by the ending, .gz included."""
    header: tuple[str, ...] | None = None
    """Column names of a CSV or TSV file that has no header line."""
    quoting: bool = True
    """Whether quotes in CSV and TSV files delimit fields (GLUE's MRPC: they do not)."""
    pattern: str | None = None
    """`lines` only: a regular expression whose named groups are the columns."""
    pack: bool = False
    """Running text: the lines of a document are joined into rows of the task's `max_length`, without labels."""
    columns: Columns = Columns()
    label_names: dict[str, str] = {}
    """Raw label → class name, where the file holds codes."""
    bad_rows: Literal["error", "drop"] = "error"
    """What to do with rows that cannot be read; dropped rows are counted in the report."""
    limit: PositiveInt | None = None
    """Keep this many rows, chosen by a hash of their content."""


class Embedded(Section):
    """A data set that comes with this package."""

    kind: Literal["embedded"]
    name: Literal["support-desk"]
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
