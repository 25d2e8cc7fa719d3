"""Put AdapterHub's weights into the parts of an adapter of ours."""

from collections.abc import Mapping
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from distill.adapted_model import transformer
from distill.errors import ModelError
from students.adapters.hub.parts import PREFIX, SIDES
from students.adapters.hub.places import hub_place
from students.adapters.hub.read import HubAdapter, HubFusion
from students.adapters.modular.bottleneck import Bottleneck, Compacter, Kronecker
from students.adapters.modular.fusion import Fusion
from students.adapters.modular.invertible import Coupling, Inverse
from students.adapters.modular.layer import ModularLayer
from students.adapters.modular.part import Part
from students.adapters.modular.prefix import Prefix


def fill(hub: HubAdapter, model: PeftModel, adapter: str) -> None:
    """Fill all parts of an adapter. Raise ModelError where weights are lacking, misshapen or left over."""
    inner = transformer(model)
    prefixes: dict[str, list[Prefix]] = {}
    for name, part in parts(inner, adapter):
        match part:
            case Bottleneck():
                _bottleneck(hub, part, f"{hub_place(name, inner)}.adapters.{hub.name}.")
            case Compacter():
                _compacter(hub, part, f"{hub_place(name, inner)}.adapters.{hub.name}.")
            case Coupling():
                _coupling(hub, part)
            case Prefix():
                prefixes.setdefault(_group(name, inner), []).append(part)
            case Inverse():
                pass  # has no weights of its own
            case _:
                raise ValueError(f"AdapterHub has no {type(part).__name__}")
    for group, found in prefixes.items():
        _prefix(hub, found, group)
    hub.weights.check_all_taken()


def fill_fusion(hub: HubFusion, model: PeftModel, adapter: str) -> None:
    """Fill the attention of a fusion. One without values attends over what its members add: V is the identity."""
    inner = transformer(model)
    for name, part in parts(inner, adapter):
        if isinstance(part, Fusion):
            given = hub.weights.under(f"{hub_place(name, inner)}.adapter_fusion_layer.{hub.name}.")
            if not hub.section.get("value", True):
                given["value.weight"] = torch.eye(len(part.value.weight))
            load(part, given, f"{hub.folder}: {name}")
    hub.weights.check_all_taken()


def parts(model: PreTrainedModel, adapter: str) -> list[tuple[str, Part]]:
    """Return an adapter's parts with the names of the modules they are put around."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, ModularLayer)]
    return [
        (name, cast(Part, layer.modular_parts[adapter])) for name, layer in layers if adapter in layer.modular_parts
    ]


def load(module: nn.Module, given: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a module. Raise ModelError where they are not exactly its own."""
    try:
        module.load_state_dict(dict(given))
    except RuntimeError as error:
        raise ModelError(f"{where}: {' '.join(str(error).split())[:200]}") from error


def _bottleneck(hub: HubAdapter, part: Bottleneck, prefix: str) -> None:
    given = hub.weights.under(prefix)
    scale = given.pop("scaling", None)
    if scale is not None:
        given["adapter_up.weight"] = given["adapter_up.weight"] * scale.reshape(-1, 1)
        given["adapter_up.bias"] = given["adapter_up.bias"] * scale
    load(part, _renamed(given, {"adapter_down.0": "down", "adapter_up": "up"}), f"{hub.folder}: {prefix}")


def _compacter(hub: HubAdapter, part: Compacter, prefix: str) -> None:
    given = hub.weights.under(prefix)
    for own, there in ((part.down, "adapter_down.0"), (part.up, "adapter_up")):
        found = {name.removeprefix(f"{there}."): weight for name, weight in given.items() if name.startswith(there)}
        _kronecker(own, found, f"{hub.folder}: {prefix}{there}")
    load(part.rule, {"weight": hub.weights.take(f"shared_parameters.{hub.name}.phm_rule")}, str(hub.folder))


def _kronecker(own: Kronecker, given: Mapping[str, Tensor], where: str) -> None:
    load(own, _renamed(given, {"W_left": "left", "W_right": "right", "b": "bias"}), where)


def _coupling(hub: HubAdapter, part: Coupling) -> None:
    mark = f"invertible_adapters.{hub.name}."
    first = next(name for name in hub.weights.tensors if mark in name)
    given = hub.weights.under(first[: first.index(mark)] + mark)
    names = {"F.0": "f.inner", "F.2": "f.outer", "G.0": "g.inner", "G.2": "g.outer"}
    load(part, _renamed(given, names), f"{hub.folder}: {mark}")


def _prefix(hub: HubAdapter, found: list[Prefix], group: str) -> None:
    """Fill the prefixes of a group, of which AdapterHub keeps one matrix [P 2·L·H·A]: keys and values by layer.

    A network that made it while training is run now, once: it takes no input, so what it gives is all it ever gives.
    """
    given = hub.weights.under(f"prefix_tuning.prefix_tunings.{hub.name}.{group}.")
    where = f"{hub.folder}: {group}"
    if "control_trans" not in given:
        given = {"control_trans": _made(given, hub, where)}
    matrix = given["control_trans"].reshape(found[0].prefix.size(1), len(found), 2, -1)
    for layer, part in enumerate(found):
        load(part, {"prefix": matrix[:, layer].transpose(0, 1).contiguous()}, where)


def _made(given: Mapping[str, Tensor], hub: HubAdapter, where: str) -> Tensor:
    """Return W₂ φ(W₁ E + b₁) + b₂."""
    section = next(section for section in hub.sections if section.get("architecture") == PREFIX)
    embedded, inner, outer = ("wte.weight", "control_trans.0", "control_trans.2")
    if embedded not in given or f"{outer}.weight" not in given:
        raise ModelError(f"{where}: the weights hold neither `control_trans` nor the network that makes it")
    inside = ACT2FN[section.get("non_linearity", "tanh")](
        nn.functional.linear(given[embedded], given[f"{inner}.weight"], given[f"{inner}.bias"])
    )
    return nn.functional.linear(inside, given[f"{outer}.weight"], given[f"{outer}.bias"])


def _group(name: str, model: PreTrainedModel) -> str:
    """Return what AdapterHub calls the prefixes of an attention."""
    if not model.config.is_encoder_decoder:
        return SIDES["decoder"]
    if "decoder." not in name:
        return SIDES["encoder"]
    return SIDES["cross" if name.endswith("encoder_attn") else "decoder"]


def _renamed(given: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return weights with the beginnings of their names exchanged."""
    made = {}
    for name, weight in given.items():
        old = next((old for old in names if name == old or name.startswith(f"{old}.")), name)
        made[names.get(old, old) + name.removeprefix(old)] = weight
    return made
