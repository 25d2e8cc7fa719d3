"""Make the part that a configuration describes, for the module it goes to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import nn
from transformers import PretrainedConfig

from students.adapters.modular.bias import Bias
from students.adapters.modular.bottleneck import Bottleneck, Compacter, Rule
from students.adapters.modular.experts import Experts
from students.adapters.modular.fusion import Fusion
from students.adapters.modular.invertible import Coupling
from students.adapters.modular.part import Part
from students.adapters.modular.prefix import HeadSizes, Prefix, PrefixNetwork

Held = TypeVar("Held", bound=nn.Module)


@dataclass(frozen=True)
class Place:
    """Where a part goes."""

    module: nn.Module
    peers: nn.ModuleDict
    """Parts of other adapters at the place."""
    shared: nn.ModuleDict
    """What the parts of this adapter share, by what it is."""
    model: PretrainedConfig


def make(spec: dict[str, Any], place: Place) -> Part:
    """Make a part. Its kinds are those `students.adapters.methods` writes."""
    width = width_of(place.module, place.model)
    match spec:
        case {"kind": "bottleneck", "size": size, "activation": activation, "scale": scale, "form": form}:
            products = spec.get("kronecker")
            if products is None:
                return Bottleneck(width, size, activation, scale, form)
            rule = _shared(place, "rule", lambda: Rule(products))
            return Compacter((width, size), activation, scale, form, rule)
        case {"kind": "fusion", "members": members, "regularisation": regularisation}:
            return Fusion(width, members, place.peers, regularisation)
        case {"kind": "coupling", "reduction": reduction, "activation": activation}:
            return Coupling(_embedded(place), reduction, activation)
        case {"kind": "experts", "experts": experts, "size": size, "activation": activation, "original": original}:
            return Experts(width, experts, size, activation, original)
        case {"kind": "prefix", "tokens": tokens, "width": inner, "side": side}:
            network = None
            if inner is not None:
                network = _shared(place, network_of(side), lambda: PrefixNetwork(tokens, width, inner))
            return Prefix(tokens, heads_of(place.model, side), network)
        case {"kind": "bias"}:
            return Bias(width)
        case _:
            raise ValueError(f"unknown part of an adapter: {spec}")


def network_of(side: str) -> str:
    """Return the name of the network that makes the prefixes of one side."""
    return f"prefix_{side}"


def _shared(place: Place, name: str, new: Callable[[], Held]) -> Held:
    """Return what the parts share under a name, made by the first that asks."""
    if name not in place.shared:
        place.shared[name] = new()
    return cast(Held, place.shared[name])


def _embedded(place: Place) -> int:
    """Return the width of the embeddings, which a few architectures make narrower than their layers."""
    if getattr(place.module, "weight", None) is not None:
        return width_of(place.module, place.model)
    return int(getattr(place.model, "embedding_size", None) or place.model.hidden_size)


def width_of(module: nn.Module, model: PretrainedConfig) -> int:
    """Return the width of what a module gives; of one without weights of its own, the model's."""
    for name in ("out_features", "nf", "embedding_dim"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    weight = getattr(module, "weight", None)
    return int(model.hidden_size) if weight is None else int(weight.shape[-1])


def heads_of(model: PretrainedConfig, side: str) -> HeadSizes:
    """Return the key–value heads of one side of a model."""
    asked = "decoder_attention_heads" if side != "encoder" else "encoder_attention_heads"
    heads = getattr(model, asked, None) or model.num_attention_heads
    width = getattr(model, "d_kv", None) or getattr(model, "head_dim", None) or model.hidden_size // heads
    return HeadSizes(getattr(model, "num_key_value_heads", None) or heads, width)
