"""What an API answered for the shard being written, kept beside it: nothing that was paid for is asked again."""

import json
import os
import threading
from collections import defaultdict
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from configs.endpoint import Endpoint
from distill.types import Text


@dataclass
class Usage:
    """What was asked and answered."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, other: "Usage") -> None:
        """Count what another counted, too."""
        self.requests += other.requests
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out

    def price(self, endpoint: Endpoint) -> float:
        """Return what it cost, in the currency of the endpoint's prices."""
        return (self.tokens_in * endpoint.price_in + self.tokens_out * endpoint.price_out) / 1e6


class Ledger:
    """A line for each row that was asked: its source's hash, its texts, what they cost. Its file bears the plan's key,
    and goes once the shard is written, whose footer then tells the cost.
    """

    def __init__(self) -> None:
        """Keep nothing, until a shard is begun."""
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._known: defaultdict[str, list[tuple[Text, ...]]] = defaultdict(list)
        self._spent = Usage()

    def begin(self, shard: Path, key: str) -> None:
        """Keep what is answered for a shard from here on, and know what was answered for it before."""
        self._known.clear()
        self._spent = Usage()
        path = _place(shard, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in before.splitlines():
            self._take(line)
        if before and not before.endswith("\n"):  # whoever wrote it was killed in a line
            _append(path, "\n")
        self._path = path

    def known(self, source: str) -> tuple[Text, ...] | None:
        """Return the texts a source was given before; each answer is for one row."""
        found = self._known.get(_hash(source))
        return found.pop(0) if found else None

    def note(self, source: str, texts: tuple[Text, ...], spent: Usage) -> None:
        """Keep an answer; one without texts for what it cost alone, so that its row is asked again."""
        line = {"source": _hash(source), "texts": [asdict(text) for text in texts], "spent": asdict(spent)}
        with self._lock:
            self._spent.add(spent)
            if self._path is not None:
                _append(self._path, json.dumps(line) + "\n")

    def spent(self) -> dict[str, int]:
        """Return what the shard cost, in this process and in earlier ones."""
        return asdict(self._spent)

    def end(self, shard: Path, key: str) -> None:
        """Forget a shard that is written."""
        self._path = None
        _place(shard, key).unlink(missing_ok=True)

    def _take(self, line: str) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        self._spent.add(Usage(**said["spent"]))
        if said["texts"]:
            self._known[said["source"]].append(tuple(Text(**text) for text in said["texts"]))


def _place(shard: Path, key: str) -> Path:
    return shard.parent / ".answers" / f"{shard.stem}-{key}.jsonl"


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())  # an answer costs more than this does


def _hash(source: str) -> str:
    return sha256(source.encode()).hexdigest()
