"""Labels: what a file writes, what a class is called, which output of a model it is. Matched by name or refused."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.data import Task
from configs.errors import suggest
from distill.data.rows import BadRow, Rows
from distill.errors import DataError
from distill.types import IGNORED

Labels = NDArray[np.int64] | NDArray[np.float32]
"""[N] class numbers (IGNORED: none) or scores (NaN: none)."""

UNLABELLED = "for rows without labels set `columns.label: null`"
_NAMELESS = re.compile(r"LABEL_\d+")
_FRACTION = re.compile(r"[+-]?\d*\.\d+")


def class_name(raw: Any, task: Task, label_names: Mapping[str, str]) -> str:
    """Return the class a raw label stands for.

    Raise BadRow where there is none, DataError where it is of no class of the task.
    """
    written = _written(raw)
    if label_names and written not in label_names:
        raise DataError(f"label `{written}` not in label_names{suggest(written, label_names)}")
    name = label_names.get(written, written)
    if task.labels is not None and name not in task.labels:
        raise DataError(f"label `{name}` not in task.labels{suggest(name, task.labels)}")
    if task.labels is None and _FRACTION.fullmatch(name):
        raise DataError(
            f"label `{name}` is a number with a fraction; scores need `task.kind: regression`, "
            "classes with such names `task.labels`"
        )
    return name


def score(raw: Any) -> float:
    """Return a label as a score. Raise BadRow where there is none that is finite, DataError where it is no number."""
    if raw is None or raw == "":
        raise BadRow("no label", f"the row has no label; {UNLABELLED}")
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise DataError(f"label `{raw}` is no number; a regression needs scores")
    try:
        number = float(raw)
    except ValueError:
        raise DataError(f"label `{raw}` is no number; a regression needs scores") from None
    if not math.isfinite(number):
        raise BadRow("no label", f"the score is {number}")
    return number


def label_names(task: Task, training: Sequence[Rows]) -> tuple[str, ...]:
    """Return the class names in the order of the outputs: the task's, or those of the training rows, sorted.

    Names that are whole numbers are sorted as such. Empty for a task without classes. Raise DataError where the rows
    hold fewer than two classes.
    """
    if not task.has_classes:
        return ()
    if task.labels is not None:
        return task.labels
    found = {name for rows in training for name in rows.labels if name is not None}
    found |= {name for rows in training for tags in rows.tags for name in tags}
    if len(found) < 2:
        listed = ", ".join(sorted(found)) or "none"
        raise DataError(f"the training rows hold fewer than two classes ({listed}); name all classes in `task.labels`")
    return tuple(sorted(found, key=int if all(re.fullmatch(r"-?\d{1,18}", name) for name in found) else None))


def label_counts(rows: Rows) -> dict[str, int]:
    """Count the rows of each class; those without a label do not count."""
    return dict(Counter(name for name in rows.labels if name is not None))


def encode(rows: Rows, task: Task, names: Sequence[str]) -> Labels:
    """Return the labels as a model is trained on them, [N].

    Raise DataError for a class that is not in `names`: a later source holds one the training rows do not.
    """
    if task.kind == "regression":
        return np.array([math.nan if value is None else value for value in rows.labels], dtype=np.float32)
    if task.kind != "classification":
        return np.full(len(rows), IGNORED, dtype=np.int64)
    return _numbers(rows.labels, names)


def encode_tags(rows: Rows, names: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the classes of the words of each row. Raise DataError as `encode` does."""
    tags = rows.tags
    flat = _numbers([name for sentence in tags for name in sentence], names)
    return np.split(flat, np.cumsum([len(sentence) for sentence in tags])[:-1])


def _numbers(found: Sequence[str | None], names: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    numbers[None] = IGNORED
    unknown = next((name for name in found if name not in numbers), None)
    if unknown is not None:
        raise DataError(f"label `{unknown}` not among the classes of the training rows{suggest(str(unknown), names)}")
    return np.array([numbers[name] for name in found], dtype=np.int64)


def permutation(model: Sequence[str], run: Sequence[str], where: str) -> list[int] | None:
    """Return the numbers of the model's outputs in the order of the run's classes; None where both orders are the same.

    `logits[:, permutation]` then has the run's order. Names agree where they are equal, capital letters aside. Raise
    DataError where a name has no partner; `LABEL_0`, `LABEL_1` … say nothing, so they agree with themselves alone.
    """
    if list(model) == list(run):
        return None
    if tell_nothing(model, run):
        raise DataError(
            f"{where}: the outputs are called {', '.join(model)}, which tells nothing of the classes {', '.join(run)}; "
            "write the names into `id2label` of its config.json, or use these in `task.labels` and `label_names`"
        )
    places = _places(model, where)
    _same_names(places, _places(run, "task.labels"), (model, run), where)
    order = [places[name.casefold()] for name in run]
    return None if order == list(range(len(order))) else order


def tell_nothing(model: Sequence[str], run: Sequence[str]) -> bool:
    """Whether a model's outputs are called `LABEL_0`, `LABEL_1` …, and the run's classes are not."""
    return any(_NAMELESS.fullmatch(name) for name in model) and set(model) != set(run)


def _written(raw: Any) -> str:
    """Return a raw label as it would stand in a text file."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        raise BadRow("no label", f"the row has no label; {UNLABELLED}")
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, float):
        raise DataError(f"label `{raw}` is a number with a fraction; scores need `task.kind: regression`")
    if not isinstance(raw, str | int):
        raise DataError(f"label `{raw}` is neither a text nor a whole number")
    return str(raw).strip()


def _places(names: Sequence[str], where: str) -> dict[str, int]:
    places = {name.casefold(): place for place, name in enumerate(names)}
    if len(places) < len(names):
        raise DataError(f"{where}: two classes differ in nothing but capital letters: {', '.join(names)}")
    return places


def _same_names(
    places: Mapping[str, int], wanted: Mapping[str, int], names: tuple[Sequence[str], Sequence[str]], where: str
) -> None:
    model, run = names
    unknown = [name for name in model if name.casefold() not in wanted]
    missing = [name for name in run if name.casefold() not in places]
    if unknown or missing:
        parts = [
            f"the model has {', '.join(unknown)}, which the run does not know" if unknown else "",
            f"the run has {', '.join(missing)}, which the model does not know" if missing else "",
        ]
        raise DataError(f"{where}: labels are matched by name: {'; '.join(part for part in parts if part)}")
