"""Which parts go where: the adapters of our own, spelt out for an architecture."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from transformers import PreTrainedModel

from configs.adapters import Bottleneck, Experts, MixAndMatch, Prefix, TopLayers
from distill.errors import ModelError
from students.adapters.families import Family, layer_of, matching, pattern

Spec = dict[str, Any]
PARALLEL_SCALE = 4.0


def parts_of(section: Bottleneck | MixAndMatch | Prefix, model: PreTrainedModel, at: Family, where: str) -> list[Spec]:
    """Return the parts of an adapter. Raise ModelError for layers and sides that the model has not, and where no layer
    would keep its parts.
    """
    match section:
        case Prefix():
            _check_sides(section, model, where)
            parts = prefixes(section, model, at)
        case MixAndMatch():
            numbers = section.model_dump(include={"size", "scale", "activation"})
            beside = Bottleneck(kind="bottleneck", place="parallel", **numbers)
            before = Prefix(kind="prefix", tokens=section.tokens, width=section.width)
            parts = [*bottlenecks(beside, at), *prefixes(before, model, at)]
        case Bottleneck():
            parts = [*bottlenecks(section, at), *invertible(section, model, at)]
    layered = [part for part in parts if part["kind"] not in ("coupling", "inverse")]
    _check_layers(section, [part["at"] for part in layered], model, where)
    out = {"leave_out": list(section.leave_out)} if section.leave_out else {}
    return [{**part, **out} if part in layered else part for part in parts]


def _check_layers(
    section: Bottleneck | MixAndMatch | Prefix, places: list[str], model: PreTrainedModel, where: str
) -> None:
    placed = re.compile("|".join(f"(?:{place})" for place in places))
    layers = {layer_of(name) for name, _ in model.named_modules() if placed.fullmatch(name)}
    if unknown := sorted(set(section.leave_out) - layers):
        raise ModelError(f"{where}.leave_out: the model has no layer {unknown[0]}; its layers are 0 to {max(layers)}")
    kept = layers - set(section.leave_out)
    if not kept:
        raise ModelError(f"{where}.leave_out: all {len(layers)} layers; one at least has to keep its parts")
    if section.drop > max(kept):
        what = f"at times no layer would keep its parts; at most {max(kept)} here"
        raise ModelError(f"{where}.drop: with {section.drop} of {max(layers) + 1} layers left out, {what}")


def _check_sides(section: Prefix, model: PreTrainedModel, where: str) -> None:
    other = [side for side in section.sides or () if side != "encoder" and not model.config.is_encoder_decoder]
    if other:
        raise ModelError(f"{where}.sides: {model.config.model_type} has one stack, `encoder`, and no `{other[0]}`")


def bottlenecks(section: Bottleneck, at: Family) -> list[Spec]:
    """Return the small networks of every layer."""
    scale = section.scale if section.scale is not None else PARALLEL_SCALE if section.place == "parallel" else 1.0
    base = {"kind": "bottleneck", "size": section.size, "activation": section.activation, "scale": scale}
    if section.kronecker is not None:
        base["kronecker"] = section.kronecker
    match section.place:
        case "houlsby":
            return [{**base, "at": pattern((*at.attention_output, *at.down)), "form": "output"}]
        case "pfeiffer" if at.after:
            return [{**base, "at": pattern((at.after,)), "form": "norm"}]
        case "pfeiffer":
            return [{**base, "at": pattern(at.down), "form": "stream", "tap": list(at.residual)}]
        case "parallel":
            return [{**base, "at": pattern(at.down), "form": "parallel", "tap": list(at.residual)}]


def prefixes(section: Prefix, model: PreTrainedModel, at: Family) -> list[Spec]:
    """Return the learned keys and values of every attention, side by side."""
    beside = model.config.is_encoder_decoder
    sides = section.sides or ("encoder", "decoder", "cross") if beside else ("encoder",)
    whole = pattern(at.attention)
    found = {
        "encoder": on_side(whole, "encoder") if beside else whole,
        "decoder": on_side(rf"(?!.*\.{at.cross}$)(?:{whole})", "decoder"),
        "cross": pattern((at.cross,)),
    }
    base = {"kind": "prefix", "tokens": section.tokens, "width": section.width}
    return [{**base, "at": found[side], "side": side} for side in sides]


def on_side(at: str, side: Literal["encoder", "decoder"]) -> str:
    """Return the pattern of the same modules on one side of an encoder-decoder."""
    return rf"(?{'=' if side == 'decoder' else '!'}(?:.*\.)?decoder\.)(?:{at})"


def invertible(section: Bottleneck, model: PreTrainedModel, at: Family) -> list[Spec]:
    """Return what the embeddings go through, and its inverse where the model goes back to the vocabulary."""
    if section.invertible is None:
        return []
    found = [end for end in at.embedded if matching(model, [end])][:1]
    coupling = {"kind": "coupling", "reduction": section.invertible, "activation": section.activation}
    output = model.get_output_embeddings()
    outputs = [name for name, module in model.named_modules() if module is output]
    return [{**coupling, "at": pattern(found)}, *({"kind": "inverse", "at": pattern([name])} for name in outputs)]


def experts(section: Experts, model: PreTrainedModel, at: Family) -> list[Spec]:
    """Return the mixture after the last normalisation; of an encoder-decoder, of its decoder."""
    last = matching(model, at.last_norm)[-1]
    numbers = {"experts": section.experts, "size": section.size, "activation": section.activation}
    return [{"kind": "experts", **numbers, "original": section.original, "at": pattern([last])}]


def trained_norms(section: Bottleneck | MixAndMatch | Prefix, model: PreTrainedModel, at: Family) -> list[str]:
    """Return the normalisations that train beside the parts; one that an invertible part stands around does not."""
    if not isinstance(section, Bottleneck):
        return []
    wanted = section.norms if section.norms is not None else section.place == "houlsby"
    around = set(matching(model, at.embedded)) if section.invertible is not None else set()
    found = [(end, matching(model, [end])) for end in (at.norms if wanted else ())]
    whole = [end for end, names in found if names and not around & set(names)]
    return [*whole, *(name for _, names in found if around & set(names) for name in names if name not in around)]


def weightless(model: PreTrainedModel, ends: Iterable[str]) -> list[str]:
    """Return the modules that end so and have no weights, as the first normalisation of ModernBERT, by their names in
    the body, which are the same with a head and without one.
    """
    found = [name for name in matching(model, ends) if not list(model.get_submodule(name).parameters())]
    return [name.removeprefix(f"{model.base_model_prefix}.") for name in found]


def with_bias(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the modules of a model's body that have a bias, by their names."""
    prefix = model.base_model_prefix
    named = model.base_model.named_modules(prefix=prefix if model.base_model is not model else "")
    found = [name for name, module in named if getattr(module, "bias", None) is not None]
    if not found:
        raise ModelError(
            f"student.adapter: {model.config.model_type} has no biases; `kind: ia3` trains as little, or `kind: peft` "
            "with method beft adds some"
        )
    return tuple(found)


def top_layers(section: TopLayers, model: PreTrainedModel, at: Family, where: str) -> list[str]:
    """Return the names of the uppermost layers."""
    found = matching(model, [f"{at.layers}.#"])
    beside = [name for name in found if "decoder." in name] if model.config.is_encoder_decoder else found
    if section.layers > len(beside):
        raise ModelError(f"{where}.layers: {section.layers} of {len(beside)} layers")
    return beside[-section.layers :]
