"""AdapterHub's low-rank updates and learned factors as peft's LoRA and (IA)³."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from distill.adapted_model import transformer
from distill.errors import ModelError
from students.adapters.families import pattern
from students.adapters.hub import demands
from students.adapters.hub.places import body_name
from students.adapters.hub.read import CONFIG, HubAdapter

LORA = "lora"


@dataclass(frozen=True)
class LowRank:
    """What is added to the matrices, or what multiplies their outputs, by the names of their modules."""

    hub: HubAdapter
    settings: dict[str, Any]
    factors: dict[str, tuple[Tensor | None, Tensor]]
    """A [r D] and B [O r] of each matrix, or no A and a factor [O 1] for each of its outputs."""
    targets: str
    """The pattern of these modules' names."""
    transposed: bool
    """Whether the model keeps its matrices as [D O] (GPT-2)."""

    @property
    def scales(self) -> bool:
        """Whether outputs are multiplied."""
        return bool(self.settings["composition_mode"] == "scale")

    def config(self, common: dict[str, Any]) -> PeftConfig:
        """Return peft's configuration. (IA)³ there takes factors of outputs unless a module counts as feed-forward:
        AdapterHub multiplies what goes *into* the activation, peft by its own choice of modules what comes out of it.
        """
        common = {**common, "target_modules": self.targets, "fan_in_fan_out": self.transposed}
        if self.scales:
            return IA3Config(feedforward_modules=[], **common)
        scale = float(self.settings["alpha"]) / int(self.settings["r"])
        ranks = {re.escape(name): up.size(1) for name, (_, up) in self.factors.items()}
        first = next(iter(ranks.values()))
        others = {name: rank for name, rank in ranks.items() if rank != first}
        alphas = {name: scale * rank for name, rank in others.items()}
        return LoraConfig(
            r=first,
            lora_alpha=scale * first,  # type: ignore[arg-type]
            rank_pattern=others,
            alpha_pattern=alphas,  # type: ignore[arg-type]
            **common,
        )

    def fill(self, model: PeftModel, adapter: str) -> None:
        """Put the weights into peft's layers."""
        for name, (down, up) in self.factors.items():
            layer: Any = transformer(model).get_submodule(name)
            with torch.no_grad():
                if down is None:
                    layer.ia3_l[adapter].copy_(up.reshape(layer.ia3_l[adapter].shape))
                else:
                    layer.lora_A[adapter].weight.copy_(down)
                    layer.lora_B[adapter].weight.copy_(up)


def is_low_rank(hub: HubAdapter) -> bool:
    """Whether an adapter is nothing but low-rank updates or learned factors."""
    return [section.get("architecture") for section in hub.sections] == [LORA]


def low_rank(hub: HubAdapter, model: PreTrainedModel) -> LowRank:
    """Find the updates of a model's matrices. Raise ModelError for what is not computed here."""
    settings = demands.lora(hub.sections[0], hub)
    if settings["composition_mode"] not in ("add", "scale"):
        raise ModelError(f"{hub.folder / CONFIG}: composition_mode: `{settings['composition_mode']}` is unknown")
    factors = {}
    for name, module in model.named_modules():
        found = hub.weights.under(f"{body_name(name, model)}.loras.{hub.name}.")
        if found:
            merged = int(getattr(module, "nf", 0)) if name.endswith("c_attn") else 0
            factors[name] = _apart(found.get("lora_A"), found["lora_B"], merged, settings)
    hub.weights.check_all_taken()
    if not factors:
        raise ModelError(f"{hub.folder}: the weights hold no update of a matrix of {model.config.model_type}")
    return LowRank(hub, settings, factors, _targets(factors, model), model.config.model_type == "gpt2")


def _targets(factors: Iterable[str], model: PreTrainedModel) -> str:
    """Return the pattern of modules: of those in all layers, or where layers are left out, of each by its name."""
    names = [body_name(name, model) for name in factors]
    everywhere = pattern(dict.fromkeys(re.sub(r"\b\d+\b", "#", name) for name in names))
    found = [name for name, _ in model.named_modules() if re.fullmatch(everywhere, name)]
    return everywhere if found == list(factors) else pattern(names)


def _apart(down: Tensor | None, up: Tensor, merged: int, settings: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
    """Return A and B, or a factor, of a matrix.

    Of one matrix that makes queries, keys and values AdapterHub keeps updates of the chosen ones, one below the other:
    A [k·r D] and B [k·D r], where rows i of A belong to rows i of B. As one update its B [3·D k·r] is made of blocks.
    """
    if not merged:
        return down, up
    third, rank = merged // 3, up.size(1)
    chosen = [which for which, letter in enumerate("qkv") if letter in settings["attn_matrices"]]
    whole = torch.ones(merged, 1) if down is None else torch.zeros(merged, rank * len(chosen))
    for at, which in enumerate(chosen):
        columns = slice(0, 1) if down is None else slice(at * rank, (at + 1) * rank)
        whole[which * third : (which + 1) * third, columns] = up[at * third : (at + 1) * third]
    return down, whole
