"""Where AdapterHub's names say a module is, and on which side its layers are counted."""

from collections.abc import Sequence
from typing import Any, Literal

from transformers import PreTrainedModel

from students.adapters.families import Family, pattern
from students.adapters.sites import on_side

KNOWN = ("bert", "roberta", "xlm-roberta", "t5", "mt5", "bart", "gpt2", "llama")
"""Architectures whose names and places are known; of the second of each pair AdapterHub runs the first's code."""
_BOTH: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
_ENDS = {
    ".output.dense": ".output",
    ".output.LayerNorm": ".output",
    ".SelfAttention.o": "",
    ".EncDecAttention.o": "",
    ".DenseReluDense.wo": "",
    ".self_attn.out_proj": ".attention_adapters",
    ".encoder_attn.out_proj": ".cross_attention_adapters",
    ".fc2": ".output_adapters",
    ".final_layer_norm": ".output_adapters",
    ".attn.c_proj": ".attention_adapters",
    ".self_attn.o_proj": ".attention_adapters",
    ".mlp.c_proj": ".output_adapters",
    ".mlp.down_proj": ".output_adapters",
}


def body_name(module: str, model: PreTrainedModel) -> str:
    """Return a module's name in the model's body."""
    return module.removeprefix(f"{model.base_model_prefix}.")


def hub_place(module: str, model: PreTrainedModel) -> str:
    """Return what AdapterHub calls the place of the module a bottleneck is put around."""
    name = body_name(module, model)
    end = next(end for end in _ENDS if name.endswith(end))
    return name.removesuffix(end) + _ENDS[end]


def without_cross(at: str, family: Family) -> str:
    """Return the pattern of the same modules but those with which a decoder looks at its encoder."""
    return rf"(?!.*\b{family.cross}\b)(?:{at})" if family.cross else at


def feed_forward(family: Family) -> str:
    """Return the pattern of the modules out of the feed-forward layers."""
    return pattern(family.down)


def by_side(at: str, left_out: list[int], model: PreTrainedModel) -> list[dict[str, Any]]:
    """Return places with the layers left out at each: AdapterHub counts a decoder's on from its encoder's."""
    if not left_out:
        return [{"at": at}]
    if not model.config.is_encoder_decoder:
        return [{"at": at, "leave_out": sorted(left_out)}]
    return [{"at": on_side(at, side), "leave_out": on_its_side(left_out, side == "encoder", model)} for side in _BOTH]


def on_its_side(layers: Sequence[int], first: bool, model: PreTrainedModel) -> list[int]:
    """Return those of the layers that lie on the first side, or the second, as they are counted there."""
    depth = int(model.config.num_hidden_layers)
    return sorted(layer if first else layer - depth for layer in layers if (layer < depth) == first)
