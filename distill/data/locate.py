"""Where the files of a source lie and what format they have; the hub is never asked for what is meant to be local."""

import re
from difflib import get_close_matches
from glob import has_magic
from pathlib import Path
from typing import Literal, NamedTuple

from configs.data import Files
from distill.data.readers import ending_format, known_endings
from distill.errors import DataError

Format = Literal["csv", "tsv", "jsonl", "parquet", "lines", "conllu", "conll", "folder", "hub"]

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Place(NamedTuple):
    """A file or folder and its format; on the hub, the path is the data set's name."""

    path: Path
    format: Format


def locate(source: Files) -> list[Place]:
    """Return the files of a source, sorted by name. Raise DataError where there is nothing, with the nearest names."""
    path = Path(source.path).expanduser()
    if source.format == "hub" or (source.format == "auto" and _is_hub_name(source.path)):
        return [Place(Path(source.path), "hub")]
    if has_magic(source.path) and not path.exists():
        return [Place(found, _format(found, source)) for found in _matching(path)]
    if not path.exists():
        raise DataError(missing(path))
    return [Place(path, _format(path, source))]


def missing(path: Path) -> str:
    """Say that a file is not there, and which one near it is."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path} not found; there is no folder {folder}"
    names = sorted(found.name for found in folder.iterdir())
    near = get_close_matches(path.name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else _listed(names, folder)
    return f"{path} not found; {hint}"


def _listed(names: list[str], folder: Path) -> str:
    more = f", … ({len(names)} in all)" if len(names) > 10 else ""
    return f"{folder} holds: {', '.join(names[:10])}{more}" if names else f"{folder} is empty"


def _matching(pattern: Path) -> list[Path]:
    files = sorted(
        path for path in Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))) if path.is_file()
    )
    if not files:
        raise DataError(f"no file matches {pattern}")
    return files


def _format(path: Path, source: Files) -> Format:
    if source.format != "auto":
        if path.is_dir() and source.format != "folder":
            raise DataError(f"{path} is a folder, `format` is {source.format}; for the files in it write {path}/*")
        return source.format
    if path.is_dir():
        return "folder"
    found = ending_format(path.name)
    if found is None:
        raise DataError(
            f"{path}: the ending tells no format; set `format`. Known endings: {known_endings()}, each with .gz too"
        )
    return found


def _is_hub_name(path: str) -> bool:
    """Whether a path that is not there is meant for the hub: `name` or `owner/name`, not written like a file."""
    here = Path(path).expanduser()
    if here.exists() or path.startswith((".", "/", "~")) or has_magic(path) or ending_format(path) is not None:
        return False
    in_a_folder = "/" in path and here.parent.is_dir()
    return _HUB_NAME.fullmatch(path) is not None and not in_a_folder
