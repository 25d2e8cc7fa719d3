"""Rows drawn from hand-written lines and a grammar: the same on every platform and in every run.

A line of the grammar may hold `{slot}` (one of the slot's fillers), `[a|b]` (one of the choices, where none is one) and
`#` (a digit). Every hand-written line and every template belongs to one part: no template of `test` is met in training.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import cycle, islice
from random import Random
from typing import Any, Literal, TypedDict, get_args

import yaml

from configs.errors import suggest
from distill.data.embedded import style
from distill.errors import DataError

Part = Literal["train", "validation", "test", "transfer"]

PARTS: tuple[Part, ...] = get_args(Part)

LABELS: tuple[str, ...] = (
    "reset_password",
    "account_locked",
    "two_factor",
    "payment_failed",
    "refund_request",
    "invoice_question",
    "order_status",
    "delivery_damaged",
    "change_address",
    "cancel_subscription",
    "change_plan",
    "delete_account",
    "data_export",
    "app_crash",
    "slow_performance",
    "feature_request",
    "talk_to_human",
)
"""Class names of `support-desk`, in the order of the outputs."""

_ROWS: Mapping[Part, int] = {"train": 23, "validation": 21, "test": 36, "transfer": 260}
"""Rows of each class."""
_TRIES = 10
"""Drawings for each row wanted, before the templates count as used up."""
_FOLDERS = {"support-desk": "support_desk"}
_BRACE = re.compile(r"\{(\w+)\}|\[([^\[\]]*)\]")
_DIGITS = re.compile("#+")
_REST = re.compile("[^a-z0-9]+")


class Row(TypedDict):
    """One message; rows of `transfer` carry no label."""

    text: str
    label: str | None


def load(name: str = "support-desk", part: str = "train") -> list[Row]:
    """Return the rows of a part, classes mixed. Raise DataError where there is no such set or part."""
    drawn = _part(name, part)
    return [{"text": line.text, "label": None if part == "transfer" else line.label} for line in drawn]


def templates(name: str = "support-desk", part: str = "train") -> list[str]:
    """Return for each row of `load` the hand-written line or template it was drawn from."""
    return [line.template for line in _part(name, part)]


@dataclass(frozen=True)
class _Line:
    text: str
    label: str
    template: str


@dataclass(frozen=True)
class _Frame:
    """What the templates of all intents share."""

    slots: Mapping[str, Sequence[str]]
    openers: Sequence[str]
    closers: Sequence[str]
    asides: Mapping[str, Sequence[str]]


def _part(name: str, part: str) -> list[_Line]:
    if name not in _FOLDERS:
        raise DataError(f"no embedded data set `{name}`{suggest(name, _FOLDERS)}")
    parts = _draw_all(name)
    if part not in parts:
        raise DataError(f"`{name}` has no part `{part}`{suggest(part, parts)}")
    return parts[part]


@cache
def _draw_all(name: str) -> Mapping[str, list[_Line]]:
    """Draw all parts together, since no text may stand in two of them or twice in one."""
    folder = files(__package__).joinpath(_FOLDERS[name])
    frame = _frame(folder)
    intents = {label: _read(folder.joinpath("intents", f"{label}.yaml")) for label in LABELS}
    seen: set[str] = set()
    parts: dict[str, list[_Line]] = {}
    for part in PARTS:
        lines = [line for label in LABELS for line in _draw(part, label, intents[label], frame, seen)]
        parts[part] = sorted(lines, key=lambda line: hashlib.sha256(line.text.encode()).digest())
    return parts


def _draw(part: Part, label: str, intent: Mapping[str, Any], frame: _Frame, seen: set[str]) -> list[_Line]:
    """Take the hand-written lines as they stand, then one row of each template in turn until there are enough."""
    lines = [_Line(text, label, text) for text in _lines(intent["core"][part])]
    seen.update(_key(line.text) for line in lines)
    remarks = [aside for other, asides in frame.asides.items() if other != label for aside in asides]
    streams = [(template, Random(template)) for template in _lines(intent["templates"][part])]
    for template, random in islice(cycle(streams), _TRIES * _ROWS[part]):
        if len(lines) == _ROWS[part]:
            return lines
        text = _message(random, template, frame, remarks)
        if _key(text) not in seen:
            seen.add(_key(text))
            lines.append(_Line(text, label, template))
    raise DataError(f"{label}: its templates for {part} give {len(lines)} texts, {_ROWS[part]} are wanted; add some")


def _message(random: Random, template: str, frame: _Frame, remarks: Sequence[str]) -> str:
    opener, sentences = style.frame(random, frame.openers, remarks, frame.closers)
    written = [_expand(random, sentence or template, frame.slots) for sentence in sentences]
    return style.hurry(random, style.join(opener, written))


def _expand(random: Random, text: str, slots: Mapping[str, Sequence[str]]) -> str:
    def choose(match: re.Match[str]) -> str:
        slot, choices = match.groups()
        return style.pick(random, slots[slot] if slot else choices.split("|"))

    while _BRACE.search(text):
        text = _BRACE.sub(choose, text)
    text = _DIGITS.sub(lambda match: _number(random, len(match[0])), text)
    return " ".join(text.split())


def _number(random: Random, digits: int) -> str:
    return style.pick(random, "123456789") + "".join(style.pick(random, "0123456789") for _ in range(digits - 1))


def _key(text: str) -> str:
    """Reduce a text to what makes it another text: not case, not punctuation."""
    return _REST.sub(" ", text.lower()).strip()


def _frame(folder: Traversable) -> _Frame:
    found = _read(folder.joinpath("slots.yaml"))
    slots, asides = ({key: _lines(text) for key, text in found[name].items()} for name in ("slots", "asides"))
    return _Frame(slots, _lines(found["openers"]), _lines(found["closers"]), asides)


def _read(file: Traversable) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]
