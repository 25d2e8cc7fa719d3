"""Data sets of the `datasets` library: a folder it wrote, or one on the hub."""

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, LargeList, List

from configs.data import Files
from configs.errors import suggest
from distill.data.cleaning import texts_of
from distill.data.readers import Reading
from distill.errors import DataError

PATIENCE = 3.0
"""Seconds the hub is given to answer."""
_BATCH = 4096


def read_folder(path: Path, source: Files) -> Reading:
    """Read a folder written by `save_to_disk`. Raise DataError where it is none."""
    if not path.is_dir():
        raise DataError(f"folder {path} not found")
    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError:
        raise DataError(f"`datasets` did not write folder {path}; for the files in it write {path}/*.csv") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged: {_first_line(error)}") from None
    return _reading(_split(found, source, str(path)), source)


def read_hub(source: Files) -> Reading:
    """Read a data set of the hub, or its local copy where HF_HUB_OFFLINE is set.

    Raise DataError within `PATIENCE` seconds where the hub cannot be reached, with the command that fetches the data.
    """
    offline = datasets.config.HF_HUB_OFFLINE
    if not offline and not _reachable(_endpoint()):
        raise DataError(
            f"{source.path} is no file or folder here, and the hub ({_endpoint()}) did not answer within "
            f"{PATIENCE:g} s; fetch the data where it does ({_fetch(source)}), then set HF_HUB_OFFLINE=1"
        )
    try:
        found = datasets.load_dataset(source.path, source.name, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        problem = f"{source.path}: no file or folder here, nor a data set on the hub that can be read"
        hint = f"; HF_HUB_OFFLINE is set; fetch the data where the hub answers: {_fetch(source)}" if offline else ""
        raise DataError(f"{problem}: {_first_line(error)}{hint}") from None
    return _reading(_split(found, source, source.path), source)


def _split(found: Any, source: Files, where: str) -> Dataset:
    if not isinstance(found, DatasetDict):
        return found
    if source.split is None:
        raise DataError(f"{where} has several splits; name one in `split`. Choices: {', '.join(sorted(found))}")
    if source.split not in found:
        raise DataError(f"split `{source.split}` not in {where}{suggest(source.split, found)}")
    return found[source.split]


def _reading(dataset: Dataset, source: Files) -> Reading:
    wanted = [name for name in _columns(source) if name in dataset.column_names]
    rows = _rows(dataset.select_columns(wanted), source.label_names)
    return Reading(tuple(dataset.column_names), enumerate(rows, 1), " row ")


def _columns(source: Files) -> list[str]:
    columns = source.columns
    named = (
        *texts_of(columns),
        columns.label,
        columns.target,
        columns.choices,
        columns.words,
        columns.tags,
        columns.id,
    )
    return [name for name in named if name is not None]


def _rows(dataset: Dataset, codes: Collection[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows; a column of classes, or of lists of them, gives names, or numbers that are among `codes`."""
    inner = {name: f.feature if isinstance(f, List | LargeList) else f for name, f in dataset.features.items()}
    classes = {name: feature for name, feature in inner.items() if isinstance(feature, ClassLabel)}
    for batch in dataset.with_format("arrow").iter(_BATCH):
        for row in batch.to_pylist():
            for name, feature in classes.items():
                found = row[name]
                listed = isinstance(found, list)
                classed = [_class_name(feature, one, codes) for one in (found if listed else [found])]
                row[name] = classed if listed else classed[0]
            yield row


def _class_name(feature: ClassLabel, number: int | None, codes: Collection[str]) -> str | None:
    """Return a class's name, or its number where a run says what that stands for; the hub writes -1 where the labels of
    a test split are secret.
    """
    if number is None or number < 0:
        return None
    if str(number) in codes:
        return str(number)
    return str(feature.int2str(number))


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _reachable(url: str) -> bool:
    """Ask once. A thread of its own, since looking up a host's name knows no time limit."""
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_answers(url)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answers == [True]


def _answers(url: str) -> bool:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def _fetch(source: Files) -> str:
    """Return the command that leaves a copy in the cache of `datasets`, where loading offline looks for it."""
    given = [repr(source.path), *([repr(source.name)] if source.name else [])]
    options = [f"revision={source.revision!r}"] if source.revision else []
    return f'python -c "from datasets import load_dataset; load_dataset({", ".join(given + options)})"'


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
