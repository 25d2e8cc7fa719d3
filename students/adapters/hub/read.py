"""Read a folder that AdapterHub's library wrote; nothing of it is run, and its weights are read as tensors only."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distill.errors import ModelError

CONFIG = "adapter_config.json"
FUSION_CONFIG = "adapter_fusion_config.json"
HEAD_CONFIG = "head_config.json"
WEIGHTS = ("adapter.safetensors", "pytorch_adapter.bin")
FUSION_WEIGHTS = ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin")
HEAD_WEIGHTS = ("model_head.safetensors", "pytorch_model_head.bin")
_BODY = re.compile(r"^(?:bert|roberta|model|transformer)\.")
"""How the names of a whole model's weights begin; those of a bare one, and T5's, begin without."""
_OLD_NAMES = {
    re.compile(r"(?:attention|layer)_text_(?:task|lang)_adapters"): "adapters",
    re.compile(r"invertible_lang_adapters"): "invertible_adapters",
}
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}


@dataclass
class Weights:
    """Tensors by their names in the model's body; what is never taken was not understood."""

    folder: Path
    tensors: dict[str, Tensor]
    taken: set[str] = field(default_factory=set)

    def take(self, name: str) -> Tensor:
        """Return a tensor. Raise ModelError where it is not there."""
        if name not in self.tensors:
            raise ModelError(f"{self.folder}: the weights lack {name}")
        self.taken.add(name)
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin so, by the rest of their names."""
        found = [name for name in self.tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.take(name) for name in found}

    def ending(self, end: str) -> dict[str, Tensor]:
        """Return the tensors whose names end so; they do not count as taken."""
        return {name: tensor for name, tensor in self.tensors.items() if name.endswith(end)}

    def check_all_taken(self) -> None:
        """Raise ModelError where weights are left that nothing here computes with."""
        rest = sorted(set(self.tensors) - self.taken)
        if rest:
            raise ModelError(f"{self.folder}: nothing here computes with {', '.join(rest[:3])} ({len(rest)} in all)")


@dataclass(frozen=True)
class Head:
    """What was trained on top of the model: its own last modules, by their names in the model."""

    tensors: dict[str, Tensor]
    labels: tuple[str, ...]
    model_class: str
    """transformers' name of the model it belongs to."""


@dataclass(frozen=True)
class HubAdapter:
    """One adapter as AdapterHub keeps it."""

    folder: Path
    name: str
    model_type: str
    flexible: bool
    """Whether it was trained in a model of AdapterHub's own, whose head undoes an invertible part."""
    sections: tuple[dict[str, Any], ...]
    """Its configuration; of a union, those of its members. Keys are in lower case."""
    weights: Weights
    head: Head | None = None


@dataclass(frozen=True)
class HubFusion:
    """A fusion as AdapterHub keeps it."""

    folder: Path
    members: tuple[str, ...]
    name: str
    section: dict[str, Any]
    weights: Weights


def read(folder: Path, *, head: bool = True) -> HubAdapter:
    """Read an adapter, with the head beside it where one is and `head` asks for it."""
    content = _json(folder / CONFIG)
    version = content.get("version")
    given = content.get("config")
    if not isinstance(given, dict) or "name" not in content:
        raise ModelError(f"{folder / CONFIG}: `config` and `name`: missing; is this a folder of AdapterHub's?")
    listed = given["configs"] if given.get("architecture") == "union" else [given]
    return HubAdapter(
        folder,
        str(content["name"]),
        str(content.get("model_type", "")),
        str(content.get("model_class", "")).endswith("AdapterModel"),
        tuple(_section(section, version) for section in listed),
        _weights(folder, WEIGHTS),
        _head(folder) if head and (folder / HEAD_CONFIG).is_file() else None,
    )


def is_fusion(folder: Path) -> bool:
    """Whether a folder holds a fusion of AdapterHub's."""
    return (folder / FUSION_CONFIG).is_file()


def read_fusion(folder: Path) -> HubFusion:
    """Read a fusion; the adapters it attends over lie in folders of their own."""
    content = _json(folder / FUSION_CONFIG)
    name, config = content.get("name"), content.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise ModelError(f"{folder / FUSION_CONFIG}: `config` and `name`: missing; is this a folder of AdapterHub's?")
    members = content.get("adapter_names") or name.split(",")
    return HubFusion(folder, tuple(members), name, config, _weights(folder, FUSION_WEIGHTS))


def _section(given: dict[str, Any], version: str | None) -> dict[str, Any]:
    """Return a configuration as later versions write it."""
    section = {key.lower(): value for key, value in given.items()}
    old = section.pop("invertible_adapter", None)
    if old:
        section["inv_adapter"] = old.get("block_type")
        section["inv_adapter_reduction_factor"] = old.get("reduction_factor")
    if version is None and section.get("non_linearity") in _OLD_ACTIVATIONS:
        section["non_linearity"] = _OLD_ACTIVATIONS[section["non_linearity"]]
    if section.get("architecture") == "lora" and _before_1_1(version):
        section["alpha"] = section.get("r", 8)  # until then the scale was 1, whatever the file says
    return section


def _before_1_1(version: str | None) -> bool:
    found = re.match(r"adapters\.(\d+)\.(\d+)", version or "")
    return found is None or (int(found[1]), int(found[2])) < (1, 1)


def _weights(folder: Path, names: Iterable[str]) -> Weights:
    return Weights(folder, {_renamed(name): tensor for name, tensor in _tensors(folder, names).items() if _own(name)})


def _own(name: str) -> bool:
    """Whether a weight is no second mention: every attention lists the prefixes that all share."""
    return ".prefix_tuning.pool." not in name


def _renamed(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = old.sub(new, name)
    return _BODY.sub("", name, count=1)


def _head(folder: Path) -> Head:
    content = _json(folder / HEAD_CONFIG)
    tensors = _tensors(folder, HEAD_WEIGHTS)
    labels = content.get("label2id") or {}
    ordered = tuple(sorted(labels, key=lambda label: int(labels[label])))
    return Head(tensors, ordered, str(content.get("model_class", "")))


def _tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{folder}: the weights are missing; one of {', '.join(names)}")
    try:
        if found.suffix == ".safetensors":
            return load_file(found)
        loaded: dict[str, Tensor] = torch.load(found, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many kinds for what is no file of tensors
        raise ModelError(f"{found}: cannot be read as tensors: {_first(error)}") from error
    return loaded


def _first(error: Exception) -> str:
    kind = "damaged" if isinstance(error, SafetensorError) else type(error).__name__
    return f"{kind}: {' '.join(str(error).split())[:120]}"


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path}: not found; is {path.parent.name} a folder of AdapterHub's?")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON: {error}") from error
    return found
