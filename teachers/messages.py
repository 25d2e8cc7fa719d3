"""What a process that trains and one that teaches say to each other."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from distill.types import Batch, Heads, Inside, Layers, Needs, Outputs, Side, TopK
from teachers.wire import Message

SIDES: tuple[Side, ...] = ("encoder", "decoder", "cross")
_KINDS = ("hidden_states", "attentions", "relations")
_HEADS = ("query", "key", "value")
_CHOICES = "choices."


def question(number: int, batch: Batch, needs: Needs) -> Message:
    """Ask for what is needed of a batch; its answer bears the number."""
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    if needs.choices and "choices" in batch:
        tensors |= {f"{_CHOICES}{name}": cast(Tensor, value) for name, value in batch["choices"].items()}
    asked: dict[str, Any] = {"logits": needs.logits, "choices": needs.choices}
    for side in SIDES:
        asked[side] = [sorted(getattr(needs.on(side), kind)) for kind in _KINDS]
    return Message({"number": number, "step": batch["step"], "needs": asked}, tensors)


def batch_of(message: Message, device: torch.device) -> Batch:
    """Return the batch that is asked about, on a device."""
    held = {name: tensor.to(device) for name, tensor in message.tensors.items()}
    choices = {name.removeprefix(_CHOICES): held.pop(name) for name in list(held) if name.startswith(_CHOICES)}
    inputs: dict[str, Any] = {**held, **({"choices": choices} if choices else {})}
    return cast(Batch, {**inputs, "window_counts": {}, "progress": 0.0, "step": message.words["step"]})


def needs_of(message: Message) -> Needs:
    """Return what is asked for."""
    asked = message.words["needs"]
    encoder, decoder, cross = (Layers(*map(frozenset, asked[side])) for side in SIDES)
    return Needs(
        asked["logits"],
        encoder.hidden_states,
        encoder.attentions,
        encoder.relations,
        decoder,
        cross,
        asked["choices"],
    )


def tensors_of(outputs: Outputs) -> dict[str, Tensor]:
    """Return all tensors of outputs under names of their own."""
    named = {"logits": outputs.logits, "choices": outputs.choices}
    if outputs.top_k is not None:
        named |= {"indices": outputs.top_k.indices.int(), "log_probs": outputs.top_k.log_probs}
    found = {name: tensor for name, tensor in named.items() if tensor is not None}
    for side in SIDES:
        found |= {f"{side}.{name}": tensor for name, tensor in _inside(outputs.on(side))}
    return found


def outputs_of(tensors: dict[str, Tensor]) -> Outputs:
    """Put outputs together again."""
    sides = {side: Inside() for side in SIDES}
    heads: dict[tuple[Side, int], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match name.split("."):
            case [side, "relations", layer, part]:
                heads.setdefault((cast(Side, side), int(layer)), {})[part] = tensor
            case [side, kind, layer]:
                getattr(sides[cast(Side, side)], kind)[int(layer)] = tensor
    for (place, number), parts in heads.items():
        sides[place].relations[number] = Heads(**parts)
    encoder = sides["encoder"]
    return Outputs(
        logits=tensors.get("logits"),
        top_k=TopK(tensors["indices"].long(), tensors["log_probs"]) if "indices" in tensors else None,
        hidden_states=encoder.hidden_states,
        attentions=encoder.attentions,
        relations=encoder.relations,
        decoder=sides["decoder"],
        cross=sides["cross"],
        choices=tensors.get("choices"),
    )


def _inside(inside: Inside) -> Iterator[tuple[str, Tensor]]:
    for kind, layers in (("hidden_states", inside.hidden_states), ("attentions", inside.attentions)):
        yield from ((f"{kind}.{layer}", tensor) for layer, tensor in layers.items())
    for layer, heads in inside.relations.items():
        yield from ((f"relations.{layer}.{part}", getattr(heads, part)) for part in _HEADS)
