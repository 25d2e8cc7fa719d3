"""Files that recipes read and nobody publishes as they are: parts of a corpus, text without what is tested on."""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from zipfile import ZipFile

from rich.console import Console

TATOEBA = "deu.txt"
"""The pairs in the archive: English, German."""


def run(what: str, source: Path, output: Path, console: Console) -> int:
    """Write the files of one corpus from what was downloaded of it to a folder, and say how many lines each has."""
    output.mkdir(parents=True, exist_ok=True)
    for name, lines in KNOWN[what](source).items():
        (output / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        console.print(f"{output / name}: {len(lines):,} lines", highlight=False)
    return 0


def tatoeba(archive: Path) -> Mapping[str, list[str]]:
    """Return pairs, English tab German, by parts: no English sentence is in two of them."""
    parts: dict[str, list[str]] = {"train.tsv": [], "dev.tsv": [], "test.tsv": []}
    with ZipFile(archive) as packed:
        pairs = packed.read(TATOEBA).decode("utf-8").split("\n")
    for columns in (pair.split("\t") for pair in pairs if "\t" in pair):
        share = int(hashlib.sha1(columns[0].encode()).hexdigest(), 16) % 100
        part = "test" if share < 2 else "dev" if share < 4 else "train"
        parts[f"{part}.tsv"].append("\t".join(columns[:2]))
    return parts


def swahili(folder: Path) -> Mapping[str, list[str]]:
    """Return the lines of MasakhaNER's plain text that are no sentence of its test part."""
    test = {_letters("".join(words)) for words in _sentences(_lines(folder / "test.txt.gz"))}
    plain = _lines(folder / "unlabelled_voa_swahili.txt.gz")
    return {"plain.txt": [line for line in plain if _letters(line) not in test]}


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def _sentences(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the words, the first of each line's columns, between empty lines."""
    rest = iter(lines)
    for first in rest:
        yield [line.split()[0] for line in (first, *takewhile(str.strip, rest)) if line.strip()]


def _letters(text: str) -> str:
    """Return what is left of a sentence however its words were cut."""
    return re.sub(r"\W", "", text).lower()


KNOWN: Mapping[str, Callable[[Path], Mapping[str, list[str]]]] = {"tatoeba": tatoeba, "swahili": swahili}
