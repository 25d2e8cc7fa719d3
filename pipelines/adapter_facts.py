"""What an adapter's folder says of itself, read without torch: its configuration and the head of its weights' file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from configs.errors import UserError
from distill.adapter_folder import BASE, CONFIG, WEIGHTS, is_norm

_NAMES = {
    "ADALORA": "adalora",
    "IA3": "ia3",
    "LN_TUNING": "norms",
    "LORA": "lora",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "p_tuning",
}
_TOKENS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE")
_NOT_LINEAR = {
    "bottleneck": "a bottleneck is no linear change of the weights",
    "fusion": "an attention over adapters is no linear change of the weights",
    "experts": "a mixture of experts is no linear change of the weights",
    "prefix": "learned keys and values have no place in the weights",
}
_PLACES = {"output": "houlsby", "norm": "pfeiffer", "stream": "pfeiffer", "parallel": "parallel"}
_SAID = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "target_r": "rank",
    "init_r": "initial_rank",
    "num_virtual_tokens": "tokens",
    "encoder_hidden_size": "width",
    "target_modules": "targets",
}
"""peft's keys, and what configurations here call the same."""


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter in its folder."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What a configuration here calls the method."""
        method = str(self.config["peft_type"])
        return self._own_kind if method == "MODULAR" else _NAMES.get(method, f"peft ({method.lower()})")

    @property
    def below(self) -> tuple[str, ...]:
        """The adapters it stands on, or attends over."""
        return (*self.config.get("under", ()), *self.config.get("members", ()))

    @property
    def base(self) -> str:
        """The frozen model it belongs to."""
        inside = (self.folder / BASE).is_dir()
        return f"{BASE}/ in its folder" if inside else str(self.config.get("base_model_name_or_path") or "")

    @property
    def megabytes(self) -> float:
        """MB (10⁶ bytes) of its own weights."""
        return self._weights.stat().st_size / 1e6

    @cached_property
    def counts(self) -> dict[str, int]:
        """Parameters of the method, of normalisations and of other modules trained whole, heads among them."""
        found = dict.fromkeys(("method", "norms", "whole modules"), 0)
        whole = tuple(f".{name}." for name in self.config.get("modules_to_save") or ())
        for name, shape in self._shapes():
            trained_whole = any(mark in name for mark in whole)
            found["method" if not trained_whole else "norms" if is_norm(name) else "whole modules"] += prod(shape)
        return found

    @property
    def unmergeable(self) -> str | None:
        """Why the frozen weights cannot take it in; none where they can, as far as its configuration says."""
        if str(self.config["peft_type"]) in _TOKENS:
            return "learned tokens have no place in the weights"
        kinds = [part["kind"] for part in self._parts if part["kind"] in _NOT_LINEAR]
        return _NOT_LINEAR[kinds[0]] if kinds else None

    def settings(self) -> dict[str, str]:
        """Return its configuration in the words of configurations here."""
        if self.config["peft_type"] == "MODULAR":
            found = dict(self._own_settings())
        else:
            given = {said: self.config[key] for key, said in _SAID.items() if self.config.get(key) is not None}
            found = {said: value for said, value in given.items() if value not in (False, [])}
            found["targets"] = _ends(found["targets"]) if "targets" in found else None
        found |= {"also": list(dict.fromkeys(also))} if (also := self.config.get("modules_to_save")) else {}
        return {"kind": self.kind, **{key: _written(value) for key, value in found.items() if value is not None}}

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return list(self.config.get("parts") or ())

    @property
    def _own_kind(self) -> str:
        kinds = {part["kind"] for part in self._parts}
        for kind in ("fusion", "experts"):
            if kind in kinds:
                return kind
        if not kinds:
            return "top_layers"
        if kinds == {"bottleneck", "prefix"}:
            return "mix_and_match"
        return next(iter(kinds & {"bottleneck", "prefix"}), "bitfit")

    def _own_settings(self) -> Iterator[tuple[str, Any]]:
        """Yield what each kind of part says once for all places."""
        for part in {part["kind"]: part for part in self._parts}.values():
            if "form" in part and self.kind == "bottleneck":
                yield "place", _PLACES[part["form"]]
            yield from ((key, part[key]) for key in _SPELT if part.get(key) is not None)
            if part["kind"] == "coupling":
                yield "invertible", part["reduction"]
        sides = [part["side"] for part in self._parts if "side" in part]
        left_out = sorted({layer for part in self._parts for layer in part.get("leave_out", ())})
        extra = {"sides": sides, "leave_out": left_out, "drop": self.config.get("drop"), "on": self.config.get("under")}
        extra["of"] = self.config.get("members")
        yield from ((key, value) for key, value in extra.items() if value)

    @property
    def _weights(self) -> Path:
        found = self.folder / WEIGHTS
        if not found.is_file():
            raise UserError(f"{self.folder}: {WEIGHTS}: not found")
        return found

    def _shapes(self) -> Iterator[tuple[str, list[int]]]:
        """Yield names and shapes from the file's head: its length in 8 bytes, then JSON."""
        with self._weights.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return iter([(name, entry["shape"]) for name, entry in head.items() if name != "__metadata__"])


_SPELT = ("size", "activation", "scale", "kronecker", "tokens", "width", "experts", "original", "regularisation")


def facts(folder: Path) -> AdapterFacts:
    """Read an adapter's folder. Raise UserError where it is none that peft loads."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no adapter; an adapter's folder holds {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}") from error
    if "peft_type" not in config:
        hint = "of AdapterHub's; `distill adapters import` takes it over" if "model_class" in config else "not peft's"
        raise UserError(f"{path}: peft_type: missing; the folder is {hint}")
    return AdapterFacts(folder, config)


def found_under(folder: Path) -> list[AdapterFacts]:
    """Return the adapters in a folder, however deep, but those that belong to another one's folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    paths = sorted(path.parent for path in folder.rglob(CONFIG) if "peft_type" in path.read_text(encoding="utf-8"))
    every = [facts(path) for path in paths]
    inside = {own.folder / name for own in every for name in own.below}
    return [own for own in every if own.folder not in inside]


def _ends(targets: str | list[str]) -> list[str]:
    """Return the ends of module names that a pattern of ours spells; # stands for a number."""
    if not isinstance(targets, str):
        return targets
    plain = targets.replace(r"(?:.*\.)?", "").replace(r"\d+", "#").replace("\\", "")
    return plain.split("|")


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
